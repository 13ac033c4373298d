"""Which parts of Swath work on this machine: versions, devices and checks for a bug report.

Each check runs on its own: a failure becomes a line of the report, never a crash.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
import os
import platform
import re
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from swath.errors import missing_extra

# Package to import, name of its distribution.
LIBRARIES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "numpy": "numpy",
    "safetensors": "safetensors",
    "pydantic": "pydantic",
    "rasterio": "rasterio",
    "pyproj": "pyproj",
    "shapely": "shapely",
    "pyarrow": "pyarrow",
    "lancedb": "lancedb",
    "faiss": "faiss-cpu",
    "sklearn": "scikit-learn",
    "filelock": "filelock",
    "lazy_loader": "lazy-loader",
    "PIL": "pillow",
    "matplotlib": "matplotlib",
    "tensorboard": "tensorboard",
    "yaml": "pyyaml",
    "typer": "typer",
    "rich": "rich",
}

# Variables that change how things run; no others are shown, as they may hold secrets.
VARIABLES = (
    "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING",
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "NCCL_DEBUG", "WORLD_SIZE",
    "GDAL_DATA", "GDAL_SKIP", "GDAL_DRIVER_PATH", "GDAL_CACHEMAX", "PROJ_DATA", "PROJ_LIB",
)  # fmt: skip
LOW_DISK_BYTES = 2 * 2**30


@dataclass
class Diagnostics:
    """Results by section, problems and hints.

    Attributes:
        sections: Section -> name -> result; JSON-serializable.
        problems: What is broken and how to fix it.
        hints: What works, but could work better.
    """

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"problems": self.problems, "hints": self.hints, **self.sections}


def run_diagnostics(folder: str | Path = ".", *, step: bool = True) -> Diagnostics:
    """Check this machine.

    Args:
        folder: Folder for runs; used to report free disk space.
        step: Run a tiny training step.
    """
    report = Diagnostics()
    for name, check in (
        ("system", _system),
        ("libraries", _libraries),
        ("extras", _extras),
        ("compute", _compute),
        ("imagery", _imagery),
        ("disk", lambda report: _disk(report, Path(folder))),
        ("environment", _environment),
        *([("training step", _step)] if step else []),
    ):
        try:
            report.sections[name] = check(report)
        except Exception as error:  # reported, whatever it is
            report.sections[name] = {"failed": _error_text(error)}
            report.problems.append(f"{name}: {_error_text(error)}")
    return report


def _error_text(error: BaseException) -> str:
    return _private(f"{type(error).__name__}: {error}".strip().splitlines()[0])


def _private(text: str) -> str:
    """`text` without the path of the home folder, for a public bug report."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _system(report: Diagnostics) -> dict[str, Any]:
    from swath._version import __version__

    return {
        "swath": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "CPUs": f"{_cpus()} usable of {os.cpu_count()}",
        "memory": _memory(),
    }


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
        return f"{_size(sizes['MemAvailable'])} available of {_size(sizes['MemTotal'])}"
    except (OSError, KeyError, ValueError, IndexError):
        return "unknown"


def _libraries(report: Diagnostics) -> dict[str, Any]:
    versions = {}
    for package, distribution in LIBRARIES.items():
        try:
            importlib.import_module(package)
            versions[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            versions[distribution] = "imports, version unknown"
        except ModuleNotFoundError as error:
            versions[distribution] = f"missing ({error})"
            if missing := missing_extra(error, "imagery, an archive or a score"):
                report.hints.append(str(missing))
            else:
                report.problems.append(
                    f"{distribution} is missing: install it with `pip install {distribution}`"
                )
        except Exception as error:  # a wheel for another machine fails with anything
            versions[distribution] = f"broken ({_error_text(error)})"
            report.problems.append(
                f"{distribution} is installed but does not load ({_error_text(error)}): reinstall it with "
                f"`pip install --force-reinstall {distribution}`"
            )
    return versions


def _extras(report: Diagnostics) -> dict[str, Any]:
    """Installed packages of each extra; versions are read from metadata without import."""
    results = {}
    for extra, distributions in extras().items():
        versions = {}
        for distribution in distributions:
            with suppress(importlib.metadata.PackageNotFoundError):
                versions[distribution] = importlib.metadata.version(distribution)
        missing = [name for name in distributions if name not in versions]
        text = ", ".join(f"{name} {version}" for name, version in versions.items())
        if missing:
            text += f"{' but ' if text else ''}no {', '.join(missing)}: pip install '.[{extra}]'"
        results[extra] = text
    return results


def extras() -> dict[str, list[str]]:
    """Distributions that each extra of Swath adds, from the metadata of the installed package."""
    required: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("swath") or []:
        requirement, _, condition = line.partition(";")
        if extra := re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", condition):
            name = re.match(r"[\w.-]+", requirement)
            assert name is not None, line
            if name[0] != "swath":  # an extra that takes in another
                required.setdefault(extra[1], []).append(name[0])
    return required


def _compute(report: Diagnostics) -> dict[str, Any]:
    import torch

    results: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "matrix product": f"{_matmul_speed():.0f} GFLOP/s (float32, this CPU)",
        "freed memory kept": _keeps_memory(),
        "CUDA": torch.version.cuda or "not in this build of torch",
    }
    if torch.get_num_threads() > _cpus():
        report.hints.append(
            f"torch uses {torch.get_num_threads()} threads on {_cpus()} CPUs: set OMP_NUM_THREADS={_cpus()}"
        )
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        results[f"GPU {index}"] = f"{properties.name}, {_size(properties.total_memory)}, {bf16}"
    if not torch.cuda.device_count():
        results["GPU"] = "none"
        if torch.version.cuda and shutil.which("nvidia-smi"):
            report.hints.append(
                "an NVIDIA driver is installed, but torch finds no GPU: is the driver older than CUDA "
                f"{torch.version.cuda}, or CUDA_VISIBLE_DEVICES empty?"
            )
    return results


def _matmul_speed() -> float:
    """Best of three products of 1024 x 1024 matrices, in GFLOP/s."""
    import torch

    a = torch.randn(1024, 1024)
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return 2 * 1024**3 / best / 1e9


def _keeps_memory() -> str:
    from swath.cpu.allocator import retain_freed_memory

    return "yes" if retain_freed_memory() else "no (only with glibc)"


def _imagery(report: Diagnostics) -> dict[str, Any]:
    """GDAL drivers, and a test read."""
    if find_spec("rasterio") is None:
        return {"rasterio": "missing, so no imagery is read: pip install '.[geo]'"}
    from swath.rasters.safe_open import SKIPPED_DRIVERS, rasterio_module

    rasterio = rasterio_module()
    import pyproj

    with rasterio.Env() as environment:
        drivers = sorted(environment.drivers())
    required = ["GTiff", "JPEG", "PNG", "WEBP"]
    missing = [name for name in required if name not in drivers]
    if missing:
        report.problems.append(
            f"GDAL has no driver for {', '.join(missing)}: install rasterio from its wheel "
            "(`pip install rasterio`)"
        )
    return {
        "GDAL": rasterio.__gdal_version__,
        "PROJ": pyproj.proj_version_str,
        "Swath opens": ", ".join(name for name in required if name in drivers),
        "GDAL may open": f"{len(drivers)} formats in this process",
        "disabled in GDAL": ", ".join(name for name in SKIPPED_DRIVERS if name not in drivers)
        + " (for the whole process)"
        if "VRT" not in drivers
        else "none: rasterio was started before Swath",
        "a read": _read_sample(report),
    }


def _read_sample(report: Diagnostics) -> str:
    """Write and read a GeoTIFF, and compute its GSD with rasterio and PROJ."""
    import numpy as np

    from swath.rasters.read import read_header, read_window
    from swath.rasters.safe_open import rasterio_module

    rasterio = rasterio_module()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.tif"
        values = np.arange(64 * 64, dtype=np.uint16).reshape(1, 64, 64)
        transform = rasterio.Affine(10, 0, 500_000, 0, -10, 5_000_000)
        options = {"width": 64, "height": 64, "count": 1, "dtype": "uint16", "crs": "EPSG:32632"}
        with rasterio.open(path, "w", driver="GTiff", transform=transform, **options) as file:
            file.write(values)
        header = read_header(str(path))
        stored, _ = read_window(header)
    if not np.array_equal(stored, values) or header.gsd is None or abs(header.gsd - 10) > 0.1:
        report.problems.append("a GeoTIFF is not read as it was written: reinstall rasterio and pyproj")
        return f"wrong (GSD {header.gsd})"
    return f"GeoTIFF right, GSD {header.gsd:.3f} m"


def _disk(report: Diagnostics, folder: Path) -> dict[str, Any]:
    results = {}
    for name, path in (("here", folder), ("temporary files", Path(tempfile.gettempdir()))):
        usage = shutil.disk_usage(path)
        results[name] = f"{_size(usage.free)} free of {_size(usage.total)}"
        if usage.free < LOW_DISK_BYTES:
            report.hints.append(
                f"little free disk space for {name} ({_private(str(path.resolve()))}): {results[name]}"
            )
    return results


def _environment(report: Diagnostics) -> dict[str, Any]:
    return {name: _private(os.environ[name]) for name in VARIABLES if name in os.environ}


def _step(report: Diagnostics) -> dict[str, Any]:
    """Three real training steps of a small Scale-MAE, on random pixels."""
    import torch

    from swath.encoders import create_model
    from swath.objectives.protocol import objectives
    from swath.training.config.sections import OptimizerConfig
    from swath.training.optim.param_groups import build_optimizer, gradient_norm

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        entry = objectives.get("scale_mae")
        options = {
            "source_size": 32,
            "decoder_dim": 64,
            "decoder_depth": 1,
            "decoder_heads": 2,
            "head": "linear",
        }
        objective = entry.build(
            create_model("vit_micro_patch8", depth=2), entry.config.model_validate(options)
        )
        objective = objective.to(device)
        optimizer = build_optimizer(objective, OptimizerConfig(lr=1e-3), 1e-3)
        batch = {
            "image": torch.randn(8, 3, 64, 64, device=device),
            "gsd": torch.linspace(0.5, 5.0, 8, device=device),
            "valid": torch.ones(8, 64, 64, dtype=torch.bool, device=device),
            "key": torch.arange(8, device=device),
            "sensor": "rgb_aerial",
        }
        losses, seconds = [], []
        for _ in range(3):
            start = time.perf_counter()
            loss = objective(objective.views(batch))["total"]  # type: ignore[operator]
            loss.backward()
            norm = gradient_norm(objective.parameters(), None)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
            seconds.append(time.perf_counter() - start)
    learns = all(map(math.isfinite, [*losses, float(norm)])) and losses[-1] < losses[0]
    if not learns:
        report.problems.append(
            f"a training step on {device.type} does not lower the loss ({losses}): this build of torch "
            "gives wrong results, install another one"
        )
    return {
        "device": device.type,
        "losses": ", ".join(f"{loss:.4f}" for loss in losses),
        "gradient norm": f"{float(norm):.4g}",
        "time": f"{1000 * min(seconds):.0f} ms per step of 8 images",
    }


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


def format_diagnostics(report: Diagnostics) -> str:
    """The report as text for a bug report."""
    lines = []
    for section, findings in report.sections.items():
        lines.append(section)
        width = max((len(name) for name in findings), default=0)
        lines += [f"  {name:<{width}}  {value}" for name, value in findings.items()]
        if not findings:
            lines.append("  (nothing set)")
    lines += [f"hint: {hint}" for hint in report.hints]
    lines += [f"PROBLEM: {problem}" for problem in report.problems]
    lines.append("all is well" if not report.problems else f"{len(report.problems)} problems")
    return "\n".join(lines)


__all__ = ["Diagnostics", "format_diagnostics", "run_diagnostics"]

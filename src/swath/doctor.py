"""What a bug report needs: the machine, the versions, what works here and what does not, in one page.

Every finding is taken by itself: whatever is broken becomes a line, never a crash of the doctor.
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
from pathlib import Path
from typing import Any

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
    "jinja2": "jinja2",
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
LITTLE_DISK = 2 * 2**30


@dataclass
class Diagnostics:
    """Findings by section, and what is wrong with them.

    Attributes:
        sections: Section -> name -> finding; JSON-safe.
        problems: Sentences that say what is broken and how to put it right.
        hints: Sentences about what works, but could work better.
    """

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    hints: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {"problems": self.problems, "hints": self.hints, **self.sections}


def run_diagnostics(folder: str | Path = ".", *, step: bool = True) -> Diagnostics:
    """Look at this machine.

    Args:
        folder: Where runs would be written; its free disk is looked at.
        step: Whether to take a tiny training step.
    """
    report = Diagnostics()
    for name, look in (
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
            report.sections[name] = look(report)
        except Exception as error:  # the doctor reports, whatever it meets
            report.sections[name] = {"failed": _told(error)}
            report.problems.append(f"{name}: {_told(error)}")
    return report


def _told(error: BaseException) -> str:
    return _private(f"{type(error).__name__}: {error}".strip().splitlines()[0])


def _private(text: str) -> str:
    """Without the name of the user's home, which a public bug report need not tell."""
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
    found = {}
    for package, distribution in LIBRARIES.items():
        try:
            importlib.import_module(package)
            found[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            found[distribution] = "imports, version unknown"
        except ModuleNotFoundError as error:
            found[distribution] = f"missing ({error})"
            report.problems.append(f"{distribution} is missing: install it with `pip install {distribution}`")
        except Exception as error:  # a wheel for another machine fails with anything
            found[distribution] = f"broken ({_told(error)})"
            report.problems.append(
                f"{distribution} is installed but does not load ({_told(error)}): reinstall it with "
                f"`pip install --force-reinstall {distribution}`"
            )
    return found


def _extras(report: Diagnostics) -> dict[str, Any]:
    """Which optional packages are there, by extra; their versions are looked up, not loaded."""
    found = {}
    for extra, distributions in extras().items():
        versions = {}
        for distribution in distributions:
            with suppress(importlib.metadata.PackageNotFoundError):
                versions[distribution] = importlib.metadata.version(distribution)
        missing = [name for name in distributions if name not in versions]
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        if missing:
            told += f"{' but ' if told else ''}no {', '.join(missing)}: pip install '.[{extra}]'"
        found[extra] = told
    return found


def extras() -> dict[str, list[str]]:
    """Extra of Swath -> distributions that it asks for, as the installed package states them."""
    found: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("swath") or []:
        requirement, _, condition = line.partition(";")
        if extra := re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", condition):
            name = re.match(r"[\w.-]+", requirement)
            assert name is not None, line
            found.setdefault(extra[1], []).append(name[0])
    return found


def _compute(report: Diagnostics) -> dict[str, Any]:
    import torch

    found: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "matrix product": f"{_matmul_speed():.0f} GFLOP/s (float32, this CPU)",
        "freed memory kept": _keeps_memory(),
        "CUDA": torch.version.cuda or "torch is built without it",
    }
    if torch.get_num_threads() > _cpus():
        report.hints.append(
            f"torch uses {torch.get_num_threads()} threads on {_cpus()} CPUs: set OMP_NUM_THREADS={_cpus()}"
        )
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
        found[f"GPU {index}"] = f"{properties.name}, {_size(properties.total_memory)}, {bf16}"
    if not torch.cuda.device_count():
        found["GPU"] = "none"
        if torch.version.cuda and shutil.which("nvidia-smi"):
            report.hints.append(
                "there is an NVIDIA driver, but torch sees no GPU: is the driver older than CUDA "
                f"{torch.version.cuda}, or CUDA_VISIBLE_DEVICES empty?"
            )
    return found


def _matmul_speed() -> float:
    """Best of three products of 1024 x 1024 matrices, in GFLOP/s."""
    import torch

    a = torch.randn(1024, 1024)
    best = math.inf
    for _ in range(3):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * 1024**3 / best / 1e9


def _keeps_memory() -> str:
    from swath.cpu.allocator import retain_freed_memory

    return "yes" if retain_freed_memory() else "no (only with glibc)"


def _imagery(report: Diagnostics) -> dict[str, Any]:
    """What GDAL may open, and whether Swath's own small samples can be read."""
    from swath.rasters.safe_open import SKIPPED_DRIVERS, rasterio_module

    rasterio = rasterio_module()
    import pyproj

    with rasterio.Env() as environment:
        drivers = sorted(environment.drivers())
    wanted = ["GTiff", "JPEG", "PNG", "WEBP"]
    missing = [name for name in wanted if name not in drivers]
    if missing:
        report.problems.append(
            f"GDAL has no driver for {', '.join(missing)}: install rasterio from its wheel "
            "(`pip install rasterio`)"
        )
    return {
        "GDAL": rasterio.__gdal_version__,
        "PROJ": pyproj.proj_version_str,
        "Swath opens": ", ".join(name for name in wanted if name in drivers),
        "GDAL may open": f"{len(drivers)} formats in this process",
        "kept from GDAL": ", ".join(name for name in SKIPPED_DRIVERS if name not in drivers)
        + " (for all that runs in this process)"
        if "VRT" not in drivers
        else "nothing: rasterio was started before Swath",
        "a read": _read_sample(report),
    }


def _read_sample(report: Diagnostics) -> str:
    """Write and read a GeoTIFF, and measure its GSD: rasterio, PROJ and its database at work."""
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
        report.problems.append(
            "a GeoTIFF does not come back as it was written: reinstall rasterio and pyproj"
        )
        return f"wrong (GSD {header.gsd})"
    return f"GeoTIFF right, GSD {header.gsd:.3f} m"


def _disk(report: Diagnostics, folder: Path) -> dict[str, Any]:
    found = {}
    for name, place in (("here", folder), ("temporary files", Path(tempfile.gettempdir()))):
        usage = shutil.disk_usage(place)
        found[name] = f"{_size(usage.free)} free of {_size(usage.total)}"
        if usage.free < LITTLE_DISK:
            report.hints.append(
                f"little disk is free for {name} ({_private(str(place.resolve()))}): {found[name]}"
            )
    return found


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
            began = time.perf_counter()
            loss = objective(objective.views(batch))["total"]  # type: ignore[operator]
            loss.backward()
            norm = gradient_norm(objective.parameters(), None)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(float(loss.detach()))
            seconds.append(time.perf_counter() - began)
    learns = all(map(math.isfinite, [*losses, float(norm)])) and losses[-1] < losses[0]
    if not learns:
        report.problems.append(
            f"a training step on {device.type} does not lower the loss ({losses}): this build of torch "
            "computes wrongly, install another one"
        )
    return {
        "device": device.type,
        "losses": ", ".join(f"{loss:.4f}" for loss in losses),
        "gradient norm": f"{float(norm):.4g}",
        "time": f"{1000 * min(seconds):.0f} ms a step of 8 images",
    }


def _size(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"


def format_diagnostics(report: Diagnostics) -> str:
    """The report as lines, to paste into a bug report."""
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

"""Models in other programs' forms: do they answer as the model does, how large are they, how fast?

One model of each family with random weights is saved and exported by `swath export` to every format that
holds it. The files are then opened by the program they are for (onnxruntime, `torch.export.load`, timm,
`swath.from_pretrained` without a network) and asked for embeddings of images that the export did not see: one
image and several, square and not, dark corners without data. Differences are the largest of any number,
relative to the largest number of the answer (or to 1). Speeds take turns, on one thread, in CPU time (a busy
machine does not change it much); the median is told.

    python benchmarks/export_formats.py [--families vit,multi,swin,cnn] [--batch 4] [--rounds 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from typer.testing import CliRunner

import swath
from swath.cli.main import build_app
from swath.encoders import create_model
from swath.models import Contract, Model, save_model

Run = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Family:
    """A model to export, and the shapes of images that it is asked about."""

    encoder: str
    sensors: tuple[str, ...]
    size: int
    fixed: bool = False  # exported for one size
    gsd: float | None = None  # that timm's positions are fixed to
    in_timm: bool = True


FAMILIES = {
    "vit": Family("vit_tiny_patch16", ("rgb_aerial",), 224, gsd=0.5),
    "multi": Family("vit_multi_sensor_tiny", ("sentinel1_ben", "sentinel2_ben"), 120, in_timm=False),
    "swin": Family("swin_tiny_patch4_window7", ("rgb_aerial",), 224, fixed=True),
    "cnn": Family("resnet50", ("rgb_aerial",), 224),
}
ENDINGS = {"onnx": ".onnx", "torch": ".pt2", "timm": ".safetensors", "hub": ""}


def build(family: Family, folder: Path) -> Path:
    """Its model directory, all weights random."""
    torch.manual_seed(0)
    contract = Contract.of(*family.sensors, gsd_range=(0.3, 3.0) if len(family.sensors) == 1 else None)
    bands: Any = {name: len(sensor.bands) for name, sensor in contract.sensors.items()}
    bands = bands if len(bands) > 1 else next(iter(bands.values()))
    encoder = create_model(family.encoder, bands=bands)
    return save_model(
        folder,
        encoder=encoder,
        contract=contract,
        encoder_name=family.encoder,
        encoder_options={"bands": bands},
    )


def images_of(model: Model, sensor: str, count: int, height: int, width: int) -> Tensor:
    """Images about as bright as the sensor's, in its unit."""
    own = model.contract.sensors[sensor]
    random = torch.rand(count, len(own.bands), height, width, generator=torch.Generator().manual_seed(count))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (own.mean, own.std))
    return mean + std * (2 * random - 1)


def opened(kind: str, path: Path, model: Model, sensor: str, printed: str) -> Run:
    """The exported form in the hands of its own program."""
    if kind == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda image, gsd: torch.from_numpy(
            np.asarray(session.run(None, {"image": image.numpy(), "gsd": gsd.numpy()})[0])
        )
    if kind == "torch":
        return torch.export.load(path).module()
    if kind == "hub":
        os.environ["HF_HUB_OFFLINE"] = "1"
        again = swath.from_pretrained(path)
        return lambda image, gsd: again.embed_batch({"image": image, "gsd": gsd, "sensor": sensor})
    own = model.contract.sensors[sensor]
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (own.mean, own.std))
    found: dict[str, Any] = {}
    exec(printed[printed.index("from safetensors") :], found)  # the lines that the command prints
    network = found["network"].eval()
    return lambda image, gsd: network((image - mean) / std)


def per_image(runs: dict[str, Run], image: Tensor, gsd: Tensor, rounds: int) -> dict[str, float]:
    """CPU milliseconds an image of each, taking turns."""
    took: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, run in runs.items():
            began = time.process_time()
            run(image, gsd)
            if turn:  # the first warms up
                took[name].append(1000 * (time.process_time() - began) / len(image))
    return {name: statistics.median(times) for name, times in took.items()}


@torch.inference_mode()
def measure(name: str, family: Family, source: Path, folder: Path, batch: int, rounds: int) -> None:
    """Export one model to every format; print a row for each."""
    model = swath.load_model(source)
    sensor = family.sensors[-1]
    size = family.size

    def ours(image: Tensor, gsd: Tensor) -> Tensor:
        return model.embed_batch({"image": image, "gsd": gsd, "sensor": sensor})

    runs: dict[str, Run] = {"torch, as it is": ours}
    rows: dict[str, tuple[float, float]] = {
        "torch, as it is": (0.0, (source / "model.safetensors").stat().st_size / 1e6)
    }
    for kind, ending in ENDINGS.items():
        if kind == "timm" and not family.in_timm:
            continue
        out = folder / f"{name}-{kind}{ending}"
        arguments = ["export", str(source), "--to", kind, "--out", str(out)]
        if kind in ("onnx", "torch") and len(family.sensors) > 1:
            arguments += ["--sensor", sensor]
        if (kind in ("onnx", "torch") and family.fixed) or (kind == "timm" and name != "cnn"):
            arguments += ["--size", str(size)]
        if kind == "timm" and family.gsd:
            arguments += ["--gsd", str(family.gsd)]
        said = CliRunner().invoke(build_app(), arguments)
        if said.exit_code:
            raise SystemExit(f"{' '.join(arguments)}: {said.output}")
        run = opened(kind, out, model, sensor, said.output)
        shapes = [(1, size, size), (5, size, size)]
        if not family.fixed and not (kind == "timm" and name == "vit"):
            step = model.min_size
            shapes += [(2, 2 * step, 5 * step), (3, 9 * step, 4 * step)]
        worst = 0.0
        for count, height, width in shapes:
            image = images_of(model, sensor, count, height, width)
            gsd = (
                torch.full((count,), family.gsd)
                if kind == "timm" and family.gsd
                else torch.linspace(0.3, 3, count)
            )
            if kind != "timm":
                image[:, :, :7, :9] = float("nan")
            wanted, found = ours(image, gsd), run(image, gsd)
            worst = max(worst, float((found - wanted).abs().max()) / max(1.0, float(wanted.abs().max())))
        files = list(out.iterdir()) if out.is_dir() else [out]
        rows[kind] = (worst, sum(path.stat().st_size for path in files) / 1e6)
        if kind != "hub":
            runs[kind] = run
    image = images_of(model, sensor, batch, size, size)
    speed = per_image(runs, image, torch.full((batch,), family.gsd or 1.0), rounds)
    for kind, (worst, megabytes) in rows.items():
        quick = f"{speed[kind]:.1f}" if kind in speed else ""
        first = f"{family.encoder}, {size} px" if kind == "torch, as it is" else ""
        print(f"| {first} | {kind} | {worst:.1g} | {megabytes:.1f} | {quick} |", flush=True)


def main() -> None:
    """Measure the families asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | form | largest difference | MB | CPU ms an image |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.families.split(","):
            source = build(FAMILIES[name], Path(folder) / name)
            measure(name, FAMILIES[name], source, Path(folder), arguments.batch, arguments.rounds)


if __name__ == "__main__":
    main()

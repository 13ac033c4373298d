"""A model out of the house: write it as ONNX, and let onnxruntime, without Swath, ask it for embeddings.

    python examples/use_elsewhere.py --model runs/first/model
    python examples/use_elsewhere.py                   # a small untrained one, to see it run

Needs the extra `onnx`: ``pip install '.[onnx]'``. On the command line the same is
``swath export runs/first/model --to onnx --out model.onnx``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
import torch

import swath
from swath.models import Contract, save_model


def untrained(folder: Path) -> Path:
    """A model directory of an encoder with random weights, for aerial images in red, green and blue."""
    torch.manual_seed(0)
    encoder = swath.create_model("vit_micro_patch8", bands=3)
    return save_model(
        folder,
        encoder=encoder,
        encoder_name="vit_micro_patch8",
        encoder_options={"bands": 3},
        contract=Contract.of("rgb_aerial", gsd_range=(0.3, 3.0)),
    )


def embed_with_onnxruntime(path: Path, images: np.ndarray, gsd: np.ndarray) -> np.ndarray:
    """What a program does that knows nothing of Swath: the file itself says what it takes."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert images.shape[1] == len(json.loads(about["bands"]))
    step = int(about["size_multiple"])
    assert images.shape[2] % step == images.shape[3] % step == 0
    (embedding,) = session.run(None, {"image": images.astype(np.float32), "gsd": gsd.astype(np.float32)})
    return np.asarray(embedding)


def main(model: Path, out: Path) -> float:
    """Export and compare; returns the largest difference of an embedding, relative to its largest number."""
    exported = swath.export(model, out, to="onnx")
    print(f"{exported.path}: {exported.path.stat().st_size / 1e6:.1f} MB")
    for line in exported.left_behind:
        print(f"not in it: {line}")

    ours = swath.load_model(model)
    sensor = ours.contract.sensor()
    random = np.random.default_rng(0)
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in (sensor.mean, sensor.std))
    side = 4 * ours.min_size
    worst = 0.0
    for count, height, width in ((1, side, side), (5, side, 2 * side)):  # batch and size are free
        noise = random.uniform(-1, 1, (count, len(sensor.bands), height, width))
        images, gsd = (mean + std * noise).astype(np.float32), np.linspace(1, 2, count)
        theirs = embed_with_onnxruntime(out, images, gsd)
        requested = ours.embed(images, gsd=gsd).numpy()
        worst = max(worst, float(np.abs(theirs - requested).max() / max(1.0, np.abs(requested).max())))
    print(f"onnxruntime answers as the model does, to {worst:.1g}")
    return worst


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="directory of a model that knows one sensor")
    parser.add_argument("--out", type=Path, default=Path("model.onnx"))
    arguments = parser.parse_args()
    main(arguments.model or untrained(Path("untrained_model")), arguments.out)

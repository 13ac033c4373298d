"""What features depend on, as hashes: the images, and the module that encodes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from swath.datasets.image_files import ImageFileDataset
from swath.evaluation.data.subset import EvalSubset


def images_hash(part: EvalSubset) -> str:
    """SHA-256 over the images of a part as a feature extractor meets them (before resizing).

    Whole image files are known by path, size and time of change; of any other data set all pixels are read.
    """
    dataset = part.dataset
    digest = hashlib.sha256(json.dumps(dataset.sensor.to_dict(), sort_keys=True).encode())
    if isinstance(dataset, ImageFileDataset) and dataset.resize_mode != "random_crop":
        how = [dataset.size, dataset.resize_mode, dataset.offset_dn]
        digest.update(json.dumps(how).encode())
        digest.update(np.ascontiguousarray(dataset.gsds[part.indices]).tobytes())
        for path in part.paths:
            try:
                file = Path(path).stat()
                state = f"{file.st_size} {file.st_mtime_ns}"
            except OSError:
                state = "absent"
            digest.update(f"{Path(path).absolute()}\t{state}\n".encode())
        return digest.hexdigest()
    for start in range(0, len(part.indices), 64):
        batch = dataset.get_batch(part.indices[start : start + 64])
        for name in ("index", "image", "gsd", "valid"):
            value = batch.get(name)
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(_bytes(value))
    return digest.hexdigest()


def module_hash(module: nn.Module) -> str:
    """SHA-256 over a network: its weights, and the classes and plain attributes of all of its modules."""
    digest = hashlib.sha256()
    for name, part in module.named_modules():
        plain = {
            key: value
            for key, value in vars(part).items()
            if not key.startswith("_")
            and key != "training"
            and isinstance(value, int | float | str | bool | tuple | None)
        }
        digest.update(f"{name} {type(part).__name__} {sorted(plain.items())}\n".encode())
    for name, value in module.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def _bytes(value: Tensor) -> memoryview:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data

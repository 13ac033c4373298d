"""Folders of whole images, with or without one sub-folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from swath.datasets.image_files import Gsd, ImageFileDataset
from swath.errors import ImageryError, suggest
from swath.rasters.pillow_reader import IMAGE_SUFFIXES
from swath.sensors.sensor import Sensor


class ClassFolder(ImageFileDataset):
    """One sub-folder a class, images in it (also deeper); the layout of ImageNet, RSSCN7, EuroSAT, ...

    Args:
        root: Folder of the class folders.
        sensor: What the images were taken with.
        gsd: As in `ImageFileDataset`.
        classes: Class names in the order of their indices; default: the sub-folders, sorted.
        options: As in `ImageFileDataset`.
    """

    def __init__(
        self,
        root: str | Path,
        sensor: str | Path | Sensor,
        gsd: Gsd = None,
        *,
        classes: Sequence[str] | None = None,
        **options: Any,
    ) -> None:
        root = _folder(root)
        found = {path.name: sorted(find_images(path)) for path in sorted(root.iterdir()) if path.is_dir()}
        found = {name: files for name, files in found.items() if files and not name.startswith(".")}
        if not found:
            raise ImageryError(
                f"{root}: no images in sub-folders (one a class) with a suffix of "
                f"{', '.join(sorted(IMAGE_SUFFIXES))}"
            )
        names = list(classes) if classes is not None else sorted(found)
        unknown = sorted(set(found) - set(names))
        if unknown:
            raise ImageryError(
                f"{root / unknown[0]}: is not one of the classes given.{suggest(unknown[0], names)}"
            )
        paths = [path for name in names for path in found.get(name, [])]
        labels = [label for label, name in enumerate(names) for _ in found.get(name, [])]
        super().__init__(paths, sensor=sensor, gsd=gsd, labels=labels, classes=names, **options)


class UnlabeledFolderDataset(ImageFileDataset):
    """All images below a folder (or one image), without labels."""

    def __init__(
        self,
        root: str | Path,
        sensor: str | Path | Sensor,
        gsd: Gsd = None,
        **options: Any,
    ) -> None:
        root = Path(root)
        paths = [root] if root.is_file() else sorted(find_images(_folder(root)))
        if not paths:
            raise ImageryError(f"{root}: no images with a suffix of {', '.join(sorted(IMAGE_SUFFIXES))}")
        super().__init__(paths, sensor=sensor, gsd=gsd, **options)


def _folder(root: str | Path) -> Path:
    root = Path(root)
    if not root.is_dir():
        raise ImageryError(
            f"{root}: is not a folder" if root.exists() else f"{root}: there is no such folder"
        )
    return root


def find_images(root: Path) -> Iterator[Path]:
    """Files below `root` with an image suffix; hidden files and folders are passed over."""
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES:
                yield Path(folder, name)

"""Maps of classes: rasters with colors and names, the probabilities beside them, and polygons.

Legend: K classes, H x W pixels.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.files import atomic_path
from swath.prediction.scene_view import ModelView
from swath.prediction.vectors import VectorLayer, write_vector_layer
from swath.prediction.writers import (
    AppendableRaster,
    Array,
    OutputTarget,
    SceneOutput,
    State,
    WriterInputs,
    register_writer,
)
from swath.rasters.safe_open import rasterio_module
from swath.tasks.dense.colors import class_color
from swath.tiling.blending import TileBlender
from swath.tiling.grid import TileGrid, TileRun

NODATA = 255
STEPS = 250  # probabilities are stored as whole numbers of 1/250
_BLOCK = 512


@register_writer("map", is_map=True)
def _open_class_map(inputs: WriterInputs) -> ClassMapWriter:
    options = inputs.options
    return ClassMapWriter(
        inputs.view, inputs.grid, inputs.model.classes, inputs.model.device, inputs.folder, inputs.target,
        probabilities=options.probabilities, polygons=options.polygons, min_area=options.min_area,
    )  # fmt: skip


class ClassMapWriter:
    """A `OutputWriter`: classes of pixels.

    Args:
        look: How the scene is looked at.
        grid: Its tiles.
        classes: Names.
        device: Where probabilities are.
        folder: Where unfinished rasters grow.
        target: Where finished ones go.
        probabilities: Whether those are written.
        polygons: Names of the classes that become polygons.
        min_area: Pixels of the smallest polygon.
    """

    def __init__(
        self,
        look: ModelView,
        grid: TileGrid,
        classes: Sequence[str],
        device: torch.device,
        folder: Path,
        target: OutputTarget,
        *,
        probabilities: bool,
        polygons: Sequence[str],
        min_area: int,
    ) -> None:
        self.look, self.grid, self.classes, self.target = look, grid, list(classes), target
        self.polygons, self.min_area, self.folder = polygons, min_area, folder
        self.blend = TileBlender(grid, len(classes), device)
        self.with_probabilities = probabilities
        self.map: AppendableRaster | None = None
        self.shares: AppendableRaster | None = None

    def start(self, state: State) -> None:
        """See `OutputWriter`."""
        self.written = int(state["written"]) if state else 0
        width = self.look.width
        self.map = AppendableRaster(self.folder / "classes.raw", (width,), self.written)
        if self.with_probabilities:
            shape = (len(self.classes), width)
            self.shares = AppendableRaster(self.folder / "probabilities.raw", shape, self.written)
        if state:
            self.blend.carry = torch.from_numpy(state["carry"]).to(self.blend.device)

    def begin(self, row: int) -> None:
        """See `OutputWriter`."""
        down, width = self.grid.rows.finals[row], self.look.width
        self._row = np.full((down, width), NODATA, np.uint8)
        self._shares = np.full((down, len(self.classes), width), NODATA, np.uint8) if self.shares else None
        self.blend.begin(row)

    def add(self, window: TileRun, valid: Array, predictions: Tensor, which: Array) -> None:
        """See `OutputWriter`."""
        final = self.blend.add(window, predictions, torch.from_numpy(which))
        columns = self.grid.columns
        left = columns.starts[window.first]
        right = left + final.shape[2]
        known = torch.from_numpy(self._known(window, valid)).to(final.device)
        answer = _best(final).masked_fill_(~known, NODATA)
        self._row[:, left:right] = answer.cpu().numpy()
        if self._shares is not None:
            steps = (final * STEPS).round().to(torch.uint8).masked_fill(~known, NODATA)
            self._shares[:, :, left:right] = steps.transpose(0, 1).cpu().numpy()

    def _known(self, window: TileRun, valid: Array) -> NDArray[np.bool_]:
        """Which final pixels are valid: each is in the tile whose final pixels it is among."""
        down, across = self.grid.rows.finals[window.row], self.grid.columns.finals
        parts = [ok[:down, : across[window.first + i]] for i, ok in enumerate(valid)]
        return np.concatenate(parts, axis=1)

    def end(self) -> None:
        """See `OutputWriter`."""
        assert self.map is not None
        self.blend.end()
        self.map.append(self._row)
        if self.shares is not None and self._shares is not None:
            self.shares.append(self._shares)
        self.written += len(self._row)

    def state(self) -> dict[str, Array]:
        """See `OutputWriter`."""
        for file in (self.map, self.shares):
            if file is not None:
                file.flush()
        return {"carry": self.blend.carry.cpu().numpy(), "written": np.array(self.written)}

    def finish(self) -> SceneOutput:
        """See `OutputWriter`."""
        assert self.map is not None
        result = SceneOutput(summary={"pixels": self._counts(self.map)})
        path = self.target.path("classes.tif")
        tags = {**self.target.tags, "CLASSES": json.dumps(self.classes, ensure_ascii=False)}
        profile = self._profile(1)
        strips = (strip[None] for strip in self.map.strips(_BLOCK))
        _write_cog(path, strips, profile, tags, self.classes, "nearest", map_of_classes=True)
        result.files["classes"] = path.name
        if self.shares is not None:
            shares = self.target.path("probabilities.tif")
            strips = (np.moveaxis(strip, 1, 0) for strip in self.shares.strips(_BLOCK))
            profile = self._profile(len(self.classes))
            _write_cog(shares, strips, profile, self.target.tags, self.classes, "average")
            result.files["probabilities"] = shares.name
        if self.polygons:
            features = VectorLayer.of(self.look, self._polygons(path))
            written = write_vector_layer(self.target.path("polygons"), features, "classes")
            result.files |= {f"polygons {path.suffix[1:]}": path.name for path in written}
            result.summary["polygons"] = len(features)
        return result

    def close(self) -> None:
        """See `OutputWriter`."""
        for file in (self.map, self.shares):
            if file is not None:
                file.close()

    # ---- pieces

    def _counts(self, raster: AppendableRaster) -> dict[str, int]:
        """Pixels of each class, and of none."""
        counts = np.zeros(256, np.int64)
        for strip in raster.strips(_BLOCK):
            counts += np.bincount(np.ravel(strip), minlength=256)
        named = {name: int(counts[i]) for i, name in enumerate(self.classes)}
        return {**named, "nodata": int(counts[NODATA])}

    def _profile(self, bands: int) -> dict[str, Any]:
        profile: dict[str, Any] = {
            "width": self.look.width, "height": self.look.height, "count": bands, "dtype": "uint8",
            "nodata": NODATA, "crs": self.look.header.crs,
        }  # fmt: skip
        if self.look.transform is not None:
            profile["transform"] = rasterio_module().Affine(*self.look.transform)
        return profile

    def _polygons(self, path: Path) -> Iterator[tuple[list[Array], dict[str, Any]]]:
        """Rings in pixels of what was looked at, and the columns of each polygon."""
        import rasterio.features

        wanted = self.classes if "all" in self.polygons else self.polygons
        chosen = [self.classes.index(name) for name in wanted]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(path) as dataset:
                # Of the file, not of an array: GDAL then reads it line by line, and speaks of places.
                a, b, c, d, e, f = (~dataset.transform)[:6]
                found = rasterio.features.shapes(rasterio.band(dataset, 1), connectivity=4)
                for geometry, value in found:
                    index = int(value)
                    if index not in chosen:
                        continue
                    placed = (np.array(ring, np.float64).T for ring in geometry["coordinates"])
                    rings = [np.rint([a * x + b * y + c, d * x + e * y + f]).T for x, y in placed]
                    area = abs(_area(rings[0])) - sum(abs(_area(hole)) for hole in rings[1:])
                    if area >= self.min_area:
                        yield rings, {"class": self.classes[index], "class_id": index, "pixels": round(area)}


def _best(shares: Tensor) -> Tensor:
    """[K, h, w] -> uint8 [h, w], the class with the most; of equal ones the first.

    Class by class: on a CPU several times as fast as `argmax` over the slowest axis.
    """
    most, best = shares[0].clone(), torch.zeros_like(shares[0], dtype=torch.uint8)
    for index in range(1, len(shares)):
        best.masked_fill_(shares[index] > most, index)
        torch.maximum(most, shares[index], out=most)
    return best


def _area(ring: Array) -> float:
    x, y = ring.T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2


def _write_cog(
    path: Path,
    strips: Iterable[NDArray[np.uint8]],
    profile: dict[str, Any],
    tags: dict[str, str],
    names: Sequence[str],
    resampling: str,
    *,
    map_of_classes: bool = False,
) -> None:
    """Strips [bands, n, W], from the top, as a Cloud-Optimized GeoTIFF: first a plain one, then its copy."""
    rasterio = rasterio_module()
    from rasterio.shutil import copy

    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {
        "driver": "GTiff",
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "BIGTIFF": "IF_SAFER",
    }
    with atomic_path(path) as target, warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        rough = target.with_suffix(".rough")
        try:
            with rasterio.open(rough, "w", **{**profile, **plain}) as dataset:
                top = 0
                for strip in strips:
                    dataset.write(strip, window=((top, top + strip.shape[1]), (0, strip.shape[2])))
                    top += strip.shape[1]
                dataset.update_tags(**tags)
                if map_of_classes:
                    dataset.write_colormap(1, {i: (*class_color(i), 255) for i in range(len(names))} | _EMPTY)
                    dataset.set_band_description(1, "class")
                else:
                    dataset.scales = (1 / STEPS,) * len(names)
                    dataset.descriptions = tuple(names)
            copy(
                rough, target, driver="COG", COMPRESS="DEFLATE", BLOCKSIZE=_BLOCK, BIGTIFF="IF_SAFER",
                RESAMPLING=resampling, NUM_THREADS="ALL_CPUS",
            )  # fmt: skip
        finally:
            rough.unlink(missing_ok=True)


_EMPTY = {NODATA: (0, 0, 0, 0)}

"""The result of a prediction does not depend on how the work is cut up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.toy_scenes import by_color, pixels, read, task_model, write_scene
from swath.models.contract import Contract
from swath.prediction import PredictionOptions, predict_scenes
from swath.prediction import tile_loop as scene_module
from swath.prediction.maps import STEPS
from swath.prediction.run import PredictionProgress
from swath.prediction.scene_view import TileBounds, open_model_view
from swath.prediction.tile_loop import RuntimeOptions
from swath.rasters.read import read_header
from swath.tasks.model import TaskModel
from swath.tiling.grid import TileAxis, TileGrid

sizes = st.integers(1, 90)
tiles = st.integers(4, 40)
overlaps = st.sampled_from([0.0, 0.1, 0.25, 0.4, 0.5])


@given(sizes, tiles, overlaps)
@example(70, 35, 0.5)  # half of an odd tile is no whole number of pixels
def test_tiles_cover_an_axis_and_their_weights_add_up(length: int, tile: int, overlap: float) -> None:
    axis = TileAxis(length, tile, overlap)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.size == length
    assert sum(axis.finals) == length
    assert (axis.total > 0).all()
    steps = np.diff(axis.starts)
    assert (steps > 0).all()
    assert (steps <= axis.size).all()
    if len(axis.starts) > 2:  # a partition of unity wherever tiles lie at even steps
        inner = axis.total[axis.size - round(tile * overlap) : axis.starts[-2]]
        np.testing.assert_allclose(inner, 1, atol=1e-6)
    assert axis.cores[0][0] == -np.inf
    assert axis.cores[-1][1] == np.inf
    assert all(a < b for a, b in axis.cores)


@given(sizes, sizes, tiles, overlaps, st.integers(1, 9), st.integers(0, 2))
def test_windows_hold_every_tile_once_in_reading_order(
    height: int, width: int, tile: int, overlap: float, most: int, row: int
) -> None:
    grid = TileGrid.of(height, width, tile, overlap)
    found = [(w.row, j) for w in grid.windows(most, row) for j in range(w.first, w.last)]
    rows, columns = len(grid.rows.starts), len(grid.columns.starts)
    assert found == [(i, j) for i in range(row, rows) for j in range(columns)]
    assert all(1 <= w.last - w.first <= most for w in grid.windows(most))


def blended(
    model: TaskModel, image: np.ndarray[Any, Any], valid: np.ndarray[Any, Any], grid: TileGrid
) -> Any:
    """[K, H, W] by the definition, in float64 and with the whole scene in memory."""
    total = np.zeros((len(model.classes), *valid.shape))
    weights = np.zeros(valid.shape)
    for top in grid.rows.starts:
        for left in grid.columns.starts:
            at = (slice(top, top + grid.rows.size), slice(left, left + grid.columns.size))
            batch: Any = {
                "image": torch.from_numpy(image[:, *at].copy())[None], "gsd": torch.tensor([0.5]),
                "valid": torch.from_numpy(valid[at].copy())[None], "sensor": "rgb_aerial",
            }  # fmt: skip
            weight = np.outer(grid.rows.weight, grid.columns.weight)
            with torch.inference_mode():
                total[:, *at] += model.predict_batch(batch)[0].double().numpy() * weight
            weights[at] += weight
    return total / weights


@settings(max_examples=12, deadline=None)
@given(
    height=sizes, width=sizes, tile=tiles, overlap=overlaps, holes=st.booleans(),
    paces=st.lists(
        st.builds(RuntimeOptions, batch_size=st.integers(1, 7), read_window=st.integers(1, 120),
        workers=st.integers(0, 3)), min_size=2, max_size=2,
    ),
)  # fmt: skip
def test_whatever_is_read_and_computed_together_the_pixels_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, tile: int, overlap: float, holes: bool,
    paces: list[RuntimeOptions],
) -> None:  # fmt: skip
    folder = tmp_path_factory.mktemp("seams")
    image = pixels(height, width)
    if holes:
        image[:, height // 3 : height // 2, width // 4 :] = 0
    scene = write_scene(folder / "scene.tif", image, nodata=0)
    options = PredictionOptions(tile=tile, overlap=overlap, probabilities=True)
    model = by_color()
    found = []
    for i, pace in enumerate(paces):
        report = predict_scenes(model, scene, folder / str(i), options, runtime=pace)
        assert not report.failures
        out = folder / str(i)
        found.append((read(out / "scene_classes.tif")[0], read(out / "scene_probabilities.tif")))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    valid = (image != 0).any(axis=0)
    truth = blended(model, image, valid, TileGrid.of(height, width, tile, overlap))
    classes, shares = found[0]
    assert (classes[~valid] == 255).all()
    assert (shares[:, ~valid] == 255).all()
    assert np.abs(shares[:, valid] / STEPS - truth[:, valid]).max(initial=0) <= 0.5 / STEPS + 1e-5
    ordered = np.sort(truth, axis=0)
    sure = valid & (ordered[-1] - ordered[-2] > 1e-5)
    np.testing.assert_array_equal(classes[sure], truth.argmax(0)[sure])


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 5), st.integers(1, 150), st.integers(0, 2))
def test_a_transformer_says_the_same_in_any_window(
    tmp_path_factory: pytest.TempPathFactory, batch_size: int, window: int, workers: int
) -> None:
    folder = tmp_path_factory.mktemp("transformer")
    scene = write_scene(folder / "scene.tif", pixels(70, 85))
    options = PredictionOptions(tile=24, overlap=0.25, probabilities=True)
    model = task_model("segment")
    predict_scenes(model, scene, folder / "a", options, runtime=RuntimeOptions(batch_size=8, workers=0))
    predict_scenes(model, scene, folder / "b", options, runtime=RuntimeOptions(batch_size, window, workers))
    shares = [read(folder / run / "scene_probabilities.tif").astype(int) for run in "ab"]
    assert np.abs(shares[0] - shares[1]).max() <= 1  # a rounding of 1/250
    classes = [read(folder / run / "scene_classes.tif") for run in "ab"]
    assert (classes[0] != classes[1]).mean() < 1e-3
    assert len(np.unique(classes[0])) > 1


def test_a_scene_like_a_tile_is_looked_at_in_one_piece(tmp_path: Path) -> None:
    image = pixels(30, 40)
    scene = write_scene(tmp_path / "scene.tif", image)
    model = task_model("segment")
    predict_scenes(model, scene, tmp_path / "out", PredictionOptions(tile=64))
    truth = model.predict(image, gsd=0.5)[0].argmax(0).numpy()
    np.testing.assert_array_equal(read(tmp_path / "out" / "scene_classes.tif")[0], truth)


class Killed(BaseException):
    """As a signal would, it stops everything."""


@pytest.mark.parametrize("at", [1, 9, 20])
def test_a_killed_run_goes_on_within_the_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(scene_module, "CHECKPOINT_SECONDS", 0.0)
    scene = write_scene(tmp_path / "scene.tif", pixels(80, 70))
    options = PredictionOptions(tile=20, overlap=0.25, probabilities=True)
    model = by_color()
    predict_scenes(model, scene, tmp_path / "whole", options)

    def kill(progress: PredictionProgress) -> None:
        if progress.done >= at:
            raise Killed

    with pytest.raises(Killed):
        predict_scenes(
            model, scene, tmp_path / "out", options, runtime=RuntimeOptions(batch_size=2), progress=kill
        )
    assert not (tmp_path / "out" / "scene_classes.tif").exists()
    seen: list[int] = []
    predict_scenes(model, scene, tmp_path / "out", options, progress=lambda p: seen.append(p.done))
    across = len(TileGrid.of(80, 70, 20, 0.25).columns.starts)
    assert seen[0] == (at - 1) // across * across  # rows of tiles that were complete are not done again
    for name in ("scene_classes.tif", "scene_probabilities.tif"):
        np.testing.assert_array_equal(read(tmp_path / "out" / name), read(tmp_path / "whole" / name))
    assert not list((tmp_path / "out" / ".predict").glob("*.partial"))


def test_a_begun_scene_is_begun_anew_with_other_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_module, "CHECKPOINT_SECONDS", 0.0)
    scene = write_scene(tmp_path / "scene.tif", pixels(60, 40))
    model = by_color()

    def kill(progress: PredictionProgress) -> None:
        if progress.done >= 6:
            raise Killed

    with pytest.raises(Killed):
        predict_scenes(model, scene, tmp_path / "out", PredictionOptions(tile=20), progress=kill)
    predict_scenes(model, scene, tmp_path / "out", PredictionOptions(tile=16))
    predict_scenes(model, scene, tmp_path / "whole", PredictionOptions(tile=16))
    one, other = (read(tmp_path / folder / "scene_classes.tif") for folder in ("out", "whole"))
    np.testing.assert_array_equal(one, other)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([0.2, 0.35, 0.8, 1.3]), st.integers(0, 30), st.integers(0, 30))
def test_a_resampled_tile_does_not_depend_on_what_is_read_with_it(
    tmp_path_factory: pytest.TempPathFactory, gsd: float, top: int, left: int
) -> None:
    folder = tmp_path_factory.mktemp("resampled")
    image = pixels(100, 90)
    image[:, 20:35, 30:60] = 0
    path = write_scene(folder / "scene.tif", image, nodata=0)
    contract = Contract.of("rgb_aerial")
    look = open_model_view(
        [read_header(path)], contract.sensor(), contract, PredictionOptions(target_gsd=gsd, gsd=0.5)
    )
    side = min(8, look.height, look.width)
    top, left = min(top, look.height - side), min(left, look.width - side)
    box = TileBounds(top, left, side, side)
    whole, known = look.views[0].read([TileBounds(0, 0, look.height, look.width)])[0]
    alone = look.views[0].read([box])[0]
    together = look.views[0].read([TileBounds(0, 0, side, side), box])[1]
    np.testing.assert_array_equal(alone[0], together[0])
    np.testing.assert_array_equal(alone[1], together[1])
    np.testing.assert_array_equal(alone[1], known[top : top + side, left : left + side])
    piece = whole[:, top : top + side, left : left + side].astype(int)
    assert np.abs(alone[0].astype(int) - piece).max() <= 1  # a half may be rounded to either side

"""How detectors look at images larger than a window, at the scale of their training, and at scenes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import torch
from shapely.geometry import Polygon

from helpers import labeled_images as labeled
from helpers.toy_scenes import task_model, write_scene
from swath.encoders import create_model
from swath.models.contract import Contract
from swath.prediction import PredictionOptions, predict_scenes
from swath.sensors.registry import get_sensor
from swath.tasks.detection import windows as windows_module
from swath.tasks.detection.data.splits import DetectionDataConfig, open_detection
from swath.tasks.detection.scoring import score_boxes
from swath.tasks.detection.task import DetectionConfig, DetectionTask
from swath.tasks.detection.windows import detect_image


def detector(**options: Any) -> DetectionTask:
    """An FCOS that nobody has trained, which is sure of nothing and says so."""
    torch.manual_seed(0)
    config = DetectionConfig(
        head="fcos", head_width=64, classes=("car", "pond"), score_threshold=0.0, max_detections=6, **options
    )
    return DetectionTask(create_model("vit", **labeled.ENCODER), config, Contract.of("rgb_aerial")).eval()


def test_windows_are_looked_at_together_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    task = detector(tile=32, tile_overlap=12)
    image = torch.randn(1, 3, 70, 50, generator=torch.Generator().manual_seed(1))
    batch: Any = {"image": image, "gsd": torch.ones(1), "sensor": "rgb_aerial"}
    sizes, predict = [], task.predict

    def counted(batch: Any) -> Any:
        sizes.append(len(batch["image"]))
        return predict(batch)

    monkeypatch.setattr(task, "predict", counted)
    found = {}
    for pixels in (1, 3 * 32 * 32, 2**18):
        monkeypatch.setattr(windows_module, "_PIXELS", pixels)
        found[pixels] = detect_image(task, batch)
    assert sizes == [1] * 6 + [3, 3] + [6]
    one = found.pop(1)
    assert len(one["scores"]) > 10
    for other in found.values():
        for key in ("boxes", "scores", "labels"):
            assert torch.allclose(one[key].float(), other[key].float(), atol=1e-4)
    with pytest.raises(ValueError, match="one image at a time"):
        detect_image(task, {**batch, "image": image.expand(2, -1, -1, -1)})


@pytest.mark.parametrize(
    ("scale", "zoom"), [((0.4, 0.5), 0.5), ((0.5, 2.0), 1.0), ((2.0, 3.0), 2.0), ((1.0, 1.0), 1.0)]
)
def test_images_are_scored_at_the_scale_that_was_trained(
    scale: tuple[float, float], zoom: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = labeled.write_boxes(tmp_path)
    options = DetectionDataConfig(
        gsd=0.5, crop_size=32, scale_range=scale, split_field="site", train="a", val="b", test="c"
    )
    splits = open_detection(options, data, get_sensor("rgb_aerial"), 0)
    task, seen = detector(tile=256, tile_overlap=0), []

    def perfect(batch: Any) -> Any:
        height, width = batch["image"].shape[2:]
        seen.append((height, width, round(float(batch["gsd"][0]), 4)))
        true = splits.test.truth(0)
        grown = true["bbox_xyxy"] * torch.tensor([width / 64, height / 64] * 2)
        return [{"boxes": grown, "scores": torch.ones(len(grown)), "labels": true["label"]}]

    monkeypatch.setattr(task, "predict", perfect)
    contract = Contract.of("rgb_aerial")
    for share in (1.0, 0.5):
        scores = score_boxes(task, contract, splits.test, torch.device("cpu"), scale=share, resamples=0)
        assert scores.figures["ap"].value == pytest.approx(1)  # boxes are in the file's pixels again
    side = round(64 * zoom)
    assert [one[:2] for one in seen] == [(side, side), (side // 2, side // 2)]
    assert seen[0][2] == pytest.approx(0.5 / zoom)
    assert splits.val.zoom == zoom


def test_oriented_objects_of_a_scene_are_turned_polygons_in_its_crs(tmp_path: Path) -> None:
    box = torch.tensor([[30.0, 20.0, 16.0, 6.0, 0.5]])
    model = task_model("segment")
    model.dense, model.boxes, model.kind = False, True, "detect"
    model.task.output = "boxes"  # type: ignore[misc]
    model.task.preferred_tiles = lambda size: (64, 0.25)  # type: ignore[method-assign]
    model.task.empty_output = lambda shape, device: []  # type: ignore[method-assign,assignment]
    model.task.nms_iou = 0.1  # type: ignore[assignment]

    def predict(batch: Any) -> Any:
        found = {"obb": box, "scores": torch.tensor([0.75]), "labels": torch.tensor([1])}
        nothing = {key: value[:0] for key, value in found.items()}
        return [found if image[0].max() > image[0].min() else nothing for image in batch["image"]]

    model.task.predict = predict  # type: ignore[method-assign]
    image = np.full((3, 64, 112), 90, np.uint8)
    image[:, 0, 111] = 200  # seen by the second tile only, which begins at column 48
    scene = write_scene(tmp_path / "scene.tif", image, gsd=2.0)
    report = predict_scenes(model, scene, tmp_path, PredictionOptions())
    assert not report.failures
    for table in (
        geopandas.read_parquet(tmp_path / "scene_objects.parquet"),
        geopandas.read_file(tmp_path / "scene_objects.gpkg"),
    ):
        assert table.crs.to_epsg() == 32633
        (row,) = table.itertuples()
        assert (row.column, row.row, row.width, row.height) == pytest.approx((78, 20, 16, 6))
        assert row.angle == pytest.approx(0.5)
        assert row.score == pytest.approx(0.75)
        cos, sin = math.cos(0.5), math.sin(0.5)
        expected = Polygon(
            [
                (500000 + 2 * (78 + u * cos - v * sin), 5200000 - 2 * (20 + u * sin + v * cos))
                for u, v in ((-8, -3), (8, -3), (8, 3), (-8, 3))
            ]
        )
        assert row.geometry.symmetric_difference(expected).area < 1e-3

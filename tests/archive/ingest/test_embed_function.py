"""`swath.embed` from a model and a folder to an archive, and what an `Archive` writes by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import swath
from swath.errors import ArchiveError
from swath.models import Model


def test_a_folder_is_embedded_once_and_written_in_every_format(
    scenes: Path, model: Model, tmp_path: Path
) -> None:
    report = swath.embed(model, scenes, tmp_path / "a", chip_size=[32, 48], workers=0)
    assert report.embedded > 0
    assert not report.failures
    again = swath.embed(model, scenes, tmp_path / "a", chip_size=[32, 48], workers=0)
    assert (again.embedded, again.present) == (0, report.embedded)
    archive = swath.Archive.open(tmp_path / "a", model_id=model.id)
    assert archive.to_geoparquet(tmp_path / "a.parquet") == report.embedded
    assert archive.to_geojson(tmp_path / "a.geojson") == report.embedded
    assert len(json.loads((tmp_path / "a.geojson").read_text())["features"]) == report.embedded
    assert archive.to_stac(tmp_path / "stac") == report.embedded
    assert (tmp_path / "stac" / "collection.json").is_file()


def test_pruning_needs_a_folder(scenes: Path, model: Model, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="is no folder"):
        swath.embed(model, scenes / "scene_0.tif", tmp_path / "a", prune=True)


def test_a_file_is_embedded_as_its_pixels_are(scenes: Path, pictures: Path, model: Model) -> None:
    photograph = sorted(pictures.iterdir())[0]
    dataset = swath.open_dataset(photograph, sensor="rgb_aerial", gsd=0.5)
    image = dataset.get_batch([0])["image"]
    torch.testing.assert_close(model.embed_file(photograph, gsd=0.5), model.embed(image, gsd=0.5)[0])
    scene = model.embed_file(scenes / "scene_0.tif")
    assert scene.shape == (model.embed_dim,)
    assert torch.isfinite(scene).all()


def test_a_model_says_what_it_takes(model: Model) -> None:
    assert repr(model) == "Model('vit_micro_patch16', sensors=['rgb_aerial'], gsd='any', embed_dim=192)"

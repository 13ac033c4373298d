"""The sample imagery is whole, readable, at its stated GSD, and every file of it is accounted for."""

from __future__ import annotations

import csv
import re

import pytest

from swath.catalog.catalog import build_catalog
from swath.rasters.read import read_header, read_window
from swath.samples import samples_dir, tree_boxes


def test_every_file_has_its_line_of_provenance() -> None:
    text = (samples_dir() / "PROVENANCE.md").read_text(encoding="utf-8")
    for path in samples_dir().rglob("*.*"):
        if path.suffix in {".tif", ".webp", ".csv"}:
            number = re.sub(r"soaproot_saddle_(\d+)\.webp", r"_\1.webp", path.name)
            assert path.name in text or number in text, path.name


def test_package_stays_small() -> None:
    assert sum(path.stat().st_size for path in samples_dir().rglob("*.*")) < 6_000_000


def test_aerial_scenes_are_at_a_tenth_of_a_metre() -> None:
    catalog = build_catalog(samples_dir("aerial"), sensor="rgb_aerial")
    assert not catalog.problems
    assert len(catalog.scenes) == 3
    for header in catalog.scenes:
        assert header.gsd == pytest.approx(0.1, rel=1e-3)
        _, valid = read_window(header, out_shape=(64, 64))
        assert valid.mean() > 0.99


def test_sentinel2_scene_reads_as_reflectance_counts() -> None:
    header = read_header(samples_dir("sentinel2") / "sentinel2_10m.tif")
    assert header.descriptions == ("B02", "B03", "B04", "B08")
    assert header.gsd == pytest.approx(10.0)
    stored, _ = read_window(header)
    assert stored.shape == (4, 300, 300)
    assert stored.min() > 100
    assert stored.max() < 6000


def test_pictures_without_gsd_have_none() -> None:
    for path in samples_dir("aerial_without_gsd").glob("*.webp"):
        assert read_header(path).gsd is None


def test_tree_boxes_lie_in_their_scenes() -> None:
    with tree_boxes().open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == 914
    for name in {row["file"] for row in rows}:
        header = read_header(samples_dir("aerial") / name)
        own = [row for row in rows if row["file"] == name]
        assert all(0 <= int(row["xmin"]) < int(row["xmax"]) <= header.width for row in own)
        assert all(0 <= int(row["ymin"]) < int(row["ymax"]) <= header.height for row in own)


def test_unknown_part_is_named() -> None:
    with pytest.raises(ValueError, match="aerial_without_gsd"):
        samples_dir("areal")

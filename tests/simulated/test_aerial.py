"""Simulated scenes are reproducible, balanced, true in scale, and color does not give the class away."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import rasterio

from swath.rasters.read import read_header
from swath.simulated import KINDS, simulate_scene, write_simulated


def test_a_scene_depends_on_seed_and_index_only() -> None:
    first, again = simulate_scene(1, 5, size=48), simulate_scene(1, 5, size=48)
    assert np.array_equal(first.image, again.image)
    assert first.gsd == again.gsd
    assert not np.array_equal(first.image, simulate_scene(2, 5, size=48).image)


def test_classes_take_turns_and_gsd_stays_in_range() -> None:
    scenes = [simulate_scene(3, index, size=32, gsd=(0.5, 2.0)) for index in range(2 * len(KINDS))]
    assert [scene.kind for scene in scenes] == [*KINDS, *KINDS]
    assert all(0.5 <= scene.gsd <= 2.0 for scene in scenes)
    assert all(scene.image.shape == (32, 32, 3) and scene.image.dtype == np.uint8 for scene in scenes)


def test_no_scene_is_blank() -> None:
    for index in range(4 * len(KINDS)):
        scene = simulate_scene(4, index, size=64)
        assert scene.image.std() > 3, scene.kind


def test_mean_color_says_little_about_the_class() -> None:
    """A nearest-centroid rule on the mean color stays far below what the layout would allow."""
    scenes = [simulate_scene(5, index, size=32) for index in range(30 * len(KINDS))]
    color = np.array([scene.image.mean(axis=(0, 1)) for scene in scenes])
    labels = np.array([list(KINDS).index(scene.kind) for scene in scenes])
    half = len(scenes) // 2
    centroids = np.array([color[:half][labels[:half] == k].mean(axis=0) for k in range(len(KINDS))])
    nearest = np.linalg.norm(color[half:, None] - centroids, axis=2).argmin(axis=1)
    assert (nearest == labels[half:]).mean() < 0.35


def test_written_set_is_labeled_georeferenced_and_says_what_it_is(tmp_path: Path) -> None:
    folder = write_simulated(tmp_path / "set", seed=6, splits={"train": 9, "val": 8}, size=32)
    with (folder / "index.csv").open(encoding="utf-8") as table:
        rows = list(csv.DictReader(table))
    assert [row["split"] for row in rows] == ["train"] * 9 + ["val"] * 8
    assert {row["class"] for row in rows} == set(KINDS)
    for row in rows[::5]:
        header = read_header(folder / row["file"])
        assert header.gsd is not None
        # UTM stretches by up to 0.1 % so far from its central meridian.
        assert abs(header.gsd / float(row["gsd_m"]) - 1) < 2e-3
        with rasterio.open(folder / row["file"]) as scene:
            assert scene.tags()["SIMULATED"] == "yes"

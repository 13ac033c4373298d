"""Leaks: copies in every disguise are found with their partner, look-alikes are not, and scores lose them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from helpers.eval_scenes import Fake, color
from swath.datasets.csv_table import CsvManifest
from swath.evaluation.audit.footprint_overlap import footprint_overlaps
from swath.evaluation.audit.keypoint_overlap import gsd_levels
from swath.evaluation.audit.leakage import LeakageReport, add_leakage_note, exclude_leaks, find_leaks
from swath.evaluation.audit.near_duplicates import (
    close_hashes,
    correlation,
    detail,
    orient,
    perceptual_hashes,
    standardized_gray,
    thumbnails,
    weighted_shifts,
)
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.protocols.frozen import evaluate_knn

SIDE = 128
Picture = NDArray[np.uint8]


def ground(seed: int, size: int = 384) -> Picture:
    """Rectangles of all sizes and colors, like fields and roofs, with a little texture."""
    random = np.random.default_rng(seed)
    image = np.full((size, size, 3), random.integers(60, 160, 3), dtype=np.float64)
    for _ in range(260):
        y, x = random.integers(0, size, 2)
        h, w = random.integers(6, 70, 2)
        image[y : y + h, x : x + w] = random.integers(20, 230, 3)
    return np.clip(image + random.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def cut(image: Picture, row: int, column: int, image_size: int = SIDE) -> Picture:
    return image[row : row + image_size, column : column + image_size]


@pytest.fixture(scope="module")
def leaking(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainTestSplit, dict[str, tuple[str, str]]]:
    """A split with one query of each kind of leak, and the leaks that it has: query -> (partner, reason)."""
    folder = tmp_path_factory.mktemp("leaking")
    scenes = [ground(seed) for seed in range(14)]
    rows: list[list[str]] = []

    def save(name: str, image: Picture, split: str, gsd: float = 0.5, **options: object) -> None:
        Image.fromarray(image).save(folder / name, **options)
        rows.append([name, "ab"[len(rows) % 2], str(gsd), split])

    for i, scene in enumerate(scenes[:8]):
        save(f"bank{i}.png", cut(scene, 100, 100), "train")
    save("bank8.png", cut(ground(20), 0, 0), "train", 1.0)
    first = cut(scenes[0], 100, 100)
    save("same.png", first, "val")
    save("jpeg.jpg", cut(scenes[1], 100, 100), "val", quality=60)
    brighter = np.clip(cut(scenes[2], 100, 100) * 0.7 + 60, 0, 255).astype(np.uint8)
    save("brighter.png", brighter, "val")
    save("turned.png", np.rot90(cut(scenes[3], 100, 100)).copy(), "val")
    save("mirrored.png", cut(scenes[4], 100, 100)[:, ::-1].copy(), "val")
    save("shifted.png", cut(scenes[5], 160, 40), "val")
    coarse = Image.fromarray(scenes[6]).crop((30, 30, 286, 286)).resize((SIDE, SIDE), Image.Resampling.BOX)
    save("coarser.png", np.asarray(coarse), "val", 1.0)
    for i, scene in enumerate(scenes[8:12]):
        save(f"clean{i}.png", cut(scene, 0, 0), "val")
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "class", "gsd_m", "split"], *rows])
    dataset = CsvManifest(folder / "index.csv", "rgb_aerial")
    split_names = np.array(dataset.columns["split"])
    split = TrainTestSplit(
        EvalSubset(dataset, np.flatnonzero(split_names == "train"), "train"),
        EvalSubset(dataset, np.flatnonzero(split_names == "val"), "val"),
        "column split",
    )
    truth = {
        "same.png": ("bank0.png", "same file"),
        "jpeg.jpg": ("bank1.png", "near copy"),
        "brighter.png": ("bank2.png", "near copy"),
        "turned.png": ("bank3.png", "near copy"),
        "mirrored.png": ("bank4.png", "near copy"),
        "shifted.png": ("bank5.png", "shared ground"),
        "coarser.png": ("bank6.png", "shared ground"),
    }
    return split, truth


@pytest.fixture(scope="module")
def leakage(leaking: tuple[TrainTestSplit, dict[str, tuple[str, str]]]) -> LeakageReport:
    return find_leaks(leaking[0])


def test_every_disguise_is_found_and_nothing_else(
    leaking: tuple[TrainTestSplit, dict[str, tuple[str, str]]], leakage: LeakageReport
) -> None:
    found = {Path(leak.query).name: (Path(leak.partner).name, leak.reason) for leak in leakage.leaks}
    assert found == leaking[1]
    summary = {Path(leak.query).name: leak.detail for leak in leakage.leaks}
    assert "turned 270" in summary["turned.png"] or "turned 90" in summary["turned.png"]
    assert "mirrored" in summary["mirrored.png"]
    assert "2 times the GSD" in summary["coarser.png"]
    fraction = int(summary["shifted.png"].split("%")[0])
    assert fraction == pytest.approx(100 * (128 - 60) ** 2 / 128**2, abs=3)


def test_finding_is_one_sentence_and_json(leakage: LeakageReport) -> None:
    assert "7 of 11 queries (63.6%) are known to the bank" in leakage.sentence
    assert "4 by near copy" in leakage.sentence
    assert "Not searched: close features (no features were given)" in leakage.sentence
    data = json.loads(json.dumps(leakage.to_dict()))
    assert data["leaked"] == 7
    assert len(data["leaks"]) == 7


def test_scores_are_had_without_the_leaks(
    leaking: tuple[TrainTestSplit, dict[str, tuple[str, str]]], leakage: LeakageReport
) -> None:
    evaluation = evaluate_knn([Fake("color", color)], leaking[0], image_sizes=[32], k=1)
    clean = exclude_leaks(evaluation, leakage)
    assert clean is not None
    kept = [Path(path).name for path in clean.paths]
    assert kept == ["clean0.png", "clean1.png", "clean2.png", "clean3.png"]
    hits = dict(zip(evaluation.paths, evaluation.scores[0].hits, strict=True))
    assert clean.scores[0].accuracy == np.mean([hits[path] for path in clean.paths])
    assert clean.config_hash != evaluation.config_hash
    add_leakage_note(evaluation, leakage)
    assert evaluation.notes[-1].startswith("leak: 7 of 11")


def test_close_features_count_only_when_pixels_agree(
    leaking: tuple[TrainTestSplit, dict[str, tuple[str, str]]],
) -> None:
    split, truth = leaking
    train, test = len(split.train.indices), len(split.test.indices)
    features = torch.eye(train + test)
    known, asked = features[:train].clone(), features[train:].clone()
    asked[3] = known[3]  # turned.png and its partner
    asked[9] = known[7]  # a clean one, by mistake
    found = find_leaks(split, features=(known, asked))
    assert {Path(leak.query).name for leak in found.leaks} == set(truth)
    assert found.unverified == 1


def test_distinct_images_of_one_kind_are_no_leak(split: TrainTestSplit) -> None:
    found = find_leaks(split)
    assert found.leaks == []
    assert "No leak was found" in found.sentence
    assert "no proof of none" in found.sentence


def test_hash_bears_brightness_and_turns() -> None:
    images = torch.from_numpy(np.stack([cut(ground(i), 0, 0) for i in range(6)])).permute(0, 3, 1, 2)
    thumbs = thumbnails(standardized_gray({"image": images}))
    darker = thumbnails(standardized_gray({"image": images.float() * 0.5 + 10}))
    assert torch.equal(perceptual_hashes(thumbs), perceptual_hashes(darker))
    for orientation in range(8):
        pairs = close_hashes(orient(thumbs, orientation), thumbs)
        assert {(q, b) for q, b, _ in pairs} >= {(i, i) for i in range(6)}
        restored = orient(orient(thumbs, orientation), next(o for q, b, o in pairs if q == b == 0))
        assert torch.equal(restored[0], thumbs[0])


def test_gray_takes_any_bands_and_leaves_nodata_out() -> None:
    image = torch.rand(2, 5, 16, 16, generator=torch.Generator().manual_seed(0)) * 3000
    valid = torch.ones(2, 16, 16, dtype=torch.bool)
    valid[0, :8] = False
    spoiled = image.clone()
    spoiled[0, :, :8] = -9999
    first = standardized_gray({"image": spoiled, "valid": valid})
    assert torch.equal(first, standardized_gray({"image": image, "valid": valid}))
    assert bool((first[0, :8] == 0).all())
    assert bool(torch.isfinite(standardized_gray({"image": torch.full((1, 3, 8, 8), 7.0)})).all())


def test_shifted_sums_are_a_convolution() -> None:
    image = torch.rand(2, 9, 11, generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor([0.2, 0.5, 0.3])
    padded = torch.nn.functional.pad(image[:, None], (1, 1, 1, 1), mode="replicate")
    expected = torch.nn.functional.conv2d(padded, (kernel[:, None] * kernel).view(1, 1, 3, 3))[:, 0]
    assert torch.allclose(weighted_shifts(image, kernel.tolist()), expected, atol=1e-6)


def test_correlation_of_detail_tells_a_copy_from_another_picture() -> None:
    a, b = (torch.from_numpy(cut(ground(i), 0, 0)).float().mean(dim=2)[None] for i in (1, 2))
    assert float(correlation(detail(a), detail(a * 2 + 5))[0]) == pytest.approx(1, abs=1e-4)
    assert abs(float(correlation(detail(a), detail(b))[0])) < 0.2
    assert float(correlation(torch.zeros(1, 8, 8), a[:, :8, :8])[0]) == 0


def test_gsds_within_a_few_percent_are_one_level() -> None:
    assert gsd_levels(np.array([0.5, 0.51, 1.0, 0.505])).tolist() == pytest.approx([0.505, 1.0], rel=1e-3)
    assert len(gsd_levels(np.geomspace(0.1, 100, 40))) == 0


def box(west: float, south: float, size: float = 0.1) -> list[tuple[float, float]]:
    east, north = west + size, south + size
    return [(west, south), (east, south), (east, north), (west, north), (west, south)]


def test_footprints_that_overlap_are_found_and_neighbors_are_not() -> None:
    pytest.importorskip("shapely")
    train = [box(10, 50), box(10.1, 50), None, box(20, 50)]
    found = footprint_overlaps([box(10.05, 50), None, box(30, 50), box(9.9, 50)], train)
    assert [(q, b) for q, b, _ in found] == [(0, 0), (0, 1)]
    assert [fraction for _, _, fraction in found] == pytest.approx([0.5, 0.5])
    across = [(179.95, 0.0), (-179.95, 0.0), (-179.95, 0.1), (179.95, 0.1), (179.95, 0.0)]
    assert [(q, b) for q, b, _ in footprint_overlaps([across], [box(-180, 0, 0.1), box(0, 0)])] == [(0, 0)]


def test_two_dates_of_one_real_place_leak_by_footprint(data_dir: Path, tmp_path: Path) -> None:
    """Pixels of two dates differ; the georeference does not."""
    pytest.importorskip("rasterio")
    from swath.evaluation.audit.footprint_overlap import read_footprints

    cities = sorted(path for path in (data_dir / "oscd").iterdir() if path.is_dir())[:3]
    rings = [read_footprints([str(city / f"date{date}.tif") for city in cities]) for date in (1, 2)]
    assert {(q, b) for q, b, fraction in footprint_overlaps(*rings) if fraction > 0.9} == {
        (i, i) for i in range(3)
    }

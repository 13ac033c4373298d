"""Splits made here: units stay whole, classes keep their shares, blocks keep their distance."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.eval_scenes import read_table, write_table
from swath.datasets.csv_table import CsvManifest
from swath.errors import ImageryError
from swath.evaluation.data.make_split import NOWHERE, assign_groups, make_split
from swath.evaluation.data.splits import open_split


@given(st.integers(0, 1000), st.integers(4, 40), st.integers(1, 4), st.integers(2, 3))
@settings(max_examples=40, deadline=None)
def test_units_stay_whole_and_no_fold_is_empty(seed: int, units: int, classes: int, split_names: int) -> None:
    random = np.random.default_rng(seed)
    of = [str(u) for u in np.concatenate([np.arange(units), random.integers(0, units, 60)])]
    labels = random.integers(0, classes, len(of))
    fractions = {f"f{i}": 1 / split_names for i in range(split_names)}
    dealt = assign_groups(of, labels, fractions, seed=seed)
    assert dealt.keys() == set(of)
    assert set(dealt.values()) == set(fractions)


def test_single_images_meet_the_shares_of_every_class() -> None:
    labels = np.repeat([0, 1, 2], [100, 40, 10])
    dealt = assign_groups(
        [str(i) for i in range(150)], labels, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=3
    )
    split_names = np.array([dealt[str(i)] for i in range(150)])
    for label, count in enumerate((100, 40, 10)):
        for split, fraction in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
            assert abs(int((split_names[labels == label] == split).sum()) - fraction * count) <= 1
    again = assign_groups(
        [str(i) for i in range(150)], labels, {"train": 0.7, "val": 0.1, "test": 0.2}, seed=4
    )
    assert dealt != again


def placed(table: Path, tmp_path: Path, spacing: float = 250.0) -> CsvManifest:
    """The table's 68 images on a grid of `spacing` metres at 60 degrees north, classes mixed."""
    step = math.degrees(spacing / 6_371_008.8)
    rows = []
    for i, row in enumerate(read_table(table)):
        place = (i * 29) % 68
        rows.append(
            [
                str(table.parent / row[0]),
                row[1],
                str(20 + (place % 9) * step * 2),
                str(60 + (place // 9) * step),
            ]
        )
    return CsvManifest(
        write_table(tmp_path / "placed.csv", rows, "file,class,lon,lat"), "rgb_aerial", "relative"
    )


def test_blocks_and_buffer_keep_their_distance(table: Path, tmp_path: Path) -> None:
    dataset = placed(table, tmp_path)
    made = make_split(
        dataset, strategy="block", block_metres=750, buffer_metres=400, coordinates=("lon", "lat"), seed=1
    )
    place = np.array([[float(v) for v in dataset.columns[c]] for c in ("lon", "lat")]).T
    metres = place * [math.cos(math.radians(60)), 1] * math.pi / 180 * 6_371_008.8
    split_names = np.array(made.split_names)
    train, val = metres[split_names == "train"], metres[split_names == "val"]
    nearest = np.linalg.norm(train[:, None] - val[None], axis=2).min()
    assert nearest >= 400 * 0.99
    assert len(val) >= 5
    assert (split_names == NOWHERE).any()
    assert "within 400 m of another split" in made.notes[0]
    units = np.array(made.units)
    for unit in set(made.units):
        assert len(set(split_names[units == unit]) - {NOWHERE}) <= 1
        assert np.ptp(metres[units == unit], axis=0).max() <= 750


def test_table_is_read_by_evaluation(table: Path, tmp_path: Path) -> None:
    dataset = placed(table, tmp_path)
    made = make_split(dataset, strategy="block", block_metres=500, coordinates=("lon", "lat"))
    split = open_split(made.write(tmp_path / "split.csv"), sensor="rgb_aerial", gsd="relative")
    assert len(split.train.indices) == made.split_names.count("train")
    assert len(split.test.indices) == made.split_names.count("val")
    with (tmp_path / "split.csv").open(newline="") as file:
        header = next(csv.reader(file))
    assert header == ["file", "class", "split", "split_unit", "lon", "lat"]


def test_groups_stay_together_and_files_are_relative(table: Path) -> None:
    rows = [[r[0], r[1], r[2], f"city {i % 7}"] for i, r in enumerate(read_table(table))]
    grouped = write_table(table.parent / "cities.csv", rows, "file,class,gsd_m,city")
    dataset = CsvManifest(grouped, "rgb_aerial")
    made = make_split(dataset, strategy="group", group_column="city", fractions={"train": 0.5, "test": 0.5})
    image_sizes: dict[str, set[str]] = {}
    for city, split in zip(dataset.columns["city"], made.split_names, strict=True):
        image_sizes.setdefault(city, set()).add(split)
    assert all(len(split_names) == 1 for split_names in image_sizes.values())
    written = made.write(table.parent / "by_city.csv")
    assert read_table(written)[0][0] == rows[0][0], "relative to the table"
    split = open_split(written, sensor="rgb_aerial", group_column="city")
    assert split.test.name == "test"
    assert made.counts()["train"].total() + made.counts()["test"].total() == len(dataset)


def test_real_tiles_in_blocks(data_dir: Path) -> None:
    pytest.importorskip("rasterio")
    source = data_dir / "rsvqa_lr"
    dataset = CsvManifest(
        source / "rural_urban.csv", "rgb_aerial", "relative", image_root=_root(source), label_column="label"
    )
    made = make_split(dataset, strategy="block", block_metres=10_000, buffer_metres=1000)
    counts = made.counts()
    assert {"train", "val"} <= counts.keys()
    assert counts["val"].keys() == {"rural", "urban"}


def _root(source: Path) -> Path:
    with (source / "rural_urban.csv").open(newline="") as file:
        first = next(iter(csv.DictReader(file)))["file"]
    return next(root for root in (source, source / "images", source.parent) if (root / first).is_file())


def test_what_cannot_be_made_is_refused(table: Path, tmp_path: Path) -> None:
    dataset = CsvManifest(table, "rgb_aerial")
    with pytest.raises(ImageryError, match=r"no georeference \(68 of 68 files\).*--coordinates"):
        make_split(dataset, strategy="block")
    with pytest.raises(ImageryError, match="which column holds the groups"):
        make_split(dataset, strategy="group")
    with pytest.raises(ImageryError, match=r"no column 'clas'. Did you mean 'class'"):
        make_split(dataset, strategy="group", group_column="clas")
    with pytest.raises(ImageryError, match="add up to 1"):
        make_split(dataset, fractions={"train": 0.8, "val": 0.3})
    with pytest.raises(ImageryError, match="mean nothing unless the split is made by block"):
        make_split(dataset, strategy="random", buffer_metres=10)
    with pytest.raises(ImageryError, match=r"1 units.*smaller blocks"):
        make_split(placed(table, tmp_path), strategy="block", block_metres=1e7, coordinates=("lon", "lat"))
    with pytest.raises(ImageryError, match="positive number of metres"):
        make_split(placed(table, tmp_path), strategy="block", block_metres=0, coordinates=("lon", "lat"))

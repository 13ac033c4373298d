"""Places seen by several sensors: samples, batches, views, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.pair_files import S1, S2, S2_BANDS, optical, radar, write_pair, write_pairs, write_table
from helpers.rasters import write_tiff
from swath.datasets.collation import collate
from swath.datasets.pairs.dataset import PairedImageDataset
from swath.datasets.pairs.opening import open_pairs
from swath.datasets.protocol import ImageDataset, PairedDataset
from swath.errors import ImageryError
from swath.keyed_random import sample_keys
from swath.sensors.registry import get_sensor

BOTH = (S1, S2)


def opened(path: Path, **options: Any) -> PairedImageDataset:
    return open_pairs(path, **{"sensors": BOTH, "offset_dn": 0.0, **options})


def test_sample_has_each_sensor_in_its_unit_under_one_key(tmp_path: Path) -> None:
    pairs = opened(write_pairs(tmp_path), seed=3)
    pairs.set_epoch(2)
    sample = pairs[1]
    s1, s2 = (sample["sensors"][name] for name in BOTH)
    assert torch.equal(s1["image"], torch.from_numpy(radar(seed=1)))
    assert torch.allclose(s2["image"], torch.from_numpy(optical(seed=1) / 1e4).float())
    key = int(sample_keys(3, 2, torch.tensor([1])))
    assert sample["key"] == s1["key"] == s2["key"] == key
    assert s1["gsd"] == pytest.approx(10, rel=0.01)
    assert pairs.paths == ["p0", "p1", "p2", "p3"]
    assert pairs.problems == []


def test_data_set_and_view_keep_the_protocols(tmp_path: Path) -> None:
    pairs = opened(write_pairs(tmp_path, labels=["a;b", "b", "a", ""]))
    assert isinstance(pairs, PairedDataset)
    assert isinstance(pairs.only(S1), ImageDataset)
    assert [sensor.name for sensor in pairs.sensors] == list(BOTH)
    assert pairs.labels is not None
    assert pairs.labels.tolist() == [[1, 1], [0, 1], [1, 0], [0, 0]]
    view = pairs.only(S2)
    assert view.places == pairs.paths
    assert Path(view.paths[2]).name == "s2_2.tif"
    assert torch.equal(view[2]["image"], pairs[2]["sensors"][S2]["image"])
    batch = view.get_batch([2, 0])
    assert batch["sensor"] == S2
    assert batch["label"].tolist() == [[1, 0], [1, 1]]


def test_batch_from_memory_is_the_batch_from_disk(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, **{"class": ["x", "y", "y", "x"]})
    read, held = opened(path), opened(path, cache="memory")
    a, b = read.get_batch([3, 0, 0]), held.get_batch(torch.tensor([3, 0, 0]))
    assert a.keys() == b.keys()
    assert a["label"].tolist() == b["label"].tolist() == [0, 0, 0]
    for name in BOTH:
        one, two = a["sensors"][name], b["sensors"][name]
        assert one.keys() == two.keys()
        for key in ("image", "gsd", "valid", "index", "key"):
            assert torch.equal(one[key], two[key]), key  # type: ignore[literal-required]
    assert torch.equal(held[2]["sensors"][S2]["image"], read[2]["sensors"][S2]["image"])


def test_memory_cache_keeps_stored_types(tmp_path: Path) -> None:
    held = opened(write_pairs(tmp_path), cache="memory")
    assert held._pixels._held[S2][0][0].dtype == np.uint16
    assert held._pixels._held[S2][1] is None  # everything is valid: no mask


def test_subset_and_folds_share_pixels_and_count_anew(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, split=["train", "val", "train", "val"], **{"class": ["c", "a", "b", "a"]})
    pairs = opened(path, cache="memory")
    val = pairs.select(split="val")
    assert val.paths == ["p1", "p3"]
    assert val.splits == ["val", "val"]
    assert val[1]["index"] == 1
    assert val.labels is not None
    assert val.labels.tolist() == [0, 0]
    assert val.classes == ["a", "b", "c"]
    assert torch.equal(val[1]["sensors"][S1]["image"], pairs[3]["sensors"][S1]["image"])
    assert val.subset([1]).paths == ["p3"]
    assert opened(path, split="val").paths == ["p1", "p3"]
    assert opened(path, split="val").classes == pairs.classes
    with pytest.raises(ImageryError, match="Did you mean 'val'"):
        pairs.select(split="vall")


def test_data_set_travels_to_loader_workers(tmp_path: Path) -> None:
    pairs = opened(write_pairs(tmp_path))
    again = pickle.loads(pickle.dumps(pairs))
    assert torch.equal(again[1]["sensors"][S2]["image"], pairs[1]["sensors"][S2]["image"])


def test_unreadable_place_is_a_problem_and_never_zeros(tmp_path: Path) -> None:
    path = write_pairs(tmp_path)
    pairs = opened(path)
    damaged = tmp_path / "s2_1.tif"
    damaged.write_bytes(damaged.read_bytes()[:600])
    sample = pairs[1]
    assert "sensors" not in sample
    assert sample["problem"][0] == "p1"
    batch = pairs.get_batch([0, 1, 2])
    assert batch["index"].tolist() == [0, 2]
    assert batch["problems"][0][0] == "p1"
    assert batch["sensors"][S1]["image"].shape == (2, 2, 24, 24)
    empty = pairs.get_batch([1])
    assert empty["sensors"][S2]["image"].shape == (0, 12, 24, 24)
    assert len(empty["index"]) == 0
    held = opened(path, cache="memory")
    assert held.paths == ["p0", "p2", "p3"]
    assert held.problems[0][0] == "p1"


def test_missing_file_is_a_problem_and_missing_column_an_error(tmp_path: Path) -> None:
    path = write_pairs(tmp_path)
    (tmp_path / "s1_2.tif").unlink()
    pairs = opened(path)
    assert pairs.paths == ["p0", "p1", "p3"]
    assert "line 4" in pairs.problems[0][1]
    assert S1 in pairs.problems[0][1]
    with pytest.raises(ImageryError, match=r"no column 'sentinel2_l1c'.*Did you mean 'sentinel2_l2a'"):
        opened(path, sensors=[S1, "sentinel2_l1c"])


def test_place_without_one_sensor_is_a_problem(tmp_path: Path) -> None:
    rows = [write_pair(tmp_path, i) for i in range(2)]
    rows[1][S1] = ""
    pairs = opened(write_table(tmp_path, rows))
    assert pairs.paths == ["p0"]
    assert "has no file of sentinel1_grd" in pairs.problems[0][1]


def test_grids_that_differ_are_named_with_the_fix(tmp_path: Path) -> None:
    from rasterio.transform import Affine

    rows = [
        write_pair(tmp_path, 0),
        write_pair(tmp_path, 1, transform=Affine(10, 0, 500_030, 0, -10, 5_000_000)),
    ]
    with pytest.raises(ImageryError) as caught:
        opened(write_table(tmp_path, rows))
    text = str(caught.value)
    assert "s1_1.tif: 24 x 24" in text
    assert "s2_1.tif: 24 x 24" in text
    assert "3 pixels apart" in text
    assert "swath inspect --pair" in text
    assert "1 of 2 pairs" in text
    assert len(opened(tmp_path, tolerance=4)) == 2


def test_other_crs_is_named(tmp_path: Path) -> None:
    rows = [write_pair(tmp_path, 0, crs="EPSG:32634")]
    with pytest.raises(ImageryError, match="different coordinate reference systems"):
        opened(write_table(tmp_path, rows))


def test_sensors_may_have_their_own_pixel_size(tmp_path: Path) -> None:
    row = write_pair(tmp_path, 0)
    write_tiff(tmp_path / "s2_0.tif", optical(12), descriptions=S2_BANDS, pixel=20)
    path = write_table(tmp_path, [row])
    sample = opened(path)[0]["sensors"]
    assert sample[S1]["image"].shape == (2, 24, 24)
    assert sample[S2]["image"].shape == (12, 12, 12)
    assert sample[S2]["gsd"] == pytest.approx(20, rel=0.01)
    cropped = opened(path, size=16)[0]["sensors"]
    assert cropped[S2]["image"].shape == (12, 8, 8)
    assert torch.equal(cropped[S1]["image"], sample[S1]["image"][:, 4:20, 4:20])
    assert torch.equal(cropped[S2]["image"], sample[S2]["image"][:, 2:10, 2:10])
    resized = opened(path, size=24, resize_mode="resize")[0]["sensors"]
    assert resized[S2]["image"].shape == (12, 24, 24)
    assert resized[S2]["gsd"] == pytest.approx(10, rel=0.01)
    with pytest.raises(ImageryError, match="multiple of 2"):
        opened(path, size=15)


def test_linear_power_for_decibels_is_refused_and_the_reverse(tmp_path: Path) -> None:
    rows = [write_pair(tmp_path, i) for i in range(2)]
    for i in range(2):
        write_tiff(tmp_path / f"s1_{i}.tif", 10 ** (radar(seed=i) / 10), descriptions=("VV", "VH"))
    path = write_table(tmp_path, rows)
    with pytest.raises(ImageryError, match="linear power, but sensor 'sentinel1_grd' is in dB"):
        opened(path)
    with pytest.raises(ImageryError, match="linear power, but sensor"):
        opened(path, cache="memory")
    rows = [{**row, "sentinel1_grd_linear": row[S1]} for row in rows]
    assert len(opened(write_table(tmp_path, rows), sensors=["sentinel1_grd_linear", S2])) == 2
    for i in range(2):
        write_tiff(tmp_path / f"s1_{i}.tif", radar(seed=i), descriptions=("VV", "VH"))
    with pytest.raises(ImageryError, match="which is dB, but sensor 'sentinel1_grd_linear'"):
        opened(tmp_path, sensors=["sentinel1_grd_linear", S2])


def test_reflectance_that_is_scaled_already_is_refused(tmp_path: Path) -> None:
    path = write_table(tmp_path, [write_pair(tmp_path, 0, s2=(optical() / 1e4).astype(np.float32))])
    with pytest.raises(ImageryError, match="hold reflectance already"):
        opened(path)


def test_bands_are_found_by_description_whatever_their_order(tmp_path: Path) -> None:
    row = write_pair(tmp_path, 0, s2=optical()[::-1], descriptions=S2_BANDS[::-1])
    sample = opened(write_table(tmp_path, [row]))[0]
    assert torch.allclose(sample["sensors"][S2]["image"], torch.from_numpy(optical() / 1e4).float())


def test_absent_bands_are_named(tmp_path: Path) -> None:
    row = write_pair(tmp_path, 0, s2=optical(bands=10), descriptions=S2_BANDS[:10])
    with pytest.raises(ImageryError, match=r"not found: B11, B12"):
        opened(write_table(tmp_path, [row]))


def test_folder_of_band_files_is_one_image(tmp_path: Path) -> None:
    row = write_pair(tmp_path, 0)
    folder = tmp_path / "bands"
    folder.mkdir()
    for band, values in zip(S2_BANDS, optical(), strict=True):
        write_tiff(folder / f"T33_{band}.tif", values[None])
    path = write_table(tmp_path, [{**row, S2: "bands"}])
    assert torch.allclose(opened(path)[0]["sensors"][S2]["image"], torch.from_numpy(optical() / 1e4).float())
    (folder / "T33_B8A.tif").unlink()
    with pytest.raises(ImageryError, match="no file for band B8A"):
        opened(path)


def test_label_of_another_nomenclature_is_named_with_a_suggestion(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, labels=["Pastures", "Mixed forest", "Mixed forests", "Pastures"])
    with pytest.raises(ImageryError, match=r"line 4: label 'Mixed forests'.*Did you mean 'Mixed forest'"):
        opened(path, classes=["Mixed forest", "Pastures"])
    assert opened(path).classes == ["Mixed forest", "Mixed forests", "Pastures"]


def test_offset_of_each_place_from_the_table(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, **{f"offset_dn_{S2}": ["0", "-1000", "0", "-1000"]})
    pairs = open_pairs(path, sensors=BOTH, cache="memory")
    for i, offset in enumerate((0, -1000)):
        wanted = torch.from_numpy((optical(seed=i).astype(np.float32) + offset) / 1e4)
        assert torch.allclose(pairs[i]["sensors"][S2]["image"], wanted, atol=1e-6)
    with pytest.raises(ImageryError, match="processing baseline"):
        open_pairs(write_pairs(tmp_path / "b"), sensors=BOTH)


def test_times_of_the_table_reach_the_sample(tmp_path: Path) -> None:
    path = write_pairs(tmp_path, **{f"time_{S1}": ["2017-06-13T16:50:43"] * 4})
    sample = opened(path)[0]["sensors"]
    assert sample[S1]["time"] == 1497372643.0
    assert "time" not in sample[S2]
    batch = opened(path, cache="memory").get_batch([0, 1])
    assert batch["sensors"][S1]["time"].tolist() == [1497372643.0] * 2


def test_collate_refuses_a_mixture(tmp_path: Path) -> None:
    pairs = opened(write_pairs(tmp_path))
    with pytest.raises(ImageryError, match="not both"):
        collate([pairs[0], pairs.only(S1)[0]])  # type: ignore[list-item]


def test_one_sensor_alone_will_do(tmp_path: Path) -> None:
    pairs = opened(write_pairs(tmp_path), sensors=[get_sensor(S2)])
    assert list(pairs[0]["sensors"]) == [S2]
    with pytest.raises(ImageryError, match="each once"):
        opened(tmp_path, sensors=[S2, S2])


def test_a_folder_without_pairs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="swath inspect --pair"):
        opened(tmp_path)

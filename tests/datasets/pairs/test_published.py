"""Published sets of pairs, by the names of their files; and any set by a table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.pair_files import optical, radar
from helpers.rasters import write_tiff
from swath.datasets.pairs.opening import detect_pair_layout, open_pairs
from swath.datasets.pairs.published import L1C_BANDS
from swath.errors import ImageryError

BOTH = ("sentinel1_grd", "sentinel2_l1c")


def write(path: Path, values: np.ndarray, **profile: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_tiff(path, values, **profile)


# ---------------------------------------------------------------------------------------------------- SEN12MS


@pytest.fixture
def sen12ms(tmp_path: Path) -> Path:
    for scene, patch in ((1, 30), (1, 31), (44, 7)):
        for kind, values in (
            ("s1", radar(seed=patch)),
            ("s2", optical(seed=patch, bands=13)),
            ("lc", optical(bands=4)),
        ):
            name = f"ROIs1158_spring_{kind}_{scene}_p{patch}.tif"
            write(tmp_path / "ROIs1158_spring" / f"{kind}_{scene}" / name, values)
    write(
        tmp_path / "ROIs1158_spring" / "s2_cloudy_1" / "ROIs1158_spring_s2_cloudy_1_p30.tif",
        optical(bands=13),
    )
    (tmp_path / "train_list.txt").write_text("ROIs1158_spring_s1_1_p30.tif\nROIs1158_spring_s1_1_p31.tif\n")
    (tmp_path / "test_list.txt").write_text("ROIs1158_spring_s1_44_p7.tif\n")
    return tmp_path


def test_sen12ms_by_its_names(sen12ms: Path) -> None:
    assert detect_pair_layout(sen12ms) == "sen12ms"
    pairs = open_pairs(sen12ms, sensors=BOTH)
    assert pairs.paths == ["ROIs1158_spring_1_p30", "ROIs1158_spring_1_p31", "ROIs1158_spring_44_p7"]
    assert pairs.groups == ["ROIs1158_spring_1", "ROIs1158_spring_1", "ROIs1158_spring_44"]
    assert pairs.splits == ["train", "train", "test"]
    sample = pairs[2]["sensors"]
    assert torch.equal(sample["sentinel1_grd"]["image"], torch.from_numpy(radar(seed=7)))
    wanted = torch.from_numpy(optical(seed=7, bands=13) / 1e4).float()
    assert torch.allclose(sample["sentinel2_l1c"]["image"], wanted)


def test_bands_without_names_are_taken_in_the_published_order(sen12ms: Path) -> None:
    pairs = open_pairs(sen12ms, sensors=["sentinel2_ben", "sentinel1_ben"])
    sample = pairs[0]["sensors"]
    b8a = optical(seed=30, bands=13)[L1C_BANDS.index("B8A")] / 1e4
    assert torch.allclose(sample["sentinel2_ben"]["image"][9], torch.from_numpy(b8a).float())
    assert torch.equal(sample["sentinel1_ben"]["image"][0], torch.from_numpy(radar(seed=30)[1]))


def test_sen12ms_without_its_pair_is_a_problem(sen12ms: Path) -> None:
    (sen12ms / "ROIs1158_spring" / "s2_44" / "ROIs1158_spring_s2_44_p7.tif").unlink()
    pairs = open_pairs(sen12ms, sensors=BOTH)
    assert len(pairs) == 2
    assert "(s2) is missing" in pairs.problems[0][1]
    with pytest.raises(ImageryError, match="has no band R, G, B, N of"):
        open_pairs(sen12ms, sensors=["sentinel1_grd", "naip"])


def test_real_patch_of_sen12ms_cr(data_dir: Path, tmp_path: Path) -> None:
    there = data_dir / "s1s2" / "sen12mscr_ROIs1970_fall_139_p839"
    for kind in ("s1", "s2", "s2_cloudy"):
        folder = tmp_path / f"ROIs1970_fall_{kind}" / f"{kind}_139"
        folder.mkdir(parents=True)
        (folder / f"ROIs1970_fall_{kind}_139_p839.tif").symlink_to((there / f"{kind}.tif").resolve())
    pairs = open_pairs(tmp_path, sensors=BOTH, size=120)
    assert pairs.paths == ["ROIs1970_fall_139_p839"]
    sample = pairs[0]["sensors"]
    assert sample["sentinel2_l1c"]["image"].shape == (13, 120, 120)
    assert -30 < float(sample["sentinel1_grd"]["image"].mean()) < 0


# ------------------------------------------------------------------------------------------------- SSL4EO-S12


def write_ssl4eo(
    root: Path, location: str, s1: np.ndarray, s2: np.ndarray, date: int, shift: float = 30
) -> None:
    from rasterio.transform import Affine

    radar_folder = (
        root
        / "s1"
        / location
        / f"S1A_IW_GRDH_1SDV_2020{date:02d}07T010800_2020{date:02d}07T010825_032904_03CFBA_D457"
    )
    for band, values in zip(("VV", "VH"), s1, strict=True):
        transform = Affine(10, 0, 500_000 + shift, 0, -10, 5_000_000)
        write(radar_folder / f"{band}.tif", values[None], transform=transform)
    optical_folder = root / "s2c" / location / f"2020{date:02d}04T054639_2020{date:02d}04T054831_T43RCP"
    for band, values in zip(L1C_BANDS, s2, strict=True):
        coarse = {"B01": 6, "B09": 6, "B10": 6}.get(band, 1 if band in ("B02", "B03", "B04", "B08") else 2)
        name = band.replace("B0", "B")
        write(optical_folder / f"{name}.tif", values[None, ::coarse, ::coarse], pixel=10 * coarse)


@pytest.fixture
def ssl4eo(tmp_path: Path) -> Path:
    for location in ("0000001", "0000200"):
        for date in (3, 6, 9):
            write_ssl4eo(tmp_path, location, radar(seed=date), optical(seed=date, bands=13), date)
    return tmp_path


def test_ssl4eo_pairs_the_nearest_dates_and_tolerates_its_grids(ssl4eo: Path) -> None:
    assert detect_pair_layout(ssl4eo) == "ssl4eo"
    pairs = open_pairs(ssl4eo, sensors=BOTH)
    assert len(pairs) == 6
    assert pairs.paths[1] == "0000001_20200607"
    assert pairs.groups == ["0000001"] * 3 + ["0000200"] * 3
    sample = pairs[1]["sensors"]
    assert sample["sentinel2_l1c"]["image"].shape == (13, 24, 24)
    assert torch.equal(sample["sentinel1_grd"]["image"], torch.from_numpy(radar(seed=6)))
    assert sample["sentinel1_grd"]["time"] - sample["sentinel2_l1c"]["time"] == pytest.approx(
        2.8 * 86400, rel=0.01
    )
    with pytest.raises(ImageryError, match=r"(?s)3 pixels apart.*swath inspect --pair"):
        open_pairs(ssl4eo, sensors=BOTH, tolerance=1)


def test_ssl4eo_without_level_2a_or_a_band(ssl4eo: Path) -> None:
    # No s2a folder: a sensor without B10 is served from s2c, which has all its bands.
    assert len(open_pairs(ssl4eo, sensors=["sentinel1_ben", "sentinel2_ben"])) == 6
    next((ssl4eo / "s2c" / "0000200").rglob("B8A.tif")).unlink()
    pairs = open_pairs(ssl4eo, sensors=BOTH)
    assert len(pairs) == 5
    assert "no file for band B8A" in pairs.problems[0][1]


def test_real_location_of_ssl4eo(data_dir: Path, tmp_path: Path) -> None:
    import rasterio

    for date, name in ((6, "ssl4eo_0000200_t1"), (9, "ssl4eo_0000200_t2")):
        with rasterio.open(data_dir / "s1s2" / name / "s1.tif") as file:
            s1 = file.read()[:, :240, :240]
        with rasterio.open(data_dir / "s1s2" / name / "s2.tif") as file:
            s2 = file.read()[:, :240, :240]
            s2 = np.insert(s2, L1C_BANDS.index("B10"), s2[0], axis=0)  # Level-2A has no B10
        write_ssl4eo(tmp_path, "0000200", s1, s2, date)
    pairs = open_pairs(tmp_path, sensors=["sentinel1_ben", "sentinel2_ben"], size=120, cache="memory")
    batch = pairs.get_batch([0, 1])["sensors"]
    assert batch["sentinel2_ben"]["image"].shape == (2, 10, 120, 120)
    assert -25 < float(batch["sentinel1_ben"]["image"].mean()) < -3


# ----------------------------------------------------------------------------------------------- Sen1Floods11


def test_sen1floods11_by_its_names(tmp_path: Path) -> None:
    data = tmp_path / "v1.1" / "data" / "flood_events" / "HandLabeled"
    for i, place in enumerate(("Bolivia_103757", "Sri-Lanka_12", "Ghana_5079")):
        s1 = radar(seed=i)
        s1[:, :2] = np.nan  # as in the published files
        write(data / "S1Hand" / f"{place}_S1Hand.tif", s1)
        write(data / "S2Hand" / f"{place}_S2Hand.tif", optical(seed=i, bands=13).astype(np.int16))
        write(data / "LabelHand" / f"{place}_LabelHand.tif", radar(seed=i)[:1].astype(np.int16))
    splits = tmp_path / "v1.1" / "splits" / "flood_handlabeled"
    splits.mkdir(parents=True)
    for split, place in (("train", "Ghana_5079"), ("valid", "Sri-Lanka_12"), ("bolivia", "Bolivia_103757")):
        (splits / f"flood_{split}_data.csv").write_text(f"{place}_S1Hand.tif,{place}_LabelHand.tif\n")
    assert detect_pair_layout(tmp_path) == "sen1floods11"
    pairs = open_pairs(tmp_path, sensors=BOTH)
    assert pairs.paths == ["Bolivia_103757", "Ghana_5079", "Sri-Lanka_12"]
    assert pairs.splits == ["bolivia", "train", "val"]
    assert pairs.groups == ["Bolivia", "Ghana", "Sri-Lanka"]
    sample = pairs[0]["sensors"]
    assert not sample["sentinel1_grd"]["valid"][:2].any()
    assert bool(sample["sentinel2_l1c"]["valid"].all())
    assert open_pairs(tmp_path, sensors=BOTH, split="val").paths == ["Sri-Lanka_12"]


# ----------------------------------------------------------------------------------------- a set of one's own


def test_real_pairs_by_a_table(data_dir: Path, tmp_path: Path) -> None:
    """Pairs of three sets: other sizes and offsets, in one data set; a Level-1C scene is no Level-2A."""
    rows = []
    for folder in sorted((data_dir / "s1s2").glob("*/s1.tif")):
        place = folder.parent
        known = json.loads((place / "labels.json").read_text())
        rows.append(
            {
                "id": place.name,
                "sentinel1_grd": str(place / "s1.tif"),
                "sentinel2_l2a": str(place / "s2.tif"),
                "labels": ";".join(known.get("labels_clc43") or ["none known"]),
                "group": known.get("scene_group") or place.name.rsplit("_t", 1)[0],
                # The one folder whose darkest pixels are all near 1050.
                "offset_dn_sentinel2_l2a": "-1000" if place.name == "terramind_433D_629L_3_1" else "0",
            }
        )
    table = tmp_path / "pairs.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(ImageryError, match=r"sen12mscr.*Level-1C"):
        open_pairs(table, sensors=["sentinel1_grd", "sentinel2_l2a"])
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if not row["id"].startswith("sen12mscr"))
    with pytest.raises(ImageryError, match=r"(3|4) different sizes"):
        open_pairs(table, sensors=["sentinel1_grd", "sentinel2_l2a"])
    pairs = open_pairs(table, sensors=["sentinel1_grd", "sentinel2_l2a"], size=120, cache="memory")
    assert len(pairs) == 10
    assert pairs.problems == []
    batch = pairs.get_batch(range(10))
    assert batch["sensors"]["sentinel1_grd"]["image"].shape == (10, 2, 120, 120)
    assert batch["sensors"]["sentinel2_l2a"]["image"].shape == (10, 12, 120, 120)
    assert torch.isfinite(batch["sensors"]["sentinel1_grd"]["image"]).all()
    darkest = batch["sensors"]["sentinel2_l2a"]["image"].amin(dim=(1, 2, 3))
    assert float(darkest.max()) < 0.35  # snow is bright everywhere; nothing keeps an offset of 0.1 by mistake
    assert pairs.groups is not None
    assert len(set(pairs.groups)) == 8
    assert bool((batch["sensors"]["sentinel2_l2a"]["gsd"] - 10).abs().max() < 0.3)

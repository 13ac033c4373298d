"""BigEarthNet-MM as it is published: names, labels, folders, databases, splits."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.rasters import write_tiff
from swath.datasets.bigearthnet.dataset import ben14k, find_bigearthnet
from swath.datasets.bigearthnet.labels import CLASSES_19, CLASSES_43, TO_19, labels_19, labels_43
from swath.datasets.bigearthnet.patch_names import is_ben14k, parse_patch_name
from swath.datasets.bigearthnet.pickles import unpack_pickle
from swath.datasets.bigearthnet.readers import PatchReader, unpack_safetensors
from swath.datasets.pairs.opening import open_pairs
from swath.errors import ImageryError
from swath.sensors.registry import get_sensor

BOTH = ("sentinel1_ben", "sentinel2_ben")
SIDES = {"B01": 20, "B05": 60, "B06": 60, "B07": 60, "B8A": 60, "B09": 20, "B11": 60, "B12": 60}
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")


def stored(name: str) -> dict[str, np.ndarray]:
    """A patch's bands as files hold them, by its name."""
    random = np.random.default_rng(abs(hash(name)) % 2**32)
    if name.startswith("S1"):
        return {band: random.normal(-14, 3, (120, 120)).astype(np.float32) for band in ("VV", "VH")}
    return {band: random.integers(100, 4000, (SIDES.get(band, 120),) * 2).astype(np.uint16) for band in BANDS}


def write_patch(folder: Path, name: str, metadata: dict[str, Any] | None = None) -> Path:
    patch = folder / name
    patch.mkdir(parents=True)
    for band, values in stored(name).items():
        write_tiff(patch / f"{name}_{band}.tif", values[None], pixel=1200 / len(values))
    if metadata is not None:
        (patch / f"{name}_labels_metadata.json").write_text(json.dumps(metadata))
    return patch


S2_V1 = [f"S2A_MSIL2A_20170613T101031_{i}_48" for i in range(4)]
S1_V1 = [f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{i}_48" for i in range(4)]


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1: four pairs with JSON, official splits of two columns."""
    root = tmp_path_factory.mktemp("ben1")
    for i, (s1, s2) in enumerate(zip(S1_V1, S2_V1, strict=True)):
        labels = ["Rice fields", "Peatbogs"] if i != 2 else ["Airports"]
        write_patch(root / "BigEarthNet-v1.0", s2, {"labels": labels})
        metadata = {"labels": labels, "corresponding_s2_patch": s2}
        write_patch(root / "BigEarthNet-S1-v1.0", s1, metadata)
    return root


def write_splits(root: Path, names: dict[str, list[str]]) -> None:
    for split, patches in names.items():
        with (root / f"{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([name] for name in patches)


# ------------------------------------------------------------------------------------------------------ names


def test_names_of_both_versions() -> None:
    one = parse_patch_name("S2A_MSIL2A_20170613T101031_87_48")
    two = parse_patch_name("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_75_43")
    radar = parse_patch_name("S1B_IW_GRDH_1SDV_20170612T165809_33UUP_51_83")
    assert one is not None
    assert two is not None
    assert radar is not None
    assert (one.sentinel, one.tile, one.position) == (2, None, (87, 48))
    assert (two.tile, two.scene) == ("33UUP", "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP")
    assert (radar.sentinel, radar.time.isoformat()) == (1, "2017-06-12T16:58:09+00:00")
    assert parse_patch_name("S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP") is None
    early = parse_patch_name("S2B_MSIL2A_20170831T95030_0_84")  # as v1 has it: the hour has lost its zero
    assert early is not None
    assert early.time.isoformat() == "2017-08-31T09:50:30+00:00"


def test_ben14k_goes_by_the_month_of_sentinel2() -> None:
    names = [
        f"S2A_MSIL2A_2017{month}T101031_{i}_4" for i, month in enumerate(("0531", "0601", "0831", "0901"))
    ]
    assert ben14k(names, ["Serbia"] * 4) == names[1:3]
    assert ben14k(names, ["Austria"] * 4) == []
    with pytest.raises(ImageryError, match="not the name of a Sentinel-2 patch"):
        is_ben14k(S1_V1[0], "Serbia")


# ----------------------------------------------------------------------------------------------------- labels


def test_nomenclatures_are_complete() -> None:
    assert len(CLASSES_19) == 19
    assert list(CLASSES_19) == sorted(CLASSES_19)
    assert len(CLASSES_43) == 43
    assert set(TO_19.values()) == set(CLASSES_19)
    assert len(TO_19) == 32


def test_corine_labels_become_the_19() -> None:
    assert labels_19(["Rice fields", "Vineyards", "Non-irrigated arable land"]) == (
        "Arable land",
        "Permanent crops",
    )
    assert labels_19(["Airports", "Burnt areas"]) == ()
    assert labels_19(["Transitional woodland/shrub"]) == labels_19(["Transitional woodland, shrub"])


def test_label_of_another_nomenclature_is_suggested() -> None:
    with pytest.raises(ImageryError, match=r"patch 7: label 'Mixed forests'.*Did you mean 'Mixed forest'"):
        labels_19(["Mixed forests"], "patch 7")
    with pytest.raises(ImageryError, match="'Arable land' is of the nomenclature of 19"):
        labels_43(["Arable land"])


# ---------------------------------------------------------------------------------------------------- folders


def test_v1_folders_give_pairs_in_the_sensors_order(v1: Path) -> None:
    pairs = open_pairs(v1, sensors=BOTH)
    assert pairs.paths == [S2_V1[0], S2_V1[1], S2_V1[3]]
    assert "no label of the 19" in pairs.problems[-1][1]
    assert pairs.labels is not None
    assert pairs.classes is not None
    assert [pairs.classes[i] for i in np.flatnonzero(pairs.labels[0])] == ["Arable land", "Inland wetlands"]
    sample = pairs[1]["sensors"]
    radar, optical = sample["sentinel1_ben"], sample["sentinel2_ben"]
    assert torch.equal(radar["image"][0], torch.from_numpy(stored(S1_V1[1])["VH"]))
    assert torch.equal(radar["image"][1], torch.from_numpy(stored(S1_V1[1])["VV"]))
    assert optical["image"].shape == (10, 120, 120)
    assert torch.allclose(optical["image"][3], torch.from_numpy(stored(S2_V1[1])["B08"] / 1e4).float())
    assert optical["gsd"] == radar["gsd"] == 10
    assert (optical["time"], radar["time"]) == (1497348631.0, 1497372643.0)
    assert pairs.groups == ["S2A_MSIL2A_20170613T101031"] * 3
    assert pairs.splits is None


def test_coarse_bands_are_resampled_as_models_on_bigearthnet_have_it(v1: Path) -> None:
    image = open_pairs(v1, sensors=["sentinel2_ben"])[0]["sensors"]["sentinel2_ben"]["image"]
    values = torch.from_numpy(stored(S2_V1[0])["B8A"].astype(np.float32))[None, None]
    wanted = torch.nn.functional.interpolate(values, (120, 120), mode="bicubic", align_corners=True)
    assert torch.allclose(image[9], wanted[0, 0] / 1e4, atol=1e-7)
    # Aligned corners: the corner pixels keep their values.
    assert torch.allclose(image[9][::119, ::119] * 1e4, values[0, 0][::59, ::59], atol=0.01)


def test_memory_keeps_native_resolution_and_gives_the_same(v1: Path) -> None:
    read, held = open_pairs(v1, sensors=BOTH), open_pairs(v1, sensors=BOTH, cache="memory")
    groups = held._pixels._held["sentinel2_ben"][0]
    assert [(group.dtype, group.shape[1:]) for group in groups] == [
        (np.uint16, (4, 120, 120)),
        (np.uint16, (6, 60, 60)),
    ]
    a, b = read.get_batch([2, 0]), held.get_batch([2, 0])
    for name in BOTH:
        assert torch.equal(a["sensors"][name]["image"], b["sensors"][name]["image"])


def test_other_sensors_of_its_bands_will_do(v1: Path) -> None:
    pairs = open_pairs(v1, sensors=["sentinel2_l2a", "sentinel1_grd"], size=64)
    sample = pairs[0]["sensors"]
    assert sample["sentinel2_l2a"]["image"].shape == (12, 64, 64)
    assert torch.equal(
        sample["sentinel1_grd"]["image"][0], torch.from_numpy(stored(S1_V1[0])["VV"])[28:92, 28:92]
    )
    with pytest.raises(ImageryError, match="no band B10"):
        open_pairs(v1, sensors=["sentinel2_l1c"])


def test_43_classes_on_request(v1: Path) -> None:
    pairs = open_pairs(v1, sensors=BOTH, classes=CLASSES_43)
    assert pairs.labels is not None
    assert pairs.labels.shape == (4, 43)
    with pytest.raises(ImageryError, match="two nomenclatures"):
        open_pairs(v1, sensors=BOTH, classes=["Pastures"])


def test_official_splits_decide_what_is_in(v1: Path, tmp_path: Path) -> None:
    root = tmp_path / "ben"
    shutil.copytree(v1, root)
    with pytest.raises(ImageryError, match="need the official splits"):
        open_pairs(root, sensors=BOTH, split="val")
    write_splits(root, {"train": S2_V1[:1], "val": [S2_V1[3]], "test": []})
    pairs = open_pairs(root, sensors=BOTH)
    assert pairs.splits == ["train", "val"]
    assert "2 patches are in none of the official splits" in pairs.problems[0][1]
    assert open_pairs(root, sensors=BOTH, split="val").paths == [S2_V1[3]]
    with pytest.raises(ImageryError, match="needs the country"):
        open_pairs(root, sensors=BOTH, subset="ben14k")
    rows = [["s1_name", "s2_name", "country", "season"]]
    rows += [
        [a, b, "Serbia" if i else "Austria", "Fall"]
        for i, (a, b) in enumerate(zip(S1_V1, S2_V1, strict=True))
    ]
    with (root / "s1_s2_name_country_season.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert open_pairs(root, sensors=BOTH, subset="ben14k").paths == [S2_V1[3]]


def test_missing_sentinel1_and_missing_band_are_told(v1: Path, tmp_path: Path) -> None:
    root = tmp_path / "ben"
    shutil.copytree(v1, root)
    shutil.rmtree(root / "BigEarthNet-S1-v1.0" / S1_V1[0])
    next((root / "BigEarthNet-v1.0" / S2_V1[1]).glob("*_B8A.tif")).unlink()
    pairs = open_pairs(root, sensors=BOTH, cache="memory")
    assert pairs.paths == [S2_V1[3]]
    reasons = " ".join(reason for _, reason in pairs.problems)
    assert "1 places have no patch of Sentinel-1" in reasons
    assert "band B8A is missing" in reasons


def write_v2(root: Path, count: int = 3) -> tuple[list[str], list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    scene = "S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP"
    s2 = [f"{scene}_{i}_43" for i in range(count)]
    s1 = [f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{i}_43" for i in range(count)]
    for a, b in zip(s1, s2, strict=True):
        write_patch(root / "BigEarthNet-S1" / "S1A_IW_GRDH_1SDV_20170613T165043", a)
        write_patch(root / "BigEarthNet-S2" / scene, b)
    table = {
        "patch_id": [*s2, f"{scene}_9_9"],
        "labels": [["Pastures"], ["Urban fabric", "Pastures"], ["Marine waters"], ["Pastures"]],
        "split": ["train", "validation", "test", "test"],
        "country": ["Austria"] * 4,
        "s1_name": [*s1, "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_9_9"],
    }
    pq.write_table(pa.table(table), root / "metadata.parquet")
    return s1, s2


def test_v2_folders_with_metadata_parquet(tmp_path: Path) -> None:
    _, s2 = write_v2(tmp_path)
    pairs = open_pairs(tmp_path, sensors=BOTH, layout="bigearthnet")
    assert pairs.paths == s2
    assert pairs.splits == ["train", "val", "test"]
    assert pairs.groups == ["S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP"] * 3
    assert "1 places have no patch" in pairs.problems[0][1]
    assert open_pairs(tmp_path, sensors=BOTH, split="validation").paths == [s2[1]]


# -------------------------------------------------------------------------------------------------- databases


def write_lmdb(path: Path, values: dict[str, bytes]) -> None:
    lmdb = pytest.importorskip("lmdb")
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=2**26) as environment, environment.begin(write=True) as transaction:
        for name, value in values.items():
            transaction.put(name.encode(), value)


def test_safetensors_database_gives_what_the_folders_give(tmp_path: Path) -> None:
    from safetensors.numpy import save

    s1, s2 = write_v2(tmp_path / "folders")
    write_lmdb(tmp_path / "db" / "Encoded-BigEarthNet", {name: save(stored(name)) for name in [*s1, *s2]})
    shutil.copy(tmp_path / "folders" / "metadata.parquet", tmp_path / "db")
    a = open_pairs(tmp_path / "folders", sensors=BOTH)
    b = open_pairs(tmp_path / "db", sensors=BOTH)
    assert a.paths == b.paths
    again = pickle.loads(pickle.dumps(b))
    for name in BOTH:
        one, two = a.get_batch([0, 2])["sensors"][name], again.get_batch([0, 2])["sensors"][name]
        assert torch.equal(one["image"], two["image"])


class Band:
    """As pydantic keeps a band of that encoder."""

    def __init__(self, name: str, data: np.ndarray) -> None:
        self.name, self.data, self.data_shape, self.spatial_resolution = name, data, data.shape, 10

    def __getstate__(self) -> dict[str, Any]:
        return {
            "__dict__": self.__dict__,
            "__fields_set__": {"name", "data"},
            "__private_attribute_values__": {},
        }


class Patch:
    """A patch of that encoder."""

    def __init__(self, bands: dict[str, np.ndarray], **properties: Any) -> None:
        self._bands = [Band(name, data) for name, data in bands.items()]
        self.__dict__.update(properties)


@pytest.fixture
def as_encoder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pickles a patch under the names of the encoder's package, whose modules do not stay."""

    def dumps(bands: dict[str, np.ndarray], **properties: Any) -> bytes:
        package = types.ModuleType("bigearthnet_patch_interface")
        with monkeypatch.context() as patch:
            for one in (Band, Patch):
                patch.setattr(one, "__module__", package.__name__)
                setattr(package, one.__name__, one)
            patch.setitem(sys.modules, package.__name__, package)
            return pickle.dumps(Patch(bands, **properties), protocol=4)

    return dumps


def test_database_of_the_older_encoder_holds_both_satellites_and_labels(
    as_encoder: Any, tmp_path: Path
) -> None:
    values = {}
    for s1, s2 in zip(S1_V1, S2_V1, strict=True):
        values[s2] = as_encoder(
            {**stored(s1), **stored(s2)}, labels=["Rice fields"], new_labels=["Arable land"]
        )
    write_lmdb(tmp_path / "S1_S2_lmdb.db", values)
    pairs = open_pairs(tmp_path, sensors=BOTH)
    assert pairs.paths == S2_V1
    assert pairs.labels is not None
    assert pairs.classes is not None
    assert [pairs.classes[i] for i in pairs.labels.argmax(axis=1)] == ["Arable land"] * 4
    sample = pairs[2]["sensors"]
    assert torch.equal(sample["sentinel1_ben"]["image"][1], torch.from_numpy(stored(S1_V1[2])["VV"]))
    assert torch.allclose(
        sample["sentinel2_ben"]["image"][0], torch.from_numpy(stored(S2_V1[2])["B02"] / 1e4).float()
    )
    assert "time" in sample["sentinel2_ben"]
    assert "time" not in sample["sentinel1_ben"]  # nothing tells it


def test_pickles_are_never_executed(as_encoder: Any) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("a pickle was loaded",))

    with pytest.raises(
        ImageryError, match=r"names _pytest\S+, which a patch does not.*nothing of it was executed"
    ):
        unpack_pickle(pickle.dumps(Trap()), "db: patch")
    with pytest.raises(ImageryError, match="nothing of it was executed"):
        unpack_pickle(as_encoder({}, labels=Trap()), "db: patch")
    with pytest.raises(ImageryError, match="has no bands"):
        unpack_pickle(pickle.dumps({"_bands": []}), "db: patch")
    with pytest.raises(ImageryError, match="not an image"):
        unpack_pickle(as_encoder({"B02": np.zeros((2, 3, 4))}), "db: patch")
    with pytest.raises(ImageryError, match="is not safetensors"):
        unpack_safetensors(b"\x00" * 20, "db: patch")


def test_any_damage_to_a_pickle_is_an_error(as_encoder: Any) -> None:
    value = as_encoder({"VV": np.ones((120, 120), np.float32)}, labels=["Pastures"])
    bands, labels = unpack_pickle(value, "db: patch")
    assert (bands["VV"] == 1).all()
    assert labels == ("Pastures",)
    random = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(value[: random.integers(1, len(value))] if random.random() < 0.3 else value)
        for _ in range(3):
            damaged[random.integers(0, min(len(damaged), 500))] = random.integers(0, 256)
        try:
            unpack_pickle(bytes(damaged), "db: patch")
        except ImageryError:
            continue


def test_wrong_size_is_named() -> None:
    class Small:
        def where(self, patch: str) -> str:
            return patch

        def bands(self, patch: str, names: Any) -> list[np.ndarray]:
            return [np.zeros((100, 100), np.float32) for _ in names]

    reader = PatchReader(get_sensor("sentinel1_ben"), ["p"], Small(), np.zeros(1))
    with pytest.raises(ImageryError, match="120 x 120"):
        reader.read(0)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="no patch of BigEarthNet"):
        find_bigearthnet(tmp_path, [get_sensor("sentinel2_ben")])


# --------------------------------------------------------------------------------------------- the real files


def test_original_files_of_v1(data_dir: Path) -> None:
    pairs = open_pairs(data_dir / "s1s2" / "bigearthnet_original", sensors=BOTH)
    assert pairs.paths == ["S2A_MSIL2A_20170613T101031_87_48", "S2A_MSIL2A_20170617T113321_4_55"]
    assert pairs.labels is not None
    named = [[CLASSES_19[i] for i in np.flatnonzero(row)] for row in pairs.labels]
    assert named[1] == ["Pastures"]
    assert named[0][0] == "Arable land"
    batch = pairs.get_batch([0, 1])["sensors"]
    assert -30 < float(batch["sentinel1_ben"]["image"].mean()) < -5
    assert 0.02 < float(batch["sentinel2_ben"]["image"].mean()) < 0.4


def test_original_files_of_v2(data_dir: Path) -> None:
    root = data_dir / "fixtures_rico" / "BigEarthNet"
    pairs = open_pairs(root, sensors=["sentinel2_ben"])
    assert len(pairs) == 3  # `.tif` and `.tiff`
    assert pairs.labels is None
    assert (
        len(open_pairs(root, sensors=["sentinel1_ben"], layout="bigearthnet")) == 1
    )  # only one names its partner
    with pytest.raises(ImageryError, match="no place of BigEarthNet is left"):
        open_pairs(root, sensors=BOTH)

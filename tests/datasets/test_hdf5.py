"""Images in HDF5 files: both forms, in any process, and bad files named."""

from __future__ import annotations

import multiprocessing
import pickle
import sys

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from swath.archive.ingest.chip_ids import preprocessing
from swath.datasets.collation import collate
from swath.datasets.hdf5 import Hdf5Images
from swath.datasets.opening import open_dataset
from swath.errors import ArchiveError, ImageryError
from swath.sensors.sensor import Sensor

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 12, 16, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2, 0])


@pytest.fixture
def stacked(tmp_path):
    path = tmp_path / "stacked.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("train/images", data=PIXELS, chunks=(1, 12, 16, 3), compression="gzip")
        file["train/labels"] = LABELS
        file["note"] = "resized"
    return path


@pytest.fixture
def grouped(tmp_path):
    path = tmp_path / "grouped.h5"
    with h5py.File(path, "w") as file:
        for i, pixels in enumerate(PIXELS):
            file[f"{('field', 'city')[i % 2]}/{i}"] = pixels
    return path


def test_stacked_images_with_their_labels(stacked):
    dataset = open_dataset(stacked, sensor="rgb_aerial", gsd=0.5)
    assert isinstance(dataset, Hdf5Images)
    assert (len(dataset), dataset.classes, dataset.labels.tolist()) == (7, ["0", "1", "2"], LABELS.tolist())
    assert dataset.paths[3] == f"{stacked}::train/images[3]"
    sample = dataset[3]
    assert torch.equal(sample["image"], torch.from_numpy(PIXELS[3]).permute(2, 0, 1))
    assert sample["valid"].all()
    assert (sample["gsd"], sample["label"]) == (0.5, 0)


def test_images_in_groups_are_classes(grouped):
    dataset = open_dataset(grouped, sensor="rgb_aerial", gsd="relative")
    assert dataset.classes == ["city", "field"]
    for i in range(7):
        place = dataset.paths.index(f"{grouped}::{('field', 'city')[i % 2]}/{i}")
        assert torch.equal(dataset[place]["image"], torch.from_numpy(PIXELS[i]).permute(2, 0, 1))
        assert dataset.labels[place] == (i + 1) % 2
    city = open_dataset(grouped, sensor="rgb_aerial", gsd="relative", hdf5_group="city")
    assert (len(city), city.classes) == (3, None)


def test_options_of_whole_images_work_here_too(stacked):
    cached = open_dataset(
        stacked, sensor="rgb_aerial", gsd=1.0, cache="memory", size=(6, 8), resize_mode="resize"
    )
    fresh = open_dataset(stacked, sensor="rgb_aerial", gsd=1.0, size=(6, 8), resize_mode="resize")
    batch = cached.get_batch([4, 1])
    assert torch.equal(batch["image"], collate([fresh[4], fresh[1]])["image"])
    assert batch["gsd"].tolist() == [2.0, 2.0]
    with pytest.raises(ImageryError, match="chip_size"):
        open_dataset(stacked, sensor="rgb_aerial", gsd=1.0, chip_size=8)


def test_bands_first_one_band_and_reflectances(tmp_path):
    sensor = Sensor(
        name="mine",
        bands=[{"name": n, "unit": "reflectance", "scale": 1e-4, "nodata": 0} for n in "abcd"],
    )
    stored = np.random.default_rng(1).integers(1, 10000, (3, 4, 6, 8), dtype=np.uint16)
    stored[1, 2, 3, 4] = 0
    with h5py.File(tmp_path / "first.h5", "w") as file:
        file["x"] = stored
    dataset = open_dataset(tmp_path / "first.h5", sensor=sensor, gsd=10)
    np.testing.assert_allclose(dataset[1]["image"].numpy(), stored[1] * 1e-4, rtol=1e-6)
    assert (~dataset[1]["valid"]).nonzero().tolist() == [[3, 4]]
    one = Sensor(name="one", bands=[{"name": "a", "unit": "linear"}])
    power = np.random.default_rng(1).random((3, 6, 8), dtype=np.float32)
    power[2, 0, 0] = np.nan
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["x"] = power
    dataset = open_dataset(tmp_path / "one.h5", sensor=one, gsd=10)
    assert len(dataset) == 3
    assert (~dataset[2]["valid"]).nonzero().tolist() == [[0, 0]]


def test_a_folder_of_files_is_one_data_set(stacked, tmp_path):
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["images"] = PIXELS[:2]
        file["labels"] = np.array([4, 3])
    dataset = open_dataset(tmp_path, sensor="rgb_aerial", gsd=1)
    assert len(dataset) == 9
    assert dataset.classes == ["0", "1", "2", "3", "4"]
    assert dataset.paths[0].endswith("b.hdf5::images[0]")


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_what_the_parent_reads(stacked, start):
    dataset = open_dataset(stacked, sensor="rgb_aerial", gsd=1)
    here = torch.stack([dataset[i]["image"] for i in range(7)])  # the file is open in this process now
    assert len(pickle.dumps(dataset)) < 20_000
    loader = DataLoader(
        dataset,
        2,
        num_workers=2,
        collate_fn=collate,
        multiprocessing_context=multiprocessing.get_context(start),
    )
    assert torch.equal(torch.cat([batch["image"] for batch in loader]), here)
    assert torch.equal(dataset[5]["image"], here[5])


def test_damage_is_a_problem_of_that_image(stacked):
    dataset = open_dataset(stacked, sensor="rgb_aerial", gsd=1)
    with h5py.File(stacked, "r") as file:
        chunk = file["train/images"].id.get_chunk_info(2)
    with stacked.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\0" * chunk.size)
    batch = collate([dataset[i] for i in range(4)])
    assert len(batch["image"]) == 3
    ((path, reason),) = batch["problems"]
    assert path == f"{stacked}::train/images[2]"
    assert "damaged" in reason


def test_files_that_are_none(tmp_path, stacked):
    cut = tmp_path / "cut.h5"
    cut.write_bytes(stacked.read_bytes()[:2000])
    with pytest.raises(ImageryError, match=r"cut\.h5: is not a whole HDF5 file"):
        open_dataset(cut, sensor="rgb_aerial", gsd=1)
    with pytest.raises(ImageryError, match="has no 'test'; there are note, train"):
        open_dataset(stacked, sensor="rgb_aerial", gsd=1, hdf5_group="test")
    with pytest.raises(ImageryError, match="no data set 'class'"):
        open_dataset(stacked, sensor="rgb_aerial", gsd=1, label_column="class")
    with pytest.raises(ImageryError, match="wants 4"):
        open_dataset(stacked, sensor="naip", gsd=1)


def test_what_in_a_file_is_no_image(tmp_path):
    path = tmp_path / "mixed.h5"
    with h5py.File(path, "w") as file:
        file["good"] = PIXELS[0]
        file["jpeg"] = np.void(b"\xff\xd8")
        file["curve"] = np.zeros(9)
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "x")
        layout = h5py.VirtualLayout((12, 16, 3), "u1")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (12, 16, 3))
        file.create_virtual_dataset("virtual", layout)
    dataset = open_dataset(path, sensor="rgb_aerial", gsd=1)
    assert dataset.paths == [f"{path}::good"]
    reasons = {name.split("::")[1]: reason for name, reason in dataset.problems}
    assert set(reasons) == {"jpeg", "curve", "virtual"}  # a link is not even looked at
    assert "other files" in reasons["virtual"]
    with h5py.File(path, "a") as file:
        file["a"] = PIXELS
        file["b"] = PIXELS
    with pytest.raises(ImageryError, match=r"several data sets of images \(/a, /b\)"):
        open_dataset(path, sensor="rgb_aerial", gsd=1)


def test_without_h5py_it_says_what_to_install(stacked, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ImageryError, match=r"'\.\[hdf5\]'"):
        open_dataset(stacked, sensor="rgb_aerial", gsd=1)


def test_an_archive_cannot_point_into_hdf5(stacked):
    with pytest.raises(ArchiveError, match="write them out"):
        preprocessing(open_dataset(stacked, sensor="rgb_aerial", gsd=1))

"""Data sets of whole images: layouts, determinism, caches, loaders, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from helpers.rasters import noise, write_tiff
from swath.datasets.csv_table import CsvManifest
from swath.datasets.folders import ClassFolder, UnlabeledFolderDataset
from swath.datasets.opening import ImageDataset, collate, detect_layout, open_dataset
from swath.errors import ImageryError
from swath.sensors.sensor import Sensor


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (24, 32), mode: str = "RGB") -> np.ndarray:
    """Write a random picture of size (height, width); lossless unless it is a JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = size if bands == 1 else (*size, bands)
    pixels = np.random.default_rng(seed).integers(1, 255, shape).astype(np.uint8)
    Image.fromarray(pixels, mode).save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    return pixels


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(4):
        picture(tmp_path / "forest" / f"{i}.png", i)
        picture(tmp_path / "water" / f"{i}.webp", 10 + i)
    picture(tmp_path / "field" / "deeper" / "0.jpg", 20)
    return tmp_path


def test_class_folder_reads_every_picture_as_it_is_stored(folder: Path) -> None:
    data = ClassFolder(folder, "rgb_aerial", gsd=0.3)
    assert isinstance(data, ImageDataset)
    assert data.classes == ["field", "forest", "water"]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert [Path(path).parent.name for path in data.paths[1:]] == ["forest"] * 4 + ["water"] * 4
    sample = data[1]
    with Image.open(data.paths[1]) as image:
        expected = np.asarray(image).transpose(2, 0, 1)
    assert sample["image"].dtype == torch.uint8
    assert np.array_equal(sample["image"].numpy(), expected)
    assert sample["valid"].all()
    assert sample["gsd"] == 0.3
    assert sample["sensor"] == "rgb_aerial"
    assert sample["label"] == 1


def test_a_batch_has_what_the_samples_have(folder: Path) -> None:
    data = ClassFolder(folder, "rgb_aerial", gsd=0.3)
    batch = collate([data[i] for i in (5, 0, -1)])
    assert batch["image"].shape == (3, 3, 24, 32)
    assert batch["valid"].shape == (3, 24, 32)
    assert batch["label"].tolist() == [2, 0, 2]
    assert batch["index"].tolist() == [5, 0, 8]
    assert batch["gsd"].dtype == torch.float32
    assert batch["key"].dtype == torch.int64
    assert "problems" not in batch


@pytest.mark.parametrize("fit", ["center_crop", "random_crop", "resize"])
def test_cached_batches_equal_those_read_from_files(folder: Path, fit: str) -> None:
    picture(folder / "water" / "large.png", 30, size=(40, 33))
    options = {"gsd": 0.5, "size": (20, 16), "resize_mode": fit, "seed": 3}
    from_files = ClassFolder(folder, "rgb_aerial", **options)
    cached = ClassFolder(folder, "rgb_aerial", cache="memory", **options)
    from_files.set_epoch(2)
    cached.set_epoch(2)
    indices = [9, 3, 3, 0]
    expected = collate([from_files[i] for i in indices])
    for batch in (cached.get_batch(indices), collate([cached[i] for i in indices])):
        assert batch.keys() == expected.keys()
        for key, value in expected.items():
            found = batch[key]  # type: ignore[literal-required]
            assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value


def test_resizing_changes_the_gsd_by_the_geometric_mean(folder: Path) -> None:
    data = ClassFolder(folder, "rgb_aerial", gsd=2.0, size=(12, 8), resize_mode="resize")
    assert data[0]["image"].shape == (3, 12, 8)
    assert data[0]["gsd"] == pytest.approx(2.0 * np.sqrt(24 / 12 * 32 / 8))


def test_cropping_does_not_change_the_gsd(folder: Path) -> None:
    data = ClassFolder(folder, "rgb_aerial", gsd=2.0, size=16)
    whole = ClassFolder(folder, "rgb_aerial", gsd=2.0)
    assert data[1]["gsd"] == 2.0
    assert torch.equal(data[1]["image"], whole[1]["image"][:, 4:20, 8:24])


def test_random_crops_depend_on_seed_epoch_and_index_only(folder: Path) -> None:
    data = ClassFolder(folder, "rgb_aerial", gsd=1.0, size=8, resize_mode="random_crop", seed=1)
    again = ClassFolder(folder, "rgb_aerial", gsd=1.0, size=8, resize_mode="random_crop", seed=1)
    first = [data[i]["image"] for i in range(len(data))]
    assert all(torch.equal(again[i]["image"], first[i]) for i in reversed(range(len(data))))
    data.set_epoch(1)
    assert any(not torch.equal(data[i]["image"], first[i]) for i in range(len(data)))
    data.set_epoch(0)
    assert all(torch.equal(data[i]["image"], first[i]) for i in range(len(data)))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_loader_workers_see_the_same_samples_and_the_epoch(folder: Path, context: str) -> None:
    data = ClassFolder(folder, "rgb_aerial", gsd=1.0, size=8, resize_mode="random_crop")
    loader = DataLoader(
        data, 4, collate_fn=collate, num_workers=2, multiprocessing_context=context, persistent_workers=True
    )
    for epoch in (0, 5):  # the workers of the first epoch go on into the second
        data.set_epoch(epoch)
        batches = list(loader)
        images = torch.cat([batch["image"] for batch in batches])
        keys = torch.cat([batch["key"] for batch in batches])
        expected = data.get_batch(range(len(data)))
        assert torch.equal(images, expected["image"])
        assert torch.equal(keys, expected["key"])


def test_transparency_becomes_invalid(tmp_path: Path) -> None:
    pixels = picture(tmp_path / "a.png", mode="RGBA")
    pixels[:5, :, 3] = 0
    Image.fromarray(pixels, "RGBA").save(tmp_path / "a.png")
    data = UnlabeledFolderDataset(tmp_path, "rgb_aerial", gsd=1.0)
    assert data[0]["image"].shape == (3, 24, 32)
    assert not data[0]["valid"][:5].any()
    assert data[0]["valid"][5:].all()


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    colours = Image.new("RGB", (32, 24), (10, 200, 30))
    colours.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png")
    image = UnlabeledFolderDataset(tmp_path, "rgb_aerial", gsd=1.0)[0]["image"]
    assert image[:, 0, 0].tolist() == [10, 200, 30]


def test_geotiffs_in_class_folders_tell_their_own_gsd(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    values = noise(3, 30, 30, np.uint8)
    write_tiff(tmp_path / "a" / "x.tif", values)
    data = ClassFolder(tmp_path, "rgb_aerial")
    assert data[0]["gsd"] == pytest.approx(10, rel=1e-3)
    assert np.array_equal(data[0]["image"].numpy(), values)


def test_scaled_sensors_give_float_in_their_unit_cached_or_not(tmp_path: Path) -> None:
    band = {"unit": "reflectance", "scale": 0.0001, "nodata": 0}
    sensor = Sensor.from_dict({"name": "two", "bands": [{"name": n, **band} for n in ("red", "nir")]})
    values = noise(2, 30, 30)
    values[1, 3, 4] = 0
    write_tiff(tmp_path / "x.tif", values, descriptions=("nir", "red"))
    for cache in ("none", "memory"):
        batch = UnlabeledFolderDataset(tmp_path, sensor, cache=cache).get_batch([0])
        assert batch["image"].dtype == torch.float32
        torch.testing.assert_close(batch["image"][0, 0], torch.from_numpy(values[1] * np.float32(0.0001)))
        assert not batch["valid"][0, 3, 4]
        assert batch["valid"].sum() == 30 * 30 - 1


# ------------------------------------------------------------------------------------------------ CSV


def table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["file,class,gsd_m,fold,scale", *lines]) + "\n", encoding="utf-8")
    return path


def test_csv_manifest_filters_rows_and_keeps_class_indices(folder: Path) -> None:
    manifest = table(
        folder / "index.csv",
        "forest/0.png,forest,0.5,train,0",
        "forest/1.png,forest,0.5,val,0",
        "water/0.webp,water,2.0,val,1",
        "field/deeper/0.jpg,field,1.0,train,1",
    )
    data = CsvManifest(manifest, "rgb_aerial", split="val")
    assert data.classes == ["field", "forest", "water"]
    assert data.labels is not None
    assert data.labels.tolist() == [1, 2]
    assert data.gsds.tolist() == [0.5, 2.0]
    assert data.columns["scale"] == ["0", "1"]
    assert len(CsvManifest(manifest, "rgb_aerial", filter={"scale": "1"})) == 2
    assert len(CsvManifest(manifest, "rgb_aerial", split="train", filter={"scale": ["0", "1"]})) == 2
    assert CsvManifest(manifest, "rgb_aerial", gsd="relative").gsds.tolist() == [1.0] * 4
    assert CsvManifest(manifest, "rgb_aerial", label_column=None).labels is None


def test_csv_rows_and_columns_stay_together_when_a_file_is_broken(folder: Path) -> None:
    (folder / "bad.png").write_bytes(b"")
    manifest = table(
        folder / "i.csv", "bad.png,water,1,a,7", "forest/0.png,forest,2,a,8", "water/0.webp,water,3,a,9"
    )
    data = CsvManifest(manifest, "rgb_aerial")
    assert data.gsds.tolist() == [2.0, 3.0]
    assert data.columns["scale"] == ["8", "9"]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]
    assert len(data.problems) == 1


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (["forest/0.png,forest,x,a,0"], {}, "line 2: gsd_m is 'x', not a number"),
        (["forest/0.png,forest,1,a"], {}, "line 2: not 5 values"),
        ([], {}, "has no rows"),
        (["forest/0.png,forest,1,a,0"], {"split": "train"}, "no row has .*'train'.* there are .*'a'"),
        (["forest/0.png,forest,1,a,0"], {"filter": {"scal": "0"}}, "no column 'scal'.* 'scale'"),
        (["forest/0.png,forest,1,a,0"], {"file_column": "files"}, "no column 'files'.* 'file'"),
        (["forest/0.png,forest,-1,a,0"], {}, "GSD of -1 is not a positive"),
        (["forest/0.png,forest,1,a,0", "./forest/0.png,water,1,a,0"], {}, "lines 2 and 3 .* two classes"),
    ],
)
def test_csv_errors_name_line_and_fix(
    folder: Path, lines: list[str], options: dict[str, object], message: str
) -> None:
    manifest = table(folder / "index.csv", *lines)
    with pytest.raises(ImageryError, match=message):
        CsvManifest(manifest, "rgb_aerial", **options)  # type: ignore[arg-type]


def test_a_file_listed_twice_counts_once(folder: Path) -> None:
    manifest = table(folder / "i.csv", "forest/0.png,forest,1,a,0", "forest/../forest/0.png,forest,1,a,0")
    data = CsvManifest(manifest, "rgb_aerial")
    assert len(data) == 1
    assert "is listed in line 2 already" in data.problems[0][1]


# --------------------------------------------------------------------------------------- bad input


def test_bad_files_are_left_out_and_explained(folder: Path) -> None:
    (folder / "forest" / "empty.png").write_bytes(b"")
    (folder / "forest" / "program.jpg").write_bytes(b"\x7fELF" + bytes(100))
    picture(folder / "forest" / "whole.jpg", 3)
    (folder / "forest" / "cut.jpg").write_bytes((folder / "forest" / "whole.jpg").read_bytes()[:900])
    (folder / "forest" / "._0.png").write_bytes(b"droppings of another system")
    data = ClassFolder(folder, "rgb_aerial", gsd=1.0, cache="memory")
    assert len(data) == 10
    reasons = {Path(path).name: reason for path, reason in data.problems}
    assert set(reasons) == {"empty.png", "program.jpg", "cut.jpg"}
    assert "0 bytes" in reasons["empty.png"]
    assert "program" in reasons["program.jpg"]
    assert "damaged or cut short" in reasons["cut.jpg"]
    for path, reason in data.problems:
        assert path in reason


def test_a_picture_that_breaks_while_reading_is_left_out_of_its_batch(folder: Path) -> None:
    picture(folder / "forest" / "whole.jpg", 3)
    head = (folder / "forest" / "whole.jpg").read_bytes()[:900]
    (folder / "forest" / "cut.jpg").write_bytes(head)
    data = ClassFolder(folder, "rgb_aerial", gsd=1.0)
    broken = [Path(path).name for path in data.paths].index("cut.jpg")
    batch = data.get_batch([0, broken, 1])
    assert batch["index"].tolist() == [0, 1]
    assert [Path(path).name for path, _ in batch["problems"]] == ["cut.jpg"]
    nothing = data.get_batch([broken])
    assert nothing["image"].shape == (0, 3, 24, 32)
    assert nothing["valid"].shape == (0, 24, 32)


def test_other_band_counts_are_an_error_that_names_both_files(folder: Path) -> None:
    picture(folder / "forest" / "grey.png", 3, mode="L")
    with pytest.raises(ImageryError, match=r"grey\.png has 1 bands.*1 of 10 files.*0\.jpg fits"):
        ClassFolder(folder, "rgb_aerial", gsd=1.0)


def test_a_type_that_the_sensor_does_not_have_is_an_error(tmp_path: Path) -> None:
    write_tiff(tmp_path / "x.tif", noise(3))
    with pytest.raises(ImageryError, match=r"x\.tif: .*uint8.*but the file holds uint16"):
        UnlabeledFolderDataset(tmp_path, "rgb_aerial")


def test_missing_gsd_names_the_file_and_the_fix(folder: Path) -> None:
    with pytest.raises(ImageryError, match=r"0\.jpg.*no georeference.*--gsd 0\.3.*--gsd relative"):
        ClassFolder(folder, "rgb_aerial")


def test_different_sizes_need_a_decision(folder: Path) -> None:
    picture(folder / "water" / "large.png", 30, size=(40, 33))
    with pytest.raises(ImageryError, match=r"32 x 24 in .* and 33 x 40 in .*large\.png.*size="):
        ClassFolder(folder, "rgb_aerial", gsd=1.0)
    smaller = ClassFolder(folder, "rgb_aerial", gsd=1.0, size=30)
    assert [Path(path).name for path in smaller.paths] == ["large.png"]
    assert len(smaller.problems) == 9


def test_a_picture_with_a_huge_header_is_refused_before_decoding(tmp_path: Path) -> None:
    import struct
    import zlib

    body = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    idat = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + idat)
    with pytest.raises(ImageryError, match=r"bomb\.png.*(too large|more than the limit)"):
        UnlabeledFolderDataset(tmp_path, "rgb_aerial", gsd=1.0)


@pytest.mark.parametrize("make", [ClassFolder, UnlabeledFolderDataset, open_dataset])
def test_no_images_found(tmp_path: Path, make: type) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ImageryError, match=r"no .*image.*\.jpg"):
        make(tmp_path, sensor="rgb_aerial")
    with pytest.raises(ImageryError, match="no such"):
        make(tmp_path / "nowhere", sensor="rgb_aerial")


def test_collate_refuses_a_mixture(folder: Path) -> None:
    data = ClassFolder(folder, "rgb_aerial", gsd=1.0)
    other = {**data[1], "sensor": "other"}
    with pytest.raises(ImageryError, match="one sensor"):
        collate([data[0], other])  # type: ignore[list-item]
    smaller = ClassFolder(folder, "rgb_aerial", gsd=1.0, size=8)
    with pytest.raises(ImageryError, match="different shapes"):
        collate([data[0], smaller[0]])


# --------------------------------------------------------------------------------------- open_dataset


def test_layouts_are_told_apart(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    flat = tmp_path_factory.mktemp("flat")
    picture(flat / "a.png")
    scenes = tmp_path_factory.mktemp("scenes")
    write_tiff(scenes / "a.tif", noise(3, dtype=np.uint8))
    assert detect_layout(folder) == "class_folder"
    assert detect_layout(flat) == "images"
    assert detect_layout(flat / "a.png") == "images"
    assert detect_layout(scenes) == "chips"
    assert detect_layout(scenes / "a.tif") == "chips"
    assert detect_layout(table(folder / "index.csv")) == "csv"
    assert isinstance(open_dataset(folder, sensor="rgb_aerial", gsd=1.0), ClassFolder)
    assert isinstance(open_dataset(flat / "a.png", sensor="rgb_aerial", gsd=1.0), UnlabeledFolderDataset)


def test_options_of_another_layout_are_refused(folder: Path) -> None:
    with pytest.raises(ImageryError, match=r"layout='class_folder', where split='x' means nothing.*'csv'"):
        open_dataset(folder, sensor="rgb_aerial", gsd=1.0, split="x")
    chips = open_dataset(folder, sensor="rgb_aerial", gsd=1.0, chip_size=8)
    assert len(chips) == 9 * 3 * 4
    assert len(open_dataset(folder, sensor="rgb_aerial", gsd=1.0, chip_size=8, cache="none")) == len(chips)
    with pytest.raises(ImageryError, match="layout='chips', where cache='memory' means nothing"):
        open_dataset(folder, sensor="rgb_aerial", gsd=1.0, chip_size=8, cache="memory")
    with pytest.raises(ImageryError, match="layout='class_folder', where chip_size=8 means nothing"):
        open_dataset(folder, sensor="rgb_aerial", gsd=1.0, chip_size=8, layout="class_folder")
    with pytest.raises(ImageryError, match=r"unknown option 'chipsize'.*'chip_size'"):
        open_dataset(folder, sensor="rgb_aerial", gsd=1.0, chipsize=3)
    assert len(open_dataset(folder, sensor="rgb_aerial", gsd=1.0, split=None, cache="none")) == 9


def test_training_on_pictures_needs_no_geodata_library(folder: Path) -> None:
    code = (
        "import sys; from swath.datasets.opening import open_dataset;"
        f"open_dataset({str(folder)!r}, sensor='rgb_aerial', gsd=1.0).get_batch([0, 1]);"
        "print([m for m in ('rasterio', 'pyproj', 'shapely', 'pyarrow') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_bytes_under_an_image_name_are_read_or_explained(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    tmp_path = tmp_path_factory.mktemp("fuzz")
    kind = data.draw(st.sampled_from(["png", "jpg", "webp"]))
    path = tmp_path / f"a.{kind}"
    picture(path)
    content = bytearray(path.read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    picture(tmp_path / "good.png")
    options = {"gsd": 1.0, "size": 4, "resize_mode": "resize", "cache": "memory"}
    try:
        found = UnlabeledFolderDataset(tmp_path, "rgb_aerial", **options)
    except ImageryError as error:  # a mutation can make another colour model of it, and that is an error
        if "a." not in str(error):
            raise
    else:
        assert len(found) + len(found.problems) == 2


def test_rsscn7_opens_as_its_readme_says(data_dir: Path) -> None:
    index = data_dir / "rsscn7" / "index.csv"
    if not index.exists():
        pytest.skip(f"{index} is not there")
    train = open_dataset(index, sensor="rgb_aerial", split="train")
    val = open_dataset(index, sensor="rgb_aerial", split="val", filter={"scale": "3"})
    assert (len(train), len(val)) == (7 * 4 * 60, 7 * 15)
    assert train.classes == val.classes
    assert not train.problems
    assert isinstance(val, CsvManifest)
    assert val.gsds == pytest.approx(2.15, abs=0.01)


def labelled_table(folder: Path, header: str, *rows: str) -> Path:
    for i in range(len(rows)):
        picture(folder / f"{i}.png", 10 * i)
    path = folder / "index.csv"
    path.write_text("\n".join([header, *(f"{i}.png,{row}" for i, row in enumerate(rows))]) + "\n")
    return path


def test_several_labels_in_one_column(tmp_path: Path) -> None:
    table = labelled_table(tmp_path, "file,labels", "water|road", "", "road | tree")
    data = CsvManifest(table, "rgb_aerial", "relative", label_column="labels", label_separator="|")
    assert data.classes == ["road", "tree", "water"]
    assert data.labels is not None
    assert data.labels.tolist() == [[1, 0, 1], [0, 0, 0], [1, 1, 0]]
    assert data[2]["label"].tolist() == [1, 1, 0]
    cached = CsvManifest(
        table, "rgb_aerial", "relative", label_column="labels", label_separator="|", cache="memory"
    )
    assert torch.equal(cached.get_batch([2, 0])["label"], data.get_batch([2, 0])["label"])


def test_a_column_a_label(tmp_path: Path) -> None:
    table = labelled_table(tmp_path, "file,tree,road", "1,0", "0,0", "true,1.0")
    data = CsvManifest(table, "rgb_aerial", "relative", label_column=["road", "tree"])
    assert data.classes == ["road", "tree"]
    assert data.labels is not None
    assert data.labels.tolist() == [[0, 1], [0, 0], [1, 1]]
    table = labelled_table(tmp_path, "file,tree,road", "1,0", "0,2", "1,1")
    with pytest.raises(ImageryError, match=r"line 3: road is '2'; of a column a label, 0 or 1"):
        CsvManifest(table, "rgb_aerial", "relative", label_column=["road", "tree"])
    with pytest.raises(ImageryError, match="separator="):
        CsvManifest(table, "rgb_aerial", "relative", label_column=["road", "tree"], label_separator=";")

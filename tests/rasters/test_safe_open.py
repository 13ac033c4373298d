"""Files from anywhere: told by their bytes, opened by one driver, refused with a reason and a fix."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.rasters import noise, write_tiff
from swath.errors import ImageryError
from swath.rasters import open_files
from swath.rasters.open_files import close_all, open_cached
from swath.rasters.read import PixelWindow, ReadLimits, read_header, read_window
from swath.rasters.safe_open import open_checked, sniff_driver


def refused(path: Path, *words: str) -> None:
    """The header or a full read must fail with a message that names the file and holds these words."""
    with pytest.raises(ImageryError) as error:
        read_window(read_header(path))
    for word in (str(path), *words):
        assert word in str(error.value)


# -------------------------------------------------------------------------------------------- by their bytes


@pytest.mark.parametrize("suffix", ["png", "jpeg", "webp", "tiff"])
def test_the_bytes_decide_and_not_the_name(tmp_path: Path, suffix: str) -> None:
    plain = tmp_path / f"image.{suffix}"
    Image.fromarray(noise(dtype=np.uint8).transpose(1, 2, 0)).save(plain)
    misnamed = plain.rename(tmp_path / "image.dat")
    assert sniff_driver(misnamed) == {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "tiff": "GTiff"}[suffix]
    header = read_header(misnamed)
    assert (header.width, header.height, header.bands, header.gsd) == (50, 40, 3, None)
    stored, valid = read_window(header)
    assert stored.shape == (3, 40, 50)
    assert valid.all()


def test_bigtiff_and_big_endian_are_tiffs(tmp_path: Path) -> None:
    values = noise()
    for name, options in (("big", {"BIGTIFF": "YES"}), ("endian", {"ENDIANNESS": "BIG"})):
        path = write_tiff(tmp_path / f"{name}.tif", values, **options)
        assert sniff_driver(path) == "GTiff"
        assert np.array_equal(read_window(read_header(path))[0], values)


VRT = (
    '<VRTDataset rasterXSize="20" rasterYSize="20"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    '<SourceFilename relativeToVRT="0">/etc/passwd</SourceFilename>'
    "</SimpleSource></VRTRasterBand></VRTDataset>"
)
FOREIGN = {
    "a VRT": (VRT.encode(), "virtual raster"),
    "a VRT with a declaration": (b'<?xml version="1.0"?>\n' + VRT.encode(), "virtual raster"),
    "a renamed Linux program": (b"\x7fELF" + bytes(200), "a program"),
    "a renamed Windows program": (b"MZ" + bytes(200), "a program"),
    "a script": (b"#!/bin/sh\nrm -rf .\n", "a program or script"),
    "a web page": (b"<!DOCTYPE html><html>404</html>", "web page"),
    "a Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "gdal_translate -of COG"),
    "JPEG 2000": (b"\x00\x00\x00\x0cjP  \r\n", "gdal_translate -of COG"),
    "a zip": (b"PK\x03\x04" + bytes(50), "Unpack it"),
    "zeros": (bytes(4096), "nothing but zero bytes"),
    "text": (b"hello", "not a TIFF"),
    "no bytes at all": (b"", "empty (0 bytes)"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_only_poses_as_a_tiff_is_refused_by_name(tmp_path: Path, what: str) -> None:
    content, words = FOREIGN[what]
    path = tmp_path / "scene.tif"
    path.write_bytes(content)
    refused(path, words)


def test_folders_pipes_and_missing_files_are_refused_and_do_not_hang(tmp_path: Path) -> None:
    refused(tmp_path, "folder")
    refused(tmp_path / "nowhere.tif", "No such file")
    os.mkfifo(tmp_path / "pipe.tif")
    refused(tmp_path / "pipe.tif", "not a regular file")


def test_names_that_gdal_could_take_for_something_else_are_just_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = write_tiff(tmp_path / "a.tif", noise())
    monkeypatch.chdir(tmp_path)
    for name in ("a?b#c.tif", "zip!x.tif", "GTIFF_DIR:1:a.tif", "50%25 é.tif", "vrt:x.tif", "-b.tif"):
        shutil.copy(original, name)
        assert read_header(name).width == 50


# ------------------------------------------------------------------------------------------- inside one file


def test_overviews_in_another_file_are_refused(tmp_path: Path) -> None:
    """GDAL opens whatever file a TIFF's metadata name there, and answers with its pixels."""
    import rasterio

    write_tiff(tmp_path / "private.tif", np.full((1, 20, 20), 77, np.uint8))
    path = write_tiff(tmp_path / "scene.tif", np.ones((1, 40, 40), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(tmp_path / "private.tif"))
    refused(path, "names another file", "gdal_translate -of COG")


def test_overviews_beside_an_image_are_listed_but_not_read(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "scene.tif", noise(1, 64, 64, np.uint8), nodata=0)
    before = read_header(path)
    shutil.copy(path, f"{path}.ovr")
    header = read_header(path)
    assert header.passed_over == (f"{path}.ovr",)
    assert (header.nodata, header.overviews) == (before.nodata, ())
    assert not (tmp_path / "scene.tfw").exists()


def test_reading_writes_nothing_beside_the_images(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "scene.tif", noise())
    read_window(read_header(path), out_shape=(4, 4))
    assert list(tmp_path.iterdir()) == [path]


def test_gdal_starts_without_the_drivers_that_reach_out() -> None:
    program = (
        "from swath.rasters.safe_open import rasterio_module\n"
        "with rasterio_module().Env() as env: names = set(env.drivers())\n"
        "assert {'GTiff', 'JPEG', 'PNG', 'WEBP', 'COG', 'MEM'} <= names, names\n"
        "assert not names & {'VRT', 'DERIVED', 'WMS', 'STACTA', 'HTTP', 'MRF', 'SENTINEL2'}, names\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --------------------------------------------------------------------------------------------------- damaged


def test_rasterios_corrupt_tif_is_refused(data_dir: Path) -> None:
    refused(data_dir / "geotiff_misc" / "rasterio" / "corrupt.tif", "Copy or download it again")


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.98])
@pytest.mark.parametrize("kind", ["deflate", "cog", "jpeg-in-tiff", "JPEG", "PNG", "WEBP"])
def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path: Path, kind: str, share: float) -> None:
    values = noise(3, 300, 300, np.uint8)
    path = tmp_path / "scene"
    if kind == "cog":
        write_tiff(path, values, driver="COG", compress="deflate", blocksize=128)
    elif kind == "jpeg-in-tiff":
        write_tiff(
            path, values, compress="jpeg", photometric="ycbcr", tiled=True, blockxsize=128, blockysize=128
        )
    elif kind == "deflate":
        write_tiff(path, values, compress="deflate")
    else:
        Image.fromarray(values.transpose(1, 2, 0)).save(path, format=kind)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    refused(path, "Copy or download it again")


def test_mutated_bytes_give_an_answer_or_an_error_but_never_a_crash(tmp_path: Path) -> None:
    good = write_tiff(
        tmp_path / "good.tif", noise(2, 64, 64), compress="lzw", tiled=True, blockxsize=16, blockysize=16
    )
    content = bytearray(good.read_bytes())
    random = np.random.default_rng(0)
    path = tmp_path / "mutant.tif"
    messages = []
    for _ in range(300):
        mutant = bytearray(content)
        for position in random.integers(0, min(len(mutant), 700), 3):
            mutant[position] = random.integers(0, 256)
        path.write_bytes(mutant)
        try:
            header = read_header(path)
            read_window(header, PixelWindow(0, 0, min(64, header.width), min(64, header.height)))
        except ImageryError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert all(str(path) in message for message in messages)


def test_a_header_bomb_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    """100,000 x 100,000 pixels and hardly a byte of them in the file: 10 GB if anyone believed it."""
    path = _sparse(tmp_path / "bomb.tif")
    assert path.stat().st_size < 5_000_000
    header = read_header(path)
    assert (header.width, header.height) == (100_000, 100_000)
    refused(path, "10,000,000,000 bytes", "windows")
    with pytest.raises(ImageryError, match=r"bomb.tif: 10,000,000,000 pixels would be decoded.*gdaladdo"):
        read_window(header, out_shape=(100, 100))
    stored, _ = read_window(header, PixelWindow(50_000, 50_000, 64, 64))  # what is small may be read
    assert stored.shape == (1, 64, 64)


def _sparse(path: Path) -> Path:
    import rasterio

    settings = {"tiled": True, "blockxsize": 512, "blockysize": 512, "SPARSE_OK": True, "compress": "deflate"}
    size = {"width": 100_000, "height": 100_000, "count": 1, "dtype": "uint8", "crs": "EPSG:32633"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", driver="GTiff", **size, **settings):
            pass
    return path


def test_a_block_bomb_is_refused(tmp_path: Path) -> None:
    """One tile over the whole image: its first pixel would cost all of it."""
    path = tmp_path / "tile.tif"
    tags = {
        256: 60_000,
        257: 60_000,
        258: 8,
        259: 8,
        262: 1,
        277: 1,
        322: 60_000,
        323: 60_000,
        324: 8,
        325: 100,
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    header = b"II*\x00" + struct.pack("<I", 200) + bytes(192)
    path.write_bytes(header + struct.pack("<H", len(tags)) + entries + bytes(4))
    refused(path, "one block has 60000 x 60000 pixels", "gdal_translate -of COG")


def test_a_png_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path = tmp_path / "bomb.png"
    size = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )
    refused(path, "without random access", "gdal_translate -of COG")


def test_limits_can_be_set(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(3))
    with pytest.raises(ImageryError, match="has 3 bands, the limit is 2"):
        read_header(path, limits=ReadLimits(bands=2))
    with pytest.raises(ImageryError, match="limit for one read is 1,000"):
        read_window(read_header(path), limits=ReadLimits(read_bytes=1000))


def test_complex_values_are_refused(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "slc.tif", np.ones((1, 8, 8), np.complex64))
    refused(path, "complex64", "amplitude or dB")


def test_color_tables_are_refused_as_imagery_and_taken_as_class_maps(tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    Image.fromarray(noise(dtype=np.uint8).transpose(1, 2, 0)).quantize(16).save(path)
    refused(path, "color table", "gdal_translate -expand rgb")
    assert read_window(read_header(path, palette="index"))[0].max() < 16


# ------------------------------------------------------------------------------------------------ open files


def test_files_stay_open_and_the_oldest_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "OPEN_FILES", 3)
    close_all()
    paths = [str(write_tiff(tmp_path / f"{i}.tif", noise(seed=i))) for i in range(5)]
    first = open_cached(paths[0])
    assert open_cached(paths[0]) is first
    for path in paths[1:]:
        open_cached(path)
    assert first.dataset.closed
    assert len(open_files._handles.files) == 3
    close_all()


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(seed=1))
    header = read_header(path)
    before, _ = read_window(header)
    write_tiff(tmp_path / "b.tif", noise(seed=2)).replace(path)
    after, _ = read_window(header)
    assert np.array_equal(before, noise(seed=1))
    assert np.array_equal(after, noise(seed=2))
    write_tiff(path, noise(1, 7, 7))
    with pytest.raises(ImageryError, match="has changed since its header was read"):
        read_window(header, PixelWindow(0, 0, 5, 5))
    path.unlink()
    with pytest.raises(ImageryError, match="No such file"):
        read_window(header)


def _sum_of(header: object, column: int) -> int:
    return int(read_window(header, PixelWindow(column, 0, 10, 40))[0].sum())  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_right_after_fork_and_spawn(tmp_path: Path, method: str) -> None:
    header = read_header(write_tiff(tmp_path / "a.tif", noise(), compress="deflate"))
    expected = [_sum_of(header, column) for column in range(0, 40, 2)]  # the parent holds the file open
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.starmap(_sum_of, [(header, column) for column in range(0, 40, 2)]) == expected
    assert [_sum_of(header, column) for column in range(0, 40, 2)] == expected


def test_threads_do_not_share_open_files(tmp_path: Path) -> None:
    path = str(write_tiff(tmp_path / "a.tif", noise()))
    found = [open_cached(path)]
    thread = threading.Thread(target=lambda: found.append(open_cached(path)))
    thread.start()
    thread.join()
    assert found[0] is not found[1]


def test_open_checked_leaves_nothing_open_after_a_refusal(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "slc.tif", np.ones((1, 8, 8), np.complex64))
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("no /proc here to count open files in")
    before = len(list(descriptors.iterdir()))
    for _ in range(5):
        with pytest.raises(ImageryError):
            open_checked(str(path))
    after = len(list(descriptors.iterdir()))
    assert after == before

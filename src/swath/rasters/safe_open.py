"""Opening a raster file that may come from anywhere.

GDAL opens over a hundred formats. Some of them (VRT, WMS, STACTA, ...) are small texts that make it read any
other local file or fetch from the network, and a file's name says nothing about its content. So here:

- the driver is chosen by the file's first bytes, among four, and only that driver may look at the file;
- GDAL reads no sidecar files; `swath.rasters.sidecars` reads masks and georeference beside an image;
- a TIFF whose metadata names an outside file as its overviews is refused (GDAL would open it);
- what a file claims in its header is checked against `ReadLimits` before anything is allocated.

Open files are kept in a small per-thread cache: GDAL datasets must not be shared between threads, and a
forked process must not use its parent's (they share one file position).
"""

from __future__ import annotations

import os
import re
import stat
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from swath.errors import ImageryError
from swath.rasters.remote import configure_http_retries, is_remote, to_vsi_path
from swath.rasters.sidecars import MASK, mask_beside


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much one file or one read may cost. The defaults fit whole Sentinel-2 tiles and stop bombs.

    Attributes:
        bands: Bands in a file.
        block_bytes: One block (tile or strip), which has to be decoded whole for its first pixel.
        whole_pixels: Pixels of a JPEG, PNG or WebP, which have to be decoded from the top.
        read_pixels: Pixels times bands decoded for one read, after the choice of an overview.
        read_bytes: Memory of the array that one read returns.
    """

    bands: int = 1024
    block_bytes: int = 512 * 2**20
    whole_pixels: int = 2**28
    read_pixels: int = 2**32
    read_bytes: int = 4 * 2**30


DEFAULT_LIMITS = ReadLimits()
BLOCK_CACHE = 256 * 2**20  # bytes of decoded blocks that GDAL keeps for each process

# Drivers that reach beyond the file that they are given (other files, network, scripts). They are taken out
# of GDAL before it starts up, and so from everything else in the process that uses rasterio; when rasterio
# has been started before Swath, they stay, and the rules above still hold for what Swath opens.
SKIPPED_DRIVERS = (
    "VRT", "DERIVED", "GTI", "STACIT", "STACTA", "WMS", "WCS", "WMTS", "HTTP", "EEDA", "EEDAI", "PLMOSAIC",
    "DAAS", "OGCAPI", "MRF", "KMLSUPEROVERLAY", "Rasterlite", "PostGISRaster", "GEORASTER", "SAFE",
    "SENTINEL2", "TIL", "DIMAP", "PDS4", "ESRIC", "OZI", "ISIS3", "VICAR",
)  # fmt: skip

# Each option keeps GDAL inside the one file.
_OPEN_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no search for sidecar files
    "GDAL_PAM_ENABLED": "NO",  # no .aux.xml, neither read nor written
    "GDAL_GEOREF_SOURCES": "INTERNAL",  # no world files
}

_MAGIC = (
    (re.compile(rb"II[*+]\x00|MM\x00[*+]"), "GTiff"),
    (re.compile(rb"\xff\xd8\xff"), "JPEG"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "PNG"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "WEBP"),
)
_CONVERT = "Convert it: gdal_translate -of COG {path} OUT.tif"
# What else it is, and what to do about it.
_FOREIGN = (
    (
        rb"\s*(<\?xml[^>]*>\s*)?<VRTDataset",
        f"a GDAL virtual raster, which can name any other file. {_CONVERT}",
    ),
    (rb"\s*<(!doctype html|html)", "a web page (a download that failed?). Download it again"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the file itself. Fetch it: git lfs pull"),
    (rb"\x7fELF|MZ|#!|\xcf\xfa\xed\xfe|\xca\xfe\xba\xbe", "a program or script, not an image"),
    (rb"\x89HDF", f"HDF5 or netCDF-4. {_CONVERT}"),
    (rb"CDF[\x01\x02\x05]", f"netCDF. {_CONVERT}"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", f"JPEG 2000. {_CONVERT}"),
    (rb"PK\x03\x04|\x1f\x8b|BZh|7z\xbc\xaf|\xfd7zXZ", "a compressed archive. Unpack it first"),
    (rb"GIF8|BM", f"GIF or BMP. {_CONVERT}"),
    (rb"%PDF", "a PDF. Export its images first"),
    (rb"\x00+\Z", "nothing but zero bytes (a copy that failed?). Copy or download it again"),
)


def sniff_driver(path: str | os.PathLike[str]) -> str:
    """The one GDAL driver that may open this file: "GTiff", "JPEG", "PNG" or "WEBP", by its first bytes.

    Raises:
        ImageryError: Not a readable regular file, empty, or of another kind (which is named).
    """
    path = os.fspath(path)
    try:
        # O_NONBLOCK: a named pipe must not hang us before it can be told from a file.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ImageryError(f"{path}: not a regular file. Give the path of an image file")
            head = file.read(512)
    except IsADirectoryError:
        raise ImageryError(f"{path}: a folder, not an image file") from None
    except OSError as error:
        raise ImageryError(f"{path}: cannot be opened: {error.strerror}") from None
    if not head:
        raise ImageryError(f"{path}: the file is empty (0 bytes). Copy or download it again")
    for magic, driver in _MAGIC:
        if magic.match(head):
            return driver
    for pattern, kind in _FOREIGN:
        if re.match(pattern, head, re.IGNORECASE):
            raise ImageryError(f"{path}: is {kind.format(path=path)}")
    raise ImageryError(
        f"{path}: not a TIFF, JPEG, PNG or WebP file (it begins with {head[:8]!r}). "
        f"If GDAL can read it, convert it: gdal_translate -of COG {path} OUT.tif"
    )


@cache
def rasterio_module() -> Any:
    """Rasterio, imported with GDAL's reaching drivers left out (on first use)."""
    from rasterio.env import get_gdal_config, set_gdal_config

    theirs = str(get_gdal_config("GDAL_SKIP") or "")
    skip = [*(theirs.split(",") if "," in theirs else theirs.split()), *SKIPPED_DRIVERS]
    set_gdal_config("GDAL_SKIP", ",".join(dict.fromkeys(skip)))
    # For the whole process, because it matters while reading: a damaged JPEG is an error, not a gray area.
    set_gdal_config("GDAL_ERROR_ON_LIBJPEG_WARNING", "TRUE")
    if "GDAL_CACHEMAX" not in os.environ:
        # GDAL's default is 5 % of the memory for *each* process, too much for a loader with many workers.
        set_gdal_config("GDAL_CACHEMAX", BLOCK_CACHE)
    import rasterio

    return rasterio


@contextmanager
def gdal_options() -> Iterator[None]:
    """GDAL options under which files are opened and header fields read."""
    with rasterio_module().Env(**_OPEN_OPTIONS):
        yield


# -------------------------------------------------------------------------------------------- one open file


@dataclass(slots=True)
class OpenRaster:
    """An open, checked file.

    Attributes:
        path: The file.
        dataset: rasterio's reader.
        driver: One of the four.
        bands: 1-based indexes of the image bands, without alpha.
        alpha: 1-based index of the alpha band, or None.
        masked: Whether the file holds a mask of its own.
        mask_beside: Path of the mask beside the file, or None.
        eight_bit: Whether values are 8 bits wide.
        palette: Whether the values are indexes into a color table.
    """

    path: str
    dataset: Any
    driver: str
    width: int
    height: int
    bands: tuple[int, ...]
    alpha: int | None
    masked: bool
    mask_beside: str | None
    eight_bit: bool
    palette: bool
    overviews: tuple[int, ...]
    limits: ReadLimits


_opening = threading.Lock()  # warning filters belong to the process


def _renew_lock() -> None:
    global _opening
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)  # another thread of the parent may have held it


def open_checked(path: str, limits: ReadLimits = DEFAULT_LIMITS, overview: int | None = None) -> OpenRaster:
    """Open `path` with the one driver its bytes call for, and check its header against the limits.

    Args:
        path: A local file, or the URL of a GeoTIFF (see `swath.rasters.remote`).
        limits: What the header may claim.
        overview: Index of the internal overview to open instead of the full image.

    Raises:
        ImageryError: Naming the file, what is wrong with it, and what to do.
    """
    rasterio = rasterio_module()
    options = {} if overview is None else {"overview_level": overview}
    if is_remote(path):
        configure_http_retries()
        driver, absolute = "GTiff", to_vsi_path(path)  # the driver itself looks at the first bytes
    else:
        driver, absolute = sniff_driver(path), _local_name(path)
    with translate_gdal_errors(path, "opened"):
        with gdal_options(), _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            dataset = rasterio.open(absolute, driver=driver, sharing=False, **options)
        try:
            with gdal_options():
                return _check(path, dataset, driver, limits)
        except BaseException:
            dataset.close()
            raise


@contextmanager
def translate_gdal_errors(path: str, doing: str) -> Iterator[None]:
    """Whatever rasterio raises for a file, damaged keys and texts included, as `damaged_file_error`."""
    try:
        yield
    except Exception as error:  # GDAL's own classes have no public base
        if isinstance(error, UnicodeDecodeError) or type(error).__module__.startswith("rasterio"):
            raise damaged_file_error(path, doing, error) from None
        raise


def _local_name(path: str) -> str:
    # An absolute path cannot be taken for a GDAL prefix such as "GTIFF_DIR:" or for a URL.
    absolute = str(Path(path).absolute())
    if absolute.startswith("/vsi"):
        raise ImageryError(
            f"{path}: GDAL's virtual file systems are not read. Copy the file to a local folder"
        )
    return absolute


def damaged_file_error(path: str, doing: str, error: BaseException) -> ImageryError:
    """The message for a file that GDAL gives up on."""
    cause = str(error.__cause__ or error).strip().replace("\n", " ")
    if is_remote(path):
        return ImageryError(
            f"{path}: cannot be {doing} as a GeoTIFF ({cause:.200}). Is the address right, and may you read "
            "it? A file that is damaged or of another format there has to be downloaded and converted"
        )
    cause = cause.replace(str(Path(path).absolute()), Path(path).name)
    codec = re.search(r"missing codec (\w+)", cause)
    if codec is not None:
        return ImageryError(
            f"{path}: is compressed with {codec[1]}, which this GDAL cannot decode. Write it again where it "
            "can be read, in another compression: rio convert --co compress=zstd"
        )
    keys = re.search(r"geo\w*(key|params)|\bKey \d+", cause, re.IGNORECASE)
    if keys is not None or isinstance(error, UnicodeDecodeError):
        what = "its GeoKeys (which say where it lies)" if keys is not None else "a text in it"
        return ImageryError(
            f"{path}: {what} cannot be read ({cause:.200}). Write it again from its source, or state its "
            "place anew: rio edit-info --crs --transform"
        )
    return ImageryError(
        f"{path}: damaged or truncated, cannot be {doing} ({cause:.200}). Copy or download it again"
    )


def _check(path: str, dataset: Any, driver: str, limits: ReadLimits) -> OpenRaster:
    outside = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE")
    if outside is not None:
        raise ImageryError(
            f"{path}: its metadata names another file ({outside!r:.80}) as its overviews, which GDAL would "
            f"open. Make overviews inside: gdal_translate -of COG {path} OUT.tif"
        )
    width, height, count = dataset.width, dataset.height, dataset.count
    if not 1 <= count <= limits.bands:
        raise ImageryError(
            f"{path}: has {count} bands, the limit is {limits.bands}. Select some: gdal_translate -b"
        )
    types = set(dataset.dtypes)
    if len(types) > 1 or not types <= REAL_TYPES:
        raise ImageryError(
            f"{path}: holds values of type {', '.join(sorted(types))}; real numbers of one type are wanted. "
            "Convert complex values to amplitude or dB first"
        )
    tall, wide = dataset.block_shapes[0]
    together = count if str(dataset.interleaving or "").lower().endswith("pixel") else 1
    size = _item_size(dataset.dtypes[0])
    if driver == "GTiff" and tall * wide * together * size > limits.block_bytes:
        raise ImageryError(
            f"{path}: one block has {wide} x {tall} pixels in {together} bands, more than "
            f"{limits.block_bytes:,} bytes to decode for a single pixel. Tile it: gdal_translate -of COG"
        )
    if driver != "GTiff" and width * height > limits.whole_pixels:
        raise ImageryError(
            f"{path}: {width} x {height} pixels in a format without random access, the limit is "
            f"{limits.whole_pixels:,} pixels. Tile it: gdal_translate -of COG"
        )
    meaning = [color.name for color in dataset.colorinterp]
    alpha = meaning.index("alpha") + 1 if "alpha" in meaning else None
    bands = tuple(i for i in range(1, count + 1) if meaning[i - 1] != "alpha")
    if not bands:
        raise ImageryError(f"{path}: has no band but transparency. Remove it")
    flags = {flag.name for flag in dataset.mask_flag_enums[bands[0] - 1]}
    if driver == "GTiff" and not is_remote(path):  # a range beyond the end of a remote file is an error
        _check_length(path, dataset)
    elif driver == "PNG":
        _check_png(path)
    return OpenRaster(
        path=path,
        dataset=dataset,
        driver=driver,
        width=width,
        height=height,
        bands=bands,
        alpha=alpha,
        masked="per_dataset" in flags and "alpha" not in flags,
        mask_beside=None if is_remote(path) or path.endswith(MASK) else mask_beside(path),
        eight_bit=dataset.dtypes[0] in ("uint8", "int8"),
        palette="palette" in meaning,
        overviews=tuple(int(factor) for factor in dataset.overviews(1)),
        limits=limits,
    )


REAL_TYPES = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"}


def _item_size(dtype: str) -> int:
    return int(re.sub(r"\D", "", dtype)) // 8


def _check_length(path: str, dataset: Any) -> None:
    """A cut-off TIFF with its directory in front opens well; its last block tells."""
    rows, columns = (-(-n // b) for n, b in zip(dataset.shape, dataset.block_shapes[0], strict=True))
    last = f"{columns - 1}_{rows - 1}"
    for band in {1, dataset.count}:
        offset = dataset.get_tag_item(f"BLOCK_OFFSET_{last}", "TIFF", bidx=band)
        size = dataset.get_tag_item(f"BLOCK_SIZE_{last}", "TIFF", bidx=band)
        end, length = int(offset or 0) + int(size or 0), Path(path).stat().st_size
        if end > length:
            raise ImageryError(
                f"{path}: truncated, its last block would end at byte {end:,} and the file has {length:,}. "
                "Copy or download it again"
            )


def _check_png(path: str) -> None:
    """A whole PNG ends in an IEND chunk; GDAL 3.10 answers the full read of a cut-off one with zeros."""
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        position = 8
        while position + 12 <= size:
            file.seek(position)
            length, kind = struct.unpack(">I4s", file.read(8))
            if kind == b"IEND":
                return
            position += 12 + length
    raise ImageryError(f"{path}: truncated, the PNG has no end (IEND). Copy or download it again")


# --------------------------------------------------------------------------------------------- open files

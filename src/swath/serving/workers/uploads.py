"""Untrusted images: decoded with limits in a separate process, then embedded.

The bytes are written to a file in a private folder. A worker process reads it by the rules of
`swath.rasters.safe_open` (one of four drivers, chosen by magic bytes; no VRT, no SVG, no sidecar files) with
limits of memory and CPU time, and returns plain pixels; if it crashes, the server continues. The model embeds
the pixels in a thread of the server.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from swath.errors import ImageryError, SwathError
from swath.rasters.safe_open import ReadLimits
from swath.serving.http.errors import ApiError, api_error_from
from swath.serving.settings import ServerSettings
from swath.serving.workers.archive_handle import ArchiveHandle

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext

    from swath.archive.query.image_query import QueryImage, QueryPreprocessing
    from swath.archive.query.query import Query

# Imported in a clean process from which workers are forked in milliseconds.
_PRELOADED = ["swath.serving.workers.uploads", "swath.archive.query.image_query"]
# The worker writes no files, but the epoch counter of a dataset is in shared memory, which is a file.
_COUNTER_BYTES = 4096
# The limits on memory and time are Linux's.
_STATM = Path("/proc/self/statm")
_LIMITED = importlib.util.find_spec("resource") is not None and _STATM.exists()


@contextmanager
def temporary_upload(file: BinaryIO) -> Iterator[Path]:
    """The uploaded bytes as a temporary file."""
    with tempfile.TemporaryDirectory(prefix="swath-upload-") as folder:
        path = Path(folder) / "image"
        with path.open("xb") as into:
            shutil.copyfileobj(file, into, 2**20)
        yield path


class SandboxedDecoder:
    """Runs a function on an untrusted file in a new process with limits.

    Args:
        settings: Limits of time and memory.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings

    @cached_property
    def _context(self) -> ForkServerContext:
        if not _LIMITED:
            raise ApiError(
                501,
                "this server accepts no images: its system cannot limit the process that would read them",
                "Search by the id of a chip, or run the server on Linux.",
            )
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOADED)
        return context

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Run `work(*arguments)` in a worker process; both must be picklable.

        Raises:
            ApiError: 422 for a file that cannot be read, 413 for one that exceeds the limits, 501 on a system
                without limits.
        """
        ours, theirs = self._context.Pipe(duplex=False)
        seconds, memory = self.settings.upload_seconds, self.settings.upload_memory
        process = self._context.Process(
            target=_limited,
            args=(theirs, seconds, memory, work, arguments),
            daemon=True,
            name="swath-decoder",
        )
        process.start()
        theirs.close()
        try:
            result = self._receive(ours, seconds)
        finally:
            process.kill()
            process.join()
            process.close()
            ours.close()
        if isinstance(result, ApiError):
            raise result
        return result

    @staticmethod
    def _receive(pipe: Connection, seconds: int) -> Any:
        over_limit = ApiError(
            413,
            "decoding the image exceeds the memory or time limit of this server",
            "Crop the image to the part to search for.",
        )
        if not pipe.poll(2 * seconds):  # wall-clock time; on a busy machine less CPU time
            return over_limit
        try:
            kind, result = pipe.recv()
        except (EOFError, OSError):  # killed by its limits or by a crash of a decoder
            return over_limit
        if kind == "memory":
            return over_limit
        if kind == "refused":
            return ApiError(*result)
        if kind == "failed":
            return ApiError(422, "the image cannot be read", "Convert it to a plain GeoTIFF, PNG or JPEG.")
        return result


def _limited(pipe: Connection, seconds: int, memory: int, work: Callable[..., Any], arguments: Any) -> None:
    """Entry point of the worker process."""
    import resource

    now = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_COUNTER_BYTES, _COUNTER_BYTES))
    names = [os.fspath(argument) for argument in arguments if isinstance(argument, Path)]
    try:
        message: tuple[str, Any] = ("done", work(*arguments))
    except MemoryError:
        message = ("memory", None)
    except SwathError as error:
        refusal = api_error_from(error, *names)
        message = ("refused", (422, refusal.detail, refusal.fix))
    except Exception:
        message = ("failed", None)
    pipe.send(message)
    pipe.close()


def _address_space() -> int:
    """Size of the address space of this process in bytes."""
    return int(_STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def upload_read_limits(settings: ServerSettings) -> ReadLimits:
    """Limits on the header of an uploaded raster."""
    return ReadLimits(
        bands=256,
        block_bytes=settings.upload_memory // 8,
        whole_pixels=settings.upload_pixels,
        read_pixels=settings.upload_pixels,
        read_bytes=settings.upload_memory // 4,
    )


class UploadEmbedder:
    """Turns uploaded images into queries: decodes, then embeds them.

    Args:
        archive: The archive and its model.
        settings: Limits.
    """

    def __init__(self, archive: ArchiveHandle, settings: ServerSettings) -> None:
        self.archive = archive
        self.settings = settings
        self.decoder = SandboxedDecoder(settings)

    def query(self, path: Path, sensor: str | None, gsd: float | None) -> Query:
        """The image at `path` as a query.

        Raises:
            ApiError: The image cannot be read, or does not fit the model.
        """
        from swath.archive.query.image_query import QueryPreprocessing, embed_query_image

        model = self.archive.model
        assert model is not None
        sensors = sorted(model.contract.sensors)
        if sensor is not None and sensor not in sensors:  # a name, never a sensor file on the server
            raise ApiError(
                422, f"the model does not support the sensor {sensor!r}", f"It supports {', '.join(sensors)}."
            )
        with self.archive.open() as archive:
            preprocessing = QueryPreprocessing.of(archive, model)
            chip = self.decoder.run(
                read_upload,
                path,
                preprocessing,
                sensor,
                gsd,
                self.settings.upload_pixels,
                upload_read_limits(self.settings),
            )
            return embed_query_image(model, chip)

    def warm(self) -> None:
        """Start the process that workers are forked from, so that the first upload does not wait for it."""
        if _LIMITED:
            self.decoder.run(os.getpid)


def read_upload(
    path: Path,
    preprocessing: QueryPreprocessing,
    sensor: str | None,
    gsd: float | None,
    max_pixels: int,
    limits: ReadLimits,
) -> QueryImage:
    """Read an image with the preprocessing of the archive; its header is checked before decoding."""
    from swath.archive.query.image_query import read_query_image
    from swath.rasters.header import read_header
    from swath.rasters.pillow_reader import read_image_header
    from swath.rasters.safe_open import sniff_driver

    if sniff_driver(path) == "GTiff":
        header = read_header(path, limits=limits)
        size = header.width * header.height * header.bands
    else:
        image = read_image_header(path, max_pixels=max_pixels)
        size = image.width * image.height * image.bands
    if size > max_pixels:
        raise ImageryError(
            f"{path}: the image has {size:,} pixels in all bands; this server reads at most {max_pixels:,}. "
            "Crop it to the part to search for."
        )
    return read_query_image(preprocessing, path, sensor=sensor, gsd=gsd)

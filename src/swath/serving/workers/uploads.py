"""An image from a stranger: decoded under limits in a process of its own, then embedded.

The bytes go to a file in a private folder under a name of ours. A worker process reads it by the rules of
`swath.rasters.safe_open` (one of four drivers, chosen by magic bytes; no VRT, no SVG, no sidecar) with limits
of memory and CPU time of its own, and sends back plain pixels; whatever happens to it, the server lives on.
The model then sees the pixels in the server's own thread for it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from swath.errors import ImageryError, SwathError
from swath.rasters.safe_open import ReadLimits
from swath.serving.http.errors import ApiError, api_error_from
from swath.serving.settings import ServerSettings
from swath.serving.workers.archive_handle import ArchiveHandle

if TYPE_CHECKING:
    from swath.archive.query.image_query import QueryImage, QueryPreprocessing
    from swath.archive.query.query import Query

# A clean process that has imported what is needed and from which workers are forked in milliseconds.
_PRELOADED = ["swath.serving.workers.uploads", "swath.archive.query.image_query"]
# The worker has nothing to write. A data set counts its epochs in shared memory, though, which is a file.
_COUNTER_BYTES = 4096


@contextmanager
def temporary_upload(file: BinaryIO) -> Iterator[Path]:
    """The uploaded bytes as a file that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="swath-upload-") as folder:
        path = Path(folder) / "image"
        with path.open("xb") as into:
            shutil.copyfileobj(file, into, 2**20)
        yield path


class SandboxedDecoder:
    """Runs one function on an untrusted file in a fresh process with limits.

    Args:
        settings: Seconds and bytes of memory.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def run(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """`work(*arguments)` in the worker; both have to be picklable.

        Raises:
            Refusal: 422 with what the worker says about the file, or what its end says; 413 for a file that
                needs more memory or time than is given.
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
            answer = self._answer(ours, seconds)
        finally:
            process.kill()
            process.join()
            process.close()
            ours.close()
        if isinstance(answer, ApiError):
            raise answer
        return answer

    @staticmethod
    def _answer(pipe: Connection, seconds: int) -> Any:
        too_much = ApiError(
            413,
            "the image needs more memory or time to read than this server gives",
            "send a smaller one: cut out the part that you want to search for",
        )
        if not pipe.poll(2 * seconds):  # of the clock; on a busy machine that is less of the CPU
            return too_much
        try:
            kind, answer = pipe.recv()
        except (EOFError, OSError):  # killed: by its limits, or by a fault in a decoder
            return too_much
        if kind == "memory":
            return too_much
        if kind == "refused":
            return ApiError(*answer)
        if kind == "failed":
            return ApiError(422, "the image cannot be read", "convert it to a plain GeoTIFF, PNG or JPEG")
        return answer


def _limited(pipe: Connection, seconds: int, memory: int, work: Callable[..., Any], arguments: Any) -> None:
    """What the worker process does."""
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
        message = ("refused", (422, refusal.what, refusal.fix))
    except Exception:
        message = ("failed", None)
    pipe.send(message)
    pipe.close()


def _address_space() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def upload_read_limits(settings: ServerSettings) -> ReadLimits:
    """What an uploaded raster's header may claim."""
    return ReadLimits(
        bands=256,
        block_bytes=settings.upload_memory // 8,
        whole_pixels=settings.upload_pixels,
        read_pixels=settings.upload_pixels,
        read_bytes=settings.upload_memory // 4,
    )


class UploadEmbedder:
    """Images into queries: the decoder, then the model.

    Args:
        holdings: The archive and its model.
        settings: Limits.
    """

    def __init__(self, handle: ArchiveHandle, settings: ServerSettings) -> None:
        self.handle = handle
        self.settings = settings
        self.decoder = SandboxedDecoder(settings)

    def query(self, path: Path, sensor: str | None, gsd: float | None) -> Query:
        """The image at `path` as a query.

        Raises:
            Refusal: It is no usable image, or does not fit the model.
        """
        from swath.archive.query.image_query import QueryPreprocessing, embed_query_image

        model = self.handle.model
        assert model is not None
        known = sorted(model.contract.sensors)
        if sensor is not None and sensor not in known:  # a name, and never a file of the server's
            raise ApiError(
                422, f"the model does not know the sensor {sensor!r}", f"it knows {', '.join(known)}"
            )
        with self.handle.archive() as archive:
            cutting = QueryPreprocessing.of(archive, model)
            chip = self.decoder.run(
                read_upload,
                path,
                cutting,
                sensor,
                gsd,
                self.settings.upload_pixels,
                upload_read_limits(self.settings),
            )
            return embed_query_image(model, chip)

    def warm(self) -> None:
        """Start the process that workers are forked from, so that the first upload need not wait for it."""
        self.decoder.run(os.getpid)


def read_upload(
    path: Path,
    cutting: QueryPreprocessing,
    sensor: str | None,
    gsd: float | None,
    max_pixels: int,
    limits: ReadLimits,
) -> QueryImage:
    """An image as the archive's chips are; its header is judged before anything is decoded."""
    from swath.archive.query.image_query import read_query_image
    from swath.rasters.header import read_header
    from swath.rasters.pillow_reader import read_image_header
    from swath.rasters.safe_open import sniff_driver

    if sniff_driver(path) == "GTiff":
        header = read_header(path, limits=limits)
        size = header.width * header.height * header.bands
    else:
        picture = read_image_header(path, max_pixels=max_pixels)
        size = picture.width * picture.height * picture.bands
    if size > max_pixels:
        raise ImageryError(
            f"{path}: has {size:,} pixels in all bands, this server reads at most {max_pixels:,}; cut "
            "out the part that you want to search for"
        )
    return read_query_image(cutting, path, sensor=sensor, gsd=gsd)

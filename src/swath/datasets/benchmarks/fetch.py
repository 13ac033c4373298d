"""From the address of a known set's archive to its class folders on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from swath.datasets.benchmarks.catalog import BenchmarkDataset, DatasetDownload, LocalBenchmark
from swath.datasets.download.http import DownloadedFile, Progress, download
from swath.datasets.download.unpack import DEFAULT_LIMITS, UnpackLimits, unpack
from swath.errors import ImageryError

Watch = Callable[[str], Progress]  # what is being done -> a callback of its bytes


@dataclass(frozen=True, slots=True)
class FetchedBenchmark:
    """A set that is ready to use.

    Attributes:
        local: Where.
        download: Its archive; None where the set was there already.
    """

    local: LocalBenchmark
    download: DownloadedFile | None


def fetch_benchmark(
    benchmark: BenchmarkDataset,
    out: str | Path,
    *,
    url: str | None = None,
    keep_archive: bool = False,
    limits: UnpackLimits = DEFAULT_LIMITS,
    watch: Watch | None = None,
) -> FetchedBenchmark:
    """Download a set's archive, verify it, unpack it to ``OUT/NAME``, and look whether the set is in it.

    Every step may be killed and taken up again by the same call. Where the set lies in `out` already, nothing
    is done.

    Args:
        benchmark: The set.
        out: Folder of data sets.
        url: Address or file, instead of the one that is known.
        keep_archive: Leave the archive in ``OUT/downloads``.
        limits: Of unpacking.
        watch: Gives a callback for each step.

    Raises:
        ImageryError: No address is known; not to be had; another checksum; refused members; another set.
    """
    out = Path(out)
    target = out / benchmark.name
    if target.is_dir():
        return FetchedBenchmark(benchmark.find(target), None)
    archive = _archive(benchmark, url)
    address = url or archive.url
    if address is None:
        raise ImageryError(
            f"no address is known from which a program may fetch it. {benchmark.how_to_get(out)}"
        )
    downloads = out / "downloads"
    fetched = download(
        address,
        downloads,
        name=archive.name,
        md5=archive.md5,
        sha256=archive.sha256,
        progress=watch(f"downloading {archive.name}") if watch else None,
    )
    unpack(
        fetched.path, target, limits=limits, progress=watch(f"unpacking {archive.name}") if watch else None
    )
    try:
        found = benchmark.find(target)
    except ImageryError:
        raise ImageryError(
            f"{archive.name} from {address} was unpacked to {target}, but {benchmark.title} is not in it: "
            f"folders called {', '.join(benchmark.classes[:3])}, ... are wanted. Look into it (there may be "
            "archives in the archive), or remove the folder and fetch from elsewhere"
        ) from None
    if not keep_archive:
        fetched.path.unlink()
    return FetchedBenchmark(found, fetched)


def _archive(known: BenchmarkDataset, url: str | None) -> DatasetDownload:
    """Which of the set's archives is meant: checksums belong to one of them."""
    if url is None:
        return next((archive for archive in known.downloads if archive.url), DatasetDownload(name="none"))
    name = Path(unquote(urlsplit(url).path)).name or f"{known.name}.zip"
    same = next((archive for archive in known.downloads if archive.name.casefold() == name.casefold()), None)
    return same or DatasetDownload(name=name)

"""Downloads that can be killed at any moment and go on where they stopped; a file appears whole or never.

Bytes go to ``NAME.part``; ``NAME.part.json`` beside it says which version of which address they are of. A
second attempt asks for the rest (HTTP ranges), on condition that the server still has the same version;
otherwise it begins anew. What is complete is compared with the checksum that somebody has published. Where
nobody has, the hash of the first download is written down in ``checksums.json`` and every later one of that
name is held against it (trust on first use).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from swath.errors import ImageryError
from swath.files import write_json

Progress = Callable[[int, int | None], None]  # (bytes there, bytes in all where known)

LEDGER = "checksums.json"
_CHUNK = 1 << 20
_TIMEOUT = 30.0  # seconds without a byte
_SCHEMES = ("http", "https", "file")


@dataclass(frozen=True, slots=True)
class DownloadedFile:
    """A file that is whole.

    Attributes:
        path: Where it lies.
        sha256: Of its bytes.
        checked: How its content is known to be right, in words.
        resumed: Bytes that an earlier attempt had brought already.
    """

    path: Path
    sha256: str
    checked: str
    resumed: int = 0


def download(
    url: str,
    folder: str | Path,
    *,
    name: str | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    progress: Progress | None = None,
    attempts: int = 4,
    max_bytes: int = 1 << 40,
) -> DownloadedFile:
    """Bring a file into `folder`, going on with what an earlier attempt has left there.

    Args:
        url: http, https or file; a path of this machine will do too.
        folder: Created if needed.
        name: Of the file; default: as the address says.
        md5: Published checksum; the file is refused if it has another.
        sha256: The same.
        progress: Called after every piece.
        attempts: Times that a broken connection is taken up again before giving up.
        max_bytes: Larger files are refused.

    Raises:
        ImageryError: Not to be had, too large, cut short (run again to go on), or with another checksum.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if Path(url).exists():
        url = Path(url).resolve().as_uri()
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES:
        raise ImageryError(f"{url}: an address with http, https or file is wanted, or a file that is there")
    target = folder / (name or Path(unquote(parts.path)).name or "download")
    if target.is_file():
        return DownloadedFile(target, *_verify(target, target.name, md5, sha256, url))
    part = _PartialDownload(target, url)
    resumed = part.size
    for attempt in range(attempts):
        try:
            _transfer(url, part, progress, max_bytes)
            break
        except _BrokenOffError as error:
            if attempt + 1 == attempts:
                raise ImageryError(
                    f"{url}: {error} after {part.size:,} bytes. What is there is kept in {part.path}; run "
                    "the command again to go on with it"
                ) from None
            time.sleep(min(8.0, 0.2 * 4**attempt))
    try:
        hashes = _verify(part.path, target.name, md5, sha256, url)
    except ImageryError:
        part.remove()  # wrong bytes are nothing to go on with
        raise
    part.path.replace(target)
    part.remove()
    return DownloadedFile(target, *hashes, resumed=resumed)


class _BrokenOffError(Exception):
    """The connection broke, or the server is busy: worth another attempt."""


class _PartialDownload:
    """Bytes that have arrived, and which version of the file they are of."""

    def __init__(self, target: Path, url: str) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._about = target.with_name(f"{target.name}.part.json")
        self._url = url
        self.validator: str | None = None
        try:
            about = json.loads(self._about.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            about = {}
        if about.get("url") == url and self.path.is_file():
            self.validator = about.get("validator")
        else:
            self.remove()

    @property
    def size(self) -> int:
        """Bytes there."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def begin(self, validator: str | None, *, anew: bool) -> IO[bytes]:
        """Open for writing, at the end or from the start."""
        if anew:
            self.path.unlink(missing_ok=True)
        self.validator = validator
        write_json(self._about, {"url": self._url, "validator": validator})
        return self.path.open("ab")

    def remove(self) -> None:
        """Forget everything."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)


def _transfer(url: str, part: _PartialDownload, progress: Progress | None, max_bytes: int) -> None:
    """Append what is missing of the file."""
    start = part.size
    request = urllib.request.Request(url, headers={"User-Agent": "swath", "Accept-Encoding": "identity"})
    web = not url.startswith("file:")
    # Without a validator the server cannot be asked whether it is still the same file: begin anew.
    if web and start and part.validator:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", part.validator)
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT)  # its scheme was checked
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing after what is there: the file is whole, or has changed
            total = _total_of(error.headers.get("Content-Range"))
            if total == start:
                return
            part.remove()
            raise _BrokenOffError("the file has changed on the server") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _BrokenOffError(f"the server says {error.code} {error.reason}") from None
        raise ImageryError(
            f"{url}: the server says {error.code} {error.reason}. Look for another address and give it with "
            "--url"
        ) from None
    except (urllib.error.URLError, OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if not web:
            raise ImageryError(f"{url}: cannot be read ({reason})") from None
        raise _BrokenOffError(f"no connection ({reason})") from None
    with answer:
        _receive(url, answer, part, start, progress, max_bytes)


def _receive(
    url: str, answer: Any, part: _PartialDownload, start: int, progress: Progress | None, max_bytes: int
) -> None:
    headers = answer.headers
    goes_on = getattr(answer, "status", 200) == 206 and _start_of(headers.get("Content-Range")) == start
    done = start if goes_on else 0
    length = headers.get("Content-Length")
    total = done + int(length) if length is not None and length.isdigit() else None
    if total is not None:
        free = shutil.disk_usage(part.path.parent).free
        if total > max_bytes:
            raise ImageryError(f"{url}: {total:,} bytes are more than the limit of {max_bytes:,}")
        if total - done > free:
            raise ImageryError(
                f"{url}: {total - done:,} bytes are missing, but {part.path.parent} has {free:,} free"
            )
    etag = headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None  # a weak one does not promise equal bytes
    with part.begin(strong or headers.get("Last-Modified"), anew=not goes_on) as file:
        while True:
            try:
                chunk = answer.read(_CHUNK)
            except (OSError, HTTPException) as error:
                raise _BrokenOffError(f"the connection broke ({type(error).__name__})") from None
            if not chunk:
                break
            file.write(chunk)
            done += len(chunk)
            if done > max_bytes:
                raise ImageryError(f"{url}: more than the limit of {max_bytes:,} bytes")
            if progress is not None:
                progress(done, total)
    if total is not None and done < total:
        raise _BrokenOffError(f"the connection ended before {total:,} bytes")


def _start_of(content_range: str | None) -> int | None:
    """First byte of ``bytes 100-199/1000``."""
    first = (content_range or "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdigit() else None


def _total_of(content_range: str | None) -> int | None:
    """1000 of ``bytes */1000``."""
    total = (content_range or "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _verify(path: Path, name: str, md5: str | None, sha256: str | None, url: str) -> tuple[str, str]:
    """The file's SHA-256, and how it is known to be right."""
    found = {kind: hashlib.new(kind, usedforsecurity=False) for kind in ("md5", "sha256")}
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            for digest in found.values():
                digest.update(chunk)
    own = {kind: digest.hexdigest() for kind, digest in found.items()}
    published = {kind: value for kind, value in (("md5", md5), ("sha256", sha256)) if value}
    for kind, value in published.items():
        if own[kind] != value.lower():
            raise ImageryError(
                f"{name} from {url}: its {kind} is {own[kind]}, but {value} is published. It is damaged or "
                "another file; it was not kept. Fetch it again, from elsewhere (--url) if it stays so"
                if path.suffix == ".part"
                else f"{path}: its {kind} is {own[kind]}, but {value} is published. It is damaged or another "
                "file: remove it and fetch it again"
            )
    if published:
        return own["sha256"], f"{' and '.join(published)} as published"
    return own["sha256"], _trust_on_first_use(path.parent / LEDGER, name, own["sha256"], url)


def _trust_on_first_use(ledger: Path, name: str, sha256: str, url: str) -> str:
    """Nobody publishes a checksum: hold it against the first download's, or write that down."""
    try:
        known = json.loads(ledger.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = {}
    except (OSError, ValueError) as error:
        raise ImageryError(f"{ledger}: cannot be read ({error}); mend it, or remove it") from None
    before = known.get(name)
    if before is None:
        write_json(ledger, {**known, name: {"sha256": sha256, "from": url}})
        return f"no checksum is published; this one is written down in {ledger} for the next time"
    if before["sha256"] != sha256:
        raise ImageryError(
            f"{name} from {url}: its sha256 is {sha256}, but the first download (from {before['from']}) had "
            f"{before['sha256']}. If the new one is right, take {name} out of {ledger}"
        )
    return "sha256 as of the first download"

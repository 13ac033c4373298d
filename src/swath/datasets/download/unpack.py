"""Archives of strangers, unpacked so that they can do no harm.

A member that would land outside of the target folder (absolute paths, ``..``), links, devices and more bytes
or files than were agreed are refused before anything is kept: the target appears whole or not at all.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from swath.errors import ImageryError
from swath.files import atomic_folder

Progress = Callable[[int, int | None], None]  # (bytes written, bytes in all)
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """How much an archive may hold: bytes after unpacking, files, and how many times its own size."""

    total_bytes: int = 500 * 2**30
    files: int = 5_000_000
    ratio: float = 200.0


DEFAULT_LIMITS = UnpackLimits()


@dataclass(frozen=True, slots=True)
class _Member:
    """A file of an archive: its checked path, its size as stated, and how to open it."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    archive: str | Path,
    target: str | Path,
    *,
    limits: UnpackLimits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Path:
    """Unpack a ZIP or TAR archive (also compressed) into the folder `target`.

    Returns:
        `target`.

    Raises:
        ImageryError: Not such an archive, damaged or cut short, or with members that are refused.
    """
    archive, target = Path(archive), Path(target)
    if target.exists():
        raise ImageryError(f"{target}: is there already; remove it, or unpack elsewhere")
    with ExitStack() as stack:
        try:
            members = list(_members(archive, stack, limits))
            total = sum(member.size for member in members)
            _check(archive, members, total, limits)
            with atomic_folder(target) as folder:
                _write(archive, members, folder, total, progress)
        except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError) as error:
            raise ImageryError(
                f"{archive}: is damaged or cut short ({error}); nothing was unpacked. Remove it and fetch it "
                "again"
            ) from None
        except OSError as error:  # no space left, no permission
            raise ImageryError(
                f"{archive}: cannot be unpacked into {target.parent} ({error.strerror}); nothing was kept"
            ) from None
    return target


def _members(archive: Path, stack: ExitStack, limits: UnpackLimits) -> Iterator[_Member]:
    """Its files; folders make themselves."""
    try:
        with archive.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ImageryError(f"{archive}: cannot be read ({error.strerror})") from None
    if head.startswith(b"Rar!") or head.startswith(b"7z\xbc\xaf"):
        kind = "RAR" if head.startswith(b"Rar!") else "7z"
        raise ImageryError(
            f"{archive}: is a {kind} archive, which Swath does not unpack. Unpack it yourself (with unar, "
            "bsdtar or 7z), and name the folder with --data-root"
        )
    if zipfile.is_zipfile(archive):
        opened = stack.enter_context(zipfile.ZipFile(archive))
        for info in opened.infolist():
            mode = info.external_attr >> 16
            if info.is_dir():
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise ImageryError(f"{archive}: {info.filename!r} is a link or a device; refused")
            if info.flag_bits & 1:
                raise ImageryError(
                    f"{archive}: {info.filename!r} is encrypted; ask its authors for the files"
                )
            yield _Member(_safe(archive, info.filename), info.file_size, partial(opened.open, info))
        return
    if head.startswith(b"PK"):
        raise zipfile.BadZipFile("a ZIP archive without its end")
    if not tarfile.is_tarfile(archive):
        raise ImageryError(f"{archive}: is neither a ZIP nor a TAR archive")
    tar = stack.enter_context(tarfile.open(archive))  # noqa: SIM115 (the stack closes it)
    for count, member in enumerate(tar):
        if count > limits.files:
            raise ImageryError(f"{archive}: more than {limits.files:,} members; refused")
        if member.isdir():
            continue
        if not member.isreg():
            raise ImageryError(f"{archive}: {member.name!r} is a link or a device; refused")
        yield _Member(_safe(archive, member.name), member.size, partial(_open_tar, tar, member))


def _open_tar(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    opened = tar.extractfile(member)
    assert opened is not None  # a regular file
    return opened


def _safe(archive: Path, name: str) -> PurePosixPath:
    """The member's path below the target."""
    path = PurePosixPath(name.replace("\\", "/"))
    harmless = path.parts and not path.is_absolute() and ".." not in path.parts
    if not harmless or ":" in path.parts[0] or "\0" in name:
        raise ImageryError(f"{archive}: member {name!r} would land outside of the folder; refused")
    return path


def _check(archive: Path, members: list[_Member], total: int, limits: UnpackLimits) -> None:
    if not members:
        raise ImageryError(f"{archive}: is empty")
    if len(members) > limits.files:
        raise ImageryError(f"{archive}: {len(members):,} files are more than the limit of {limits.files:,}")
    if total > limits.total_bytes:
        raise ImageryError(
            f"{archive}: {total:,} bytes unpacked are more than the limit of {limits.total_bytes:,}"
        )
    packed = archive.stat().st_size
    if total > 2**20 and total > limits.ratio * packed:
        raise ImageryError(
            f"{archive}: {total:,} bytes in {packed:,} are no imagery (a decompression bomb?); refused"
        )


def _write(
    archive: Path, members: list[_Member], folder: Path, total: int, progress: Progress | None
) -> None:
    done = 0
    for member in members:
        path = folder / member.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, path.open("xb") as file:
                written = 0
                while chunk := source.read(_CHUNK):
                    written += len(chunk)
                    if written > member.size:  # the header lied
                        raise ImageryError(f"{archive}: {member.path} is larger than it says; refused")
                    file.write(chunk)
        except (FileExistsError, NotADirectoryError):
            raise ImageryError(f"{archive}: {member.path} is in it twice, or as file and folder") from None
        done += written
        if progress is not None:
            progress(done, total)

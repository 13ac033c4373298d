"""Archives that mean harm, or are broken, leave nothing behind."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from swath.datasets.download.unpack import UnpackLimits, unpack
from swath.errors import ImageryError


def zipped(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def test_zip_and_tar_are_unpacked(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", **{"set/forest/1.png": b"1", "set/water/2.png": b"22"})
    seen: list[tuple[int, int | None]] = []
    folder = unpack(archive, tmp_path / "a", progress=lambda *step: seen.append(step))
    assert (folder / "set" / "water" / "2.png").read_bytes() == b"22"
    assert seen[-1] == (3, 3)
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(folder / "set", "set")
    other = unpack(tmp_path / "b.tar.gz", tmp_path / "b")
    assert (other / "set" / "forest" / "1.png").read_bytes() == b"1"
    with pytest.raises(ImageryError, match="is there already"):
        unpack(archive, folder)


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "set/../../evil.txt", "C:/evil.txt", "..\\evil.txt", "set/.."]
)
def test_members_outside_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    archive = zipped(tmp_path / "a.zip", **{"good.png": b"1", name: b"evil"})
    with pytest.raises(ImageryError, match="outside of the folder"):
        unpack(archive, tmp_path / "in" / "out")
    assert not list(tmp_path.rglob("evil.txt"))
    assert not (tmp_path / "in" / "out").exists()


def test_links_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(ImageryError, match="is a link"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
    with pytest.raises(ImageryError, match="is a link"):
        unpack(tmp_path / "b.tar", tmp_path / "out")


def test_tar_members_outside_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        member = tarfile.TarInfo("../evil.txt")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(ImageryError, match="outside of the folder"):
        unpack(tmp_path / "b.tar", tmp_path / "out")


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.99])
def test_truncated_archives_leave_nothing(tmp_path: Path, fraction: float) -> None:
    whole = zipped(tmp_path / "w.zip", **{f"{i}.bin": bytes(range(256)) * 40 for i in range(20)}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(ImageryError, match="damaged or cut short"):
        unpack(tmp_path / "cut.zip", tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.zip", "w.zip"]


def test_damaged_members_leave_nothing(tmp_path: Path) -> None:
    data = bytearray(zipped(tmp_path / "w.zip", **{"a.bin": bytes(range(256)) * 400}).read_bytes())
    data[200] ^= 0xFF
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(ImageryError, match="damaged"):
        unpack(tmp_path / "bad.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bombs_and_too_much_are_refused(tmp_path: Path) -> None:
    bomb = zipped(tmp_path / "bomb.zip", zeros=bytes(50_000_000))
    with pytest.raises(ImageryError, match="bomb"):
        unpack(bomb, tmp_path / "out")
    many = zipped(tmp_path / "many.zip", **{str(i): b"x" for i in range(20)})
    with pytest.raises(ImageryError, match="20 files are more than the limit of 10"):
        unpack(many, tmp_path / "out", limits=UnpackLimits(files=10))
    with pytest.raises(ImageryError, match="more than the limit of 5"):
        unpack(many, tmp_path / "out", limits=UnpackLimits(total_bytes=5))


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "a.rar").write_bytes(b"Rar!\x1a\x07\x00" + bytes(100))
    with pytest.raises(ImageryError, match=r"RAR archive.*unar, bsdtar or 7z"):
        unpack(tmp_path / "a.rar", tmp_path / "out")
    (tmp_path / "page.zip").write_text("<html>please log in</html>")
    with pytest.raises(ImageryError, match="neither a ZIP nor a TAR"):
        unpack(tmp_path / "page.zip", tmp_path / "out")
    with pytest.raises(ImageryError, match="is empty"):
        unpack(zipped(tmp_path / "e.zip"), tmp_path / "out")

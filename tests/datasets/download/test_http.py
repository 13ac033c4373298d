"""Downloads from a real server: killed, cut short, changed on the way, damaged; nothing half is ever kept."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.range_server import Server, serve
from swath.datasets.download import http as fetching
from swath.datasets.download.http import LEDGER, download
from swath.errors import ImageryError


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "served").mkdir()
    with serve(tmp_path / "served") as running:
        yield running


@pytest.fixture
def data(server: Server) -> bytes:
    data = os.urandom(3_000_000)
    (server.folder / "set.zip").write_bytes(data)
    return data


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching.time, "sleep", lambda seconds: None)


def test_a_file_arrives_whole_and_progress_is_told(server: Server, data: bytes, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    got = download(f"{server.url}/set.zip", tmp_path / "out", progress=lambda *step: seen.append(step))
    assert got.path.read_bytes() == data
    assert got.sha256 == hashlib.sha256(data).hexdigest()
    assert seen[-1] == (len(data), len(data))
    assert [step[0] for step in seen] == sorted(step[0] for step in seen)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [LEDGER, "set.zip"]


def test_what_is_there_is_not_fetched_again(server: Server, data: bytes, tmp_path: Path) -> None:
    download(f"{server.url}/set.zip", tmp_path)
    download(f"{server.url}/set.zip", tmp_path)
    assert len(server.requests) == 1


def test_a_broken_connection_is_taken_up_where_it_broke(server: Server, data: bytes, tmp_path: Path) -> None:
    server.cut_after = 1_200_000
    got = download(f"{server.url}/set.zip", tmp_path)
    assert got.path.read_bytes() == data
    assert [r[2] for r in server.requests] == [200, 206, 206]
    assert server.requests[1][1] == "bytes=1200000-"


def test_after_giving_up_the_next_call_goes_on(server: Server, data: bytes, tmp_path: Path) -> None:
    server.cut_after = 1_000_000
    with pytest.raises(ImageryError, match=r"after 1,000,000 bytes.*run the command again"):
        download(f"{server.url}/set.zip", tmp_path, attempts=1)
    server.cut_after = None
    got = download(f"{server.url}/set.zip", tmp_path)
    assert got.resumed == 1_000_000
    assert got.path.read_bytes() == data


def test_a_killed_download_resumes(server: Server, data: bytes, tmp_path: Path) -> None:
    """Killed by SIGKILL in the middle, as a machine that is switched off."""
    server.pause = 0.02
    program = "from swath.datasets.download.http import download; "
    program += f"download({server.url + '/set.zip'!r}, {str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", program])
    part = tmp_path / "set.zip.part"
    for _ in range(500):
        if part.is_file() and part.stat().st_size > 500_000:
            break
        threading.Event().wait(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "set.zip").exists()
    there = part.stat().st_size
    assert 0 < there < len(data)
    server.pause = 0.0
    got = download(f"{server.url}/set.zip", tmp_path)
    assert got.resumed == there
    assert server.requests[-1] == ("/set.zip", f"bytes={there}-", 206)
    assert got.path.read_bytes() == data


def test_a_file_that_changed_meanwhile_is_begun_anew(server: Server, data: bytes, tmp_path: Path) -> None:
    server.cut_after = 1_000_000
    with pytest.raises(ImageryError):
        download(f"{server.url}/set.zip", tmp_path, attempts=1)
    server.cut_after = None
    changed = os.urandom(2_000_000)
    (server.folder / "set.zip").write_bytes(changed)
    assert download(f"{server.url}/set.zip", tmp_path).path.read_bytes() == changed
    assert server.requests[-1][2] == 200


def test_a_server_without_ranges_is_asked_from_the_start(server: Server, data: bytes, tmp_path: Path) -> None:
    server.ranges, server.cut_after = False, 1_000_000
    with pytest.raises(ImageryError):
        download(f"{server.url}/set.zip", tmp_path, attempts=1)
    server.cut_after = None
    assert download(f"{server.url}/set.zip", tmp_path).path.read_bytes() == data


def test_killed_after_the_last_byte(server: Server, data: bytes, tmp_path: Path) -> None:
    server.cut_after = 1_000_000
    with pytest.raises(ImageryError):
        download(f"{server.url}/set.zip", tmp_path, attempts=1)
    (tmp_path / "set.zip.part").write_bytes(data)
    server.cut_after = None
    assert download(f"{server.url}/set.zip", tmp_path).path.read_bytes() == data
    assert server.requests[-1][2] == 416


def test_busy_servers_are_asked_again_and_refusals_are_final(
    server: Server, data: bytes, tmp_path: Path
) -> None:
    server.fail = [503, 429]
    download(f"{server.url}/set.zip", tmp_path)
    assert [r[2] for r in server.requests] == [503, 429, 200]
    with pytest.raises(ImageryError, match=r"404 Not Found.*--url"):
        download(f"{server.url}/gone.zip", tmp_path)
    assert len(server.requests) == 4


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_wrong_checksum_is_refused_and_nothing_kept(
    server: Server, data: bytes, tmp_path: Path, kind: str
) -> None:
    right, out = hashlib.new(kind, data).hexdigest(), tmp_path / "out"
    with pytest.raises(ImageryError, match=f"its {kind} is {right}, but .* is published"):
        download(f"{server.url}/set.zip", out, **{kind: "0" * len(right)})
    assert list(out.iterdir()) == []
    got = download(f"{server.url}/set.zip", out, **{kind: right})
    assert got.checked == f"{kind} as published"
    got.path.write_bytes(b"rotten")
    with pytest.raises(ImageryError, match="remove it and fetch it again"):
        download(f"{server.url}/set.zip", out, **{kind: right})


def test_without_a_published_checksum_the_first_download_is_trusted(
    server: Server, data: bytes, tmp_path: Path
) -> None:
    first = download(f"{server.url}/set.zip", tmp_path)
    assert "no checksum is published" in first.checked
    assert json.loads((tmp_path / LEDGER).read_text())["set.zip"]["sha256"] == first.sha256
    first.path.unlink()
    assert download(f"{server.url}/set.zip", tmp_path).checked == "sha256 as of the first download"
    first.path.unlink()
    (server.folder / "set.zip").write_bytes(b"another")
    with pytest.raises(ImageryError, match=f"the first download .* had {first.sha256}"):
        download(f"{server.url}/set.zip", tmp_path)


def test_files_of_this_machine_go_the_same_way(data: bytes, server: Server, tmp_path: Path) -> None:
    got = download(str(server.folder / "set.zip"), tmp_path / "out")
    assert got.path.read_bytes() == data
    with pytest.raises(ImageryError, match="an address with http, https or file"):
        download("ftp://somewhere/set.zip", tmp_path)
    with pytest.raises(ImageryError, match="an address"):
        download(str(tmp_path / "gone.zip"), tmp_path)


def test_limits_and_dead_servers(server: Server, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="more than the limit of 1,000"):
        download(f"{server.url}/set.zip", tmp_path, max_bytes=1000)
    with pytest.raises(ImageryError, match="no connection"):
        download("http://127.0.0.1:9/set.zip", tmp_path, attempts=2)

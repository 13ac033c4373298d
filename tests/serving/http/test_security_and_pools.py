"""What is refused before the work, and what happens when there is too much of it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from swath.errors import (
    ArchiveError,
    ArchiveUnavailable,
    ChipNotFound,
    ImageryError,
    InvalidQuery,
    SwathError,
)
from swath.serving.http.errors import ApiError, api_error_from, redact_paths
from swath.serving.http.query_types import parse_interval
from swath.serving.http.schemas import Filters, SearchRequest
from swath.serving.http.security import SecurityMiddleware
from swath.serving.server import serve
from swath.serving.settings import ServerSettings, check_access, host_names
from swath.serving.workers.uploads import SandboxedDecoder
from swath.serving.workers.worker_pool import WorkerPool

# --- middleware ---------------------------------------------------------------------------------------------


def through_middleware(
    settings: ServerSettings,
    body: list[bytes],
    *,
    path: str = "/api/search",
    pause: float = 0,
    **headers: str,
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a POST whose body comes in pieces, to an app that reads all of it and says so."""
    pieces = list(body)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(pause)
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(_: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RuntimeError("the client has gone")
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    given = {"host": "localhost:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {
        "type": "http", "path": path, "method": "POST", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }  # fmt: skip
    asyncio.run(SecurityMiddleware(app, settings)(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(content)


def test_bodies_are_counted_while_they_come() -> None:
    settings = ServerSettings(body_bytes=100, upload_bytes=1000)
    assert through_middleware(settings, [b"x" * 50, b"x" * 50])[0] == 200
    status, told = through_middleware(settings, [b"x" * 50, b"x" * 51])
    assert (status, "100 bytes" in told["detail"]) == (413, True)
    assert through_middleware(settings, [b"x" * 1100], path="/api/search/image")[0] == 200
    assert through_middleware(settings, [b"x" * 1101], path="/api/search/image")[0] == 413
    assert through_middleware(settings, [b""], content_length="101")[0] == 413
    assert through_middleware(settings, [b""], content_length="-1")[0] == 400
    assert through_middleware(settings, [b""], content_length="9" * 400)[0] == 413


def test_bodies_have_to_come_in_time() -> None:
    status, told = through_middleware(ServerSettings(receive_seconds=0.1), [b"x"] * 10, pause=0.05)
    assert status == 408
    assert "did not arrive" in told["detail"]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer wrong"}, 401),
        ({"authorization": "Basic 0123456789abcdef"}, 401),
        ({"authorization": "0123456789abcdef"}, 401),
        ({"authorization": "Bearer 0123456789abcdef"}, 200),
        ({"authorization": "bearer 0123456789abcdef"}, 200),
    ],
)
def test_the_token(header: dict[str, str], status: int) -> None:
    assert through_middleware(ServerSettings(token="0123456789abcdef"), [b""], **header)[0] == status


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:99", 200),
        ("[::1]:8000", 200),
        ("LOCALHOST:1", 200),
        ("maps.example.org:443", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("localhost:evil.example", 421),
        ("", 421),
    ],
)
def test_host_names(host: str, status: int) -> None:
    settings = ServerSettings(hosts=host_names("127.0.0.1", ["maps.example.org"]))
    assert through_middleware(settings, [b""], host=host)[0] == status


def test_access_needs_a_token_beyond_this_machine() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        check_access(host, None)
    for host in ("0.0.0.0", "::", "192.168.1.2", "example.org"):
        with pytest.raises(SwathError, match="token"):
            check_access(host, None)
        check_access(host, "0123456789abcdef")
    for weak in ("", "short", "0123456789 abcdef", "0123456789abcdé"):
        with pytest.raises(SwathError, match="at least 16"):
            check_access("127.0.0.1", weak)


# --- pools ------------------------------------------------------------------------------------------------


def test_a_full_lane_says_so_and_a_slow_one_gives_up() -> None:
    pool = WorkerPool("test", threads=1, max_queue=1, seconds=0.3)
    hold = threading.Event()

    async def crowd() -> list[Any]:
        first = asyncio.create_task(pool.run(hold.wait, 5))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(pool.run(lambda: 2))
        await asyncio.sleep(0.05)
        with pytest.raises(ApiError) as full:
            await pool.run(lambda: 3)
        assert full.value.status == 503
        assert full.value.headers["Retry-After"] == "2"
        results = await asyncio.gather(first, second, return_exceptions=True)
        hold.set()
        await asyncio.sleep(0.2)
        assert pool.pending == 0  # what was given up is counted until it has really ended
        assert await pool.run(lambda: 4) == 4
        return results

    results = asyncio.run(crowd())
    assert all(isinstance(result, ApiError) and result.status == 504 for result in results)
    pool.close()


def test_errors_of_the_work_come_out_and_leave_the_lane_free() -> None:
    pool = WorkerPool("test", threads=1, max_queue=0, seconds=5)

    async def ask() -> None:
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                await pool.run(lambda: 1 // 0)
            await asyncio.sleep(0.01)

    asyncio.run(ask())
    pool.close()


# --- the worker process -----------------------------------------------------------------------------------


def eats_memory() -> int:
    return len(b"x" * (4 * 2**30))


def eats_time() -> None:
    while True:
        pass


def sleeps() -> None:
    time.sleep(60)


def dies() -> None:
    os.kill(os.getpid(), 11)


def writes(path: Path) -> None:
    path.write_bytes(b"x" * 2**20)


def refuses(path: Path) -> None:
    raise ImageryError(f"{path}: is odd; do otherwise")


def fails() -> None:
    raise RuntimeError("secret")


def test_a_worker_that_goes_wrong_is_ended(tmp_path: Path) -> None:
    assert SandboxedDecoder(ServerSettings()).run(max, 3, 4) == 4
    decoder = SandboxedDecoder(ServerSettings(upload_seconds=1, upload_memory=2**30))
    for work in (eats_memory, eats_time, sleeps, dies):
        began = time.monotonic()
        with pytest.raises(ApiError) as ended:
            decoder.run(work)
        assert ended.value.status == 413, work
        assert time.monotonic() - began < 20
    decoder = SandboxedDecoder(ServerSettings())  # with time enough for a busy machine
    with pytest.raises(ApiError, match="is odd") as odd:
        decoder.run(refuses, tmp_path / "x")
    assert (odd.value.status, odd.value.detail, odd.value.fix) == (422, "is odd", "do otherwise")
    with pytest.raises(ApiError, match="cannot be read"):
        decoder.run(fails)
    with pytest.raises(ApiError, match="cannot be read"):
        decoder.run(writes, tmp_path / "written")
    assert (tmp_path / "written").stat().st_size <= 4096


def test_without_limits_no_image_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swath.serving.workers.uploads._LIMITED", False)
    with pytest.raises(ApiError, match="cannot limit the process") as refused:
        SandboxedDecoder(ServerSettings()).run(max, 3, 4)
    assert refused.value.status == 501


# --- the address ------------------------------------------------------------------------------------------


def test_an_address_that_is_taken_or_not_ours_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SwathError, match=rf"--port {port} .*--port 0"):
            serve(tmp_path / "none", port=port)
    with pytest.raises(SwathError, match=r"--host 192\.0\.2\.1 .*an address of this machine"):
        serve(tmp_path / "none", host="192.0.2.1", settings=ServerSettings(token="x" * 20))
    with pytest.raises(ArchiveError, match="none"):
        serve(tmp_path / "none", port=0)


# --- words ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/a/b c/d.tif: is odd", "d.tif: is odd"),
        ("cannot open '/data/secret/x.tif' twice", "cannot open 'x.tif' twice"),
        ("s3://bucket/data/x.tif: gone", "x.tif: gone"),
        ("4.5/3 of 1/2 are and/or", "4.5/3 of 1/2 are and/or"),
    ],
)
def test_messages_lose_their_paths(text: str, told: str) -> None:
    assert redact_paths(text, "/a/b c/d.tif") == told


def test_errors_become_statuses() -> None:
    path = "/data/archive"
    for error, status in (
        (ArchiveUnavailable(f"{path}: is damaged (x). Restore"), 503),
        (ArchiveUnavailable(f"{path}: no archive there; `swath embed`"), 503),
        (ChipNotFound(f"{path}: no chip shows 1, 2; the middle is far"), 404),
        (InvalidQuery("k is 0; ask for at least 1 answer"), 422),
        (ArchiveError(f"{path}: another model"), 400),
        (ImageryError("x.tif: odd"), 422),
    ):
        response = api_error_from(error, path)
        assert response.status == status, error
        assert "/data" not in json.dumps(response.body())


def test_times_and_periods() -> None:
    filters = Filters.model_validate({"datetime": "2021-01-01"})
    assert filters.datetime is not None
    first, last = parse_interval(filters.datetime)
    assert (last - first).total_seconds() == pytest.approx(86_400, abs=1)
    assert parse_interval("2021-01-01") == (first, last)
    assert parse_interval("2021-01-01/2021-02-01")[1].month == 2
    assert parse_interval("../2021-01-01")[1] == last
    assert parse_interval("2021-01-01/..")[0] == first
    for wrong in ("", "x", "2021-02-01/2021-01-01", "2021-13-01", "/", "../..", "1/2/3"):
        with pytest.raises(ValueError, match="datetime"):
            parse_interval(wrong)


def test_a_request_asks_one_thing() -> None:
    assert SearchRequest.model_validate({"like": ["a"], "unlike": ["b"]}).k == 20
    for wrong in (
        {},
        {"like": ["a"], "place": [0, 0]},
        {"unlike": ["a"]},
        {"like": ["a"] * 101},
        {"like": ["a"], "x": 1},
    ):
        with pytest.raises(ValidationError):
            SearchRequest.model_validate(wrong)

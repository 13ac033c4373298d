"""The real server in a process of its own, asked by the real client over loopback."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from helpers import served as served
from swath.archive.archive import Archive
from swath.serving.client import Client, ServiceError


def test_the_archive_describes_itself(client: Client, archive_folder: Path) -> None:
    info = client.archive()
    assert (info.rows, info.with_footprint, info.gsd_mode) == (18, 18, "metres")
    assert info.version == Archive.open(archive_folder).version
    assert [(sensor.name, sensor.rows, sensor.centered) for sensor in info.sensors] == [
        ("rgb_aerial", 18, False)
    ]
    assert info.time is not None
    assert info.time[0].isoformat() == "2021-01-03T00:00:00+00:00"
    assert info.bounds is not None
    assert info.bounds[0] == pytest.approx(15, abs=0.01)
    assert info.capabilities.image
    assert info.capabilities.place
    assert client.health().rows == 18
    assert "swath_archive_rows 18.0" in client.metrics()


def test_sources_are_told_by_name_only(client: Client, archive_folder: Path) -> None:
    told = client.footprints(limit=100).model_dump_json() + client.chips().model_dump_json()
    assert str(archive_folder.parent) not in told
    assert client.chips(limit=1).chips[0].source in ("scene_0.tif", "scene_1.tif")


def test_like_finds_the_neighbors_that_the_archive_finds(client: Client, archive_folder: Path) -> None:
    asked = client.chips(limit=3).chips
    answer = client.search(like=[asked[0].id], k=5)
    expected = Archive.open(archive_folder).search(like=[asked[0].id], k=5, exclude_self=True)
    assert [(one.id, one.rank) for one in answer.results] == [(one.id, one.rank) for one in expected]
    assert [one.score for one in answer.results] == pytest.approx([one.score for one in expected], abs=1e-5)
    assert asked[0].id not in {one.id for one in answer.results}
    further = client.search(like=[asked[0].id], unlike=[asked[1].id], k=18)
    assert asked[1].id not in {one.id for one in further.results}
    assert (further.query.like, further.query.unlike) == ([asked[0].id], [asked[1].id])
    assert further.returned == 16
    assert any("16 of 18" in note for note in further.notes)


def test_a_place_and_an_area_are_their_chips(client: Client) -> None:
    chip = client.chips(limit=1).chips[0]
    assert chip.bbox is not None
    assert chip.geometry is not None
    west, south, east, north = chip.bbox
    by_place = client.search(place=((west + east) / 2, (south + north) / 2), k=3)
    assert by_place.query.like == [chip.id]
    by_area = client.search(area=chip.geometry, k=3)
    assert by_area.query.like == [chip.id]
    assert [one.id for one in by_area.results] == [one.id for one in by_place.results]
    with pytest.raises(ServiceError, match="no chip shows") as nowhere:
        client.search(place=(-100.0, 0.0))
    assert nowhere.value.status == 404


def test_filters_hold(client: Client) -> None:
    one = client.chips(limit=1).chips[0]
    day = {"datetime": "2021-02-03"}
    found = client.search(like=[one.id], k=100, filters=day)
    assert {answer.source for answer in found.results} == {"scene_1.tif"}
    assert client.chips(datetime="2021-02-01/..").total == 9
    assert client.footprints(gsd_min=11).total == 0
    assert client.footprints((15.02, 40, 16, 50)).total == 9  # the second scene only
    assert client.chips(sensor="no such sensor").total == 0
    assert client.search(like=[one.id], filters={"intersects": one.geometry}, k=100).returned < 9


def test_an_image_of_the_archive_finds_itself(client: Client, archive_folder: Path, tmp_path: Path) -> None:
    chip = next(one for one in client.chips().chips if one.window == (32, 32, 32, 32))
    source = archive_folder.parent / "imagery_0" / chip.source
    best = client.search_image(source, k=2).results[0]  # the middle of the scene is this chip
    assert (best.id, best.score) == (chip.id, pytest.approx(1, abs=1e-4))
    away = client.search_image(source, k=18, unlike=[chip.id])
    assert chip.id not in {one.id for one in away.results}
    picture = tmp_path / "a.png"
    Image.fromarray(served.pixels_of(0).transpose(1, 2, 0)).save(picture)
    with pytest.raises(ServiceError, match="GSD") as unknown:
        client.search_image(picture)
    assert unknown.value.status == 422
    assert client.search_image(picture, gsd=10.0, k=1).returned == 1


def test_pictures_show_the_chip(client: Client) -> None:
    chip = client.chips(limit=1).chips[0]
    picture = Image.open(io.BytesIO(client.image(chip.id)))
    assert picture.size == (32, 32)
    with pytest.raises(ServiceError) as unknown:
        client.image("0" * 32)
    assert unknown.value.status == 404


def test_tiles_are_cached_and_empty_elsewhere(client: Client, address: str) -> None:
    z, x, y = tile_of(client, 15)
    assert client.tile(z, x, y) is not None
    assert client.tile(15, 0, 0) is None
    assert client.tile(z, x, y, datetime="2030-01-01/..") is None
    first = httpx.get(f"{address}/api/tiles/{z}/{x}/{y}.png")
    assert first.headers["cache-control"] == "private, max-age=60"
    again = httpx.get(first.url, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(f"{address}/api/tiles/3/8/0.png").status_code == 404


def tile_of(client: Client, z: int) -> tuple[int, int, int]:
    import math

    box = client.chips(limit=1).chips[0].bbox
    assert box is not None
    lon, lat = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    row = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2
    return z, int((lon + 180) / 360 * 2**z), int(row * 2**z)


# --- hostile ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "give exactly one of"),
        ({"like": []}, "give exactly one of"),
        ({"like": ["a"], "place": [1, 2]}, "give exactly one of"),
        ({"like": ["x' OR 1=1 --"]}, "no chip"),
        ({"like": ["../../etc/passwd"]}, "no chip"),
        ({"place": [0, 91]}, "place"),
        ({"place": [0, 0], "k": 0}, "k"),
        ({"place": [0, 0], "k": 1_000_001}, "k is 1,000,001; this server returns at most 1,000"),
        ({"place": [0, 0], "k": 10**40}, "k is too large"),
        ({"place": [15.006, 45.149], "filters": {"sensors": ["a' OR '1'='1"]}}, "no chip of sensor"),
        ({"place": [0, 0], "filters": {"sensor": ["x"]}}, "filters.sensor"),
        ({"place": [0, 0], "filters": {"gsd": [10, 1]}}, "minimum"),
        ({"place": [0, 0], "filters": {"datetime": "2021-01-01/x"}}, "ISO"),
        ({"place": [0, 0], "filters": {"datetime": "2021-02-01/2021-01-01"}}, "first"),
        ({"area": {"type": "Point", "coordinates": [0, 0]}}, "area.type"),
        ({"area": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [0, 0]]]}}, "area"),
        (
            {"area": {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 2]]]}},
            "not closed",
        ),
        ({"area": {"type": "Polygon", "coordinates": [[[0, 0], [1, 99], [1, 0], [0, 0]]]}}, "latitude"),
        ({"area": {"type": "MultiPolygon", "coordinates": [[[0, 0], [1, 9], [1, 0], [0, 0]]]}}, "nested"),
        ({"unlike": ["a"]}, "give exactly one of"),
        ([1, 2], ""),
        ("text", ""),
    ],
)
def test_malformed_searches_are_refused_with_what_is_wrong(address: str, body: Any, says: str) -> None:
    answer = httpx.post(f"{address}/api/search", json=body)
    assert answer.status_code in (400, 404, 422), answer.text
    assert says in answer.json()["detail"]
    assert answer.json().keys() == {"type", "title", "status", "detail", "fix"}
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b'{"k": NaN, "place": [0, 0]}', b'{"place": [Infinity, 0]}', b"[" * 100_000,
     b'{"k": ' + b"9" * 5000 + b', "place": [0, 0]}', b'{"like": ["\\ud800"]}', b'{"like": ["\\u0000"]}'],
)  # fmt: skip
def test_bodies_that_are_no_json_are_refused(address: str, body: bytes) -> None:
    answer = httpx.post(f"{address}/api/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 404, 422), answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/chips/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404),
        ("/api/chips/%2e%2e%2fscene_0.tif/image", 404),
        ("/page/..%2f..%2fapp.py", 404),
        ("/page/%2e%2e/app.py", 404),
        ("/page/../app.py", 404),
        ("/api/chips/x/image?size=100000", 422),
        ("/api/footprints?bbox=1,2,3", 422),
        ("/api/footprints?bbox=nan,0,1,1", 422),
        ("/api/footprints?bbox=0,1,1,0", 422),
        ("/api/footprints?limit=1000000", 422),
        ("/api/footprints?sensor=a'%20OR%201=1", 200),
        ("/api/footprints?where=1=1", 422),
        ("/api/footprints?gsd_min=inf", 422),
        ("/api/footprints?time_min=2021-01-01", 422),
        ("/api/footprints?datetime=yesterday", 422),
        ("/api/footprints?datetime=2021-01-01/..", 200),
        ("/api/archive?x=1", 422),
        ("/api/health?x=1", 422),
        ("/api/changes?before=2021-01-01&after=2021-02-01&k=3", 422),
        ("/api/tiles/99/0/0.png", 422),
        ("/api/tiles/1/0/0.png?time_max=2021-01-01", 422),
        ("/api/tiles/1/0/0.png?datetime=x", 422),
        ("/api/tiles/-1/0/0.png", 422),
        ("/api/tiles/1/99999999999999999999999/0.png", 404),
        ("/api/nothing", 404),
        ("/openapi.json", 200),
        ("/docs", 200),
    ],
)
def test_paths_and_queries(address: str, path: str, status: int) -> None:
    answer = httpx.get(address + path)
    assert answer.status_code == status, answer.text
    if status >= 400:
        assert answer.json()["detail"]


def test_old_names_are_answered_with_the_new_ones(address: str) -> None:
    old = httpx.get(f"{address}/api/chips?time_min=2021-01-01").json()
    assert old["detail"] == "the parameter 'time_min' is now 'datetime'"
    assert "gsd_min" in old["fix"]
    body = {"place": [0, 0], "filters": {"valid_min": 1}, "group_places": True}
    detail = httpx.post(f"{address}/api/search", json=body).json()["detail"]
    assert "'valid_min' is now 'min_valid'" in detail
    assert "'group_places' is now 'group_by_location'" in detail


def test_areas_at_the_antimeridian_and_the_poles_do_no_harm(client: Client) -> None:
    across = [[179, -10], [-179, -10], [-179, 10], [179, 10], [179, -10]]
    beyond = [[170, -10], [190, -10], [190, 10], [170, 10], [170, -10]]
    pole = [[-180, 80], [180, 80], [180, 90], [-180, 90], [-180, 80]]
    bow = [[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]
    flat = [[0, 0], [1, 1], [0.5, 0.5], [0, 0]]
    for ring in (across, beyond, pole, bow, flat):
        area = {"type": "Polygon", "coordinates": [ring]}
        with pytest.raises(ServiceError) as refused:
            client.search(area=area)
        assert refused.value.status in (404, 422), ring
    world = {
        "type": "Polygon",
        "coordinates": [[[-180, -90], [180, -90], [180, 90], [-180, 90], [-180, -90]]],
    }
    assert len(client.search(area=world).query.like) == 18
    assert client.footprints((170, -10, 190, 10)).total == 0
    assert client.footprints((-540, -90, 540, 90)).total == 18


def test_other_names_and_other_sites_are_refused(address: str) -> None:
    rebound = httpx.get(f"{address}/api/archive", headers={"Host": "evil.example"})
    assert rebound.status_code == 421
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        answer = httpx.post(f"{address}/api/search", json={"place": [0, 0]}, headers=headers)
        assert answer.status_code == 403
    own = httpx.post(f"{address}/api/search", json={"place": [0, 0]}, headers={"Origin": address})
    assert own.status_code == 404


def test_every_answer_has_the_headers_that_bind_the_page(address: str) -> None:
    for path in ("/", "/api/archive", "/api/nothing", "/docs"):
        headers = httpx.get(address + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers
    assert httpx.get(f"{address}/api/archive").headers["cache-control"] == "no-store"


def test_a_server_that_is_open_to_others_wants_a_token(archive_folder: Path) -> None:
    for options in (["--host", "0.0.0.0"], ["--token", "short"]):
        ended = subprocess.run(
            [sys.executable, "-m", "swath.cli.main", "serve", str(archive_folder), *options],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert ended.returncode == 2
        assert "token" in ended.stderr


def test_token_growth_damage_and_a_clean_end(model_folder: Path, tmp_path: Path) -> None:
    """One process that lives through all of it."""
    model = served.load(model_folder)
    archive = served.make_archive(tmp_path, model)
    with served.server(tmp_path / "archive", token=served.TOKEN) as (url, process):
        with Client(url) as stranger, pytest.raises(ServiceError) as refused:
            stranger.archive()
        assert refused.value.status == 401
        with Client(url, token="x" + served.TOKEN[1:]) as wrong, pytest.raises(ServiceError, match="token"):
            wrong.archive()
        assert httpx.get(f"{url}/api/health").json() == {"status": "ok"}
        assert httpx.get(f"{url}/metrics").status_code == 401
        with Client(url, token=served.TOKEN, retries=0) as client:
            assert client.archive().rows == 18
            # It grows and is compacted under the server.
            served.make_archive(tmp_path, model, scenes=1, first=2)
            assert client.archive().rows == 27
            assert client.chips(datetime="2021-03-01/..").total == 9
            Archive.open(tmp_path / "archive").compact()
            newest = client.chips(datetime="2021-03-01/..").chips[0]
            assert client.search(like=[newest.id], k=26).returned == 26
            archive.delete([newest.id])
            with pytest.raises(ServiceError, match="no chip"):
                client.chip(newest.id)
            # A source goes: its chips have no picture any more, and still answer.
            (tmp_path / "imagery_0" / "scene_0.tif").unlink()
            lost = next(one for one in client.chips(limit=26).chips if one.source == "scene_0.tif")
            with pytest.raises(ServiceError) as gone:
                client.image(lost.id)
            assert gone.value.status == 410
            assert client.search(like=[lost.id], k=1).returned == 1
            # Half of the archive goes and comes back.
            manifests = tmp_path / "archive" / "chips.lance" / "_versions"
            manifests.rename(tmp_path / "versions")
            with pytest.raises(ServiceError, match="cannot be read at the moment") as broken:
                client.archive()
            assert broken.value.status == 503
            assert str(tmp_path) not in broken.value.detail
            (tmp_path / "versions").rename(manifests)
            assert client.archive().rows == 26
        # It is asked to end while it answers: the answer still comes.
        body = b'{"place": [15.006, 45.149], "k": 3}'
        head = (
            f"POST /api/search HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {served.TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])), timeout=60) as connection:
            connection.sendall(head.encode() + body[:10])
            time.sleep(1)
            process.terminate()
            time.sleep(1)
            connection.sendall(body[10:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert process.wait(60) == 0


def test_the_reference_names_every_route(address: str) -> None:
    page = httpx.get(f"{address}/docs").text
    described = json.loads(httpx.get(f"{address}/openapi.json").text)
    assert "/api/search/image" in described["paths"]
    assert all(path in page for path in described["paths"])
    assert "<script" not in page
    assert "://" not in page


def test_many_at_once(address: str) -> None:
    """A short version of benchmarks/serving.py: no error under many requests."""
    with Client(address) as client:
        ids = [chip.id for chip in client.chips(limit=18).chips]
    failures: list[str] = []

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        with Client(address) as own:
            for _ in range(5):
                one = ids[int(random.integers(len(ids)))]
                try:
                    assert own.search(like=[one], k=3).returned == 3
                    own.image(one)
                except Exception as error:
                    failures.append(repr(error))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures

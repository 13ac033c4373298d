"""Uploads that mean harm or are broken: refused in words that tell nothing, and the server lives on."""

from __future__ import annotations

import http.client
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import rasterio
from PIL import Image

from helpers import served as served
from swath.serving.client import Client, ServiceError

SIDE = 20_000  # of the bombs: 400 million pixels, of which the server reads at most 64


def vrt(folder: Path) -> bytes:
    """A GDAL file that names another; believed, it would show a file of the server's."""
    secret = served.write_scene(folder / "secret.tif", served.pixels_of(9), 0)
    source = f"<SimpleSource><SourceFilename>{secret}</SourceFilename></SimpleSource>"
    band = f"<VRTRasterBand dataType='Byte' band='1'>{source}</VRTRasterBand>"
    return f"<VRTDataset rasterXSize='96' rasterYSize='96'>{band}</VRTDataset>".encode()


def svg(_: Path) -> bytes:
    return b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/hostname'/></svg>"


def png_bomb(_: Path) -> bytes:
    into = io.BytesIO()
    Image.new("1", (SIDE, SIDE)).save(into, format="PNG")
    return into.getvalue()


def png_that_claims(_: Path) -> bytes:
    """A header of two thousand million pixels a side, and next to nothing behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def jpeg_bomb(_: Path) -> bytes:
    into = io.BytesIO()
    Image.new("L", (SIDE, SIDE)).save(into, format="JPEG", quality=1)
    return into.getvalue()


def tiff_bomb(folder: Path) -> bytes:
    """Sparse: no block of it is in the file, all of it would be in memory."""
    path = folder / "sparse.tif"
    profile = {"driver": "GTiff", "width": SIDE, "height": SIDE, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", **profile, tiled=True, sparse_ok=True, compress="deflate"):
        pass
    return path.read_bytes()


def tiff_of_one_block(folder: Path) -> bytes:
    """One strip of 200 million pixels that is 200 kB long."""
    path = folder / "strip.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=SIDE, height=10_000, count=1, dtype="uint8", compress="deflate",
        blockysize=10_000,
    ) as file:  # fmt: skip
        file.write(np.zeros((1, 10_000, SIDE), np.uint8))
    return path.read_bytes()


def truncated(folder: Path) -> bytes:
    whole = served.write_scene(folder / "whole.tif", served.pixels_of(9), 0).read_bytes()
    return whole[: len(whole) // 2]


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "vrt": vrt,
    "svg": svg,
    "png bomb": png_bomb,
    "png that claims": png_that_claims,
    "jpeg bomb": jpeg_bomb,
    "tiff bomb": tiff_bomb,
    "tiff of one block": tiff_of_one_block,
    "truncated": truncated,
    "empty": lambda _: b"",
    "text": lambda _: b"hello" * 100,
    "path": lambda _: b"/etc/passwd",
    "address": lambda _: b"/vsicurl/http://127.0.0.1:9/a.tif",
    "zip": lambda _: b"PK\x03\x04" + bytes(200),
    "only magic": lambda _: b"II*\x00" + b"\xff" * 200,
    "png magic": lambda _: b"\x89PNG\r\n\x1a\n" + bytes(200),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_uploads_are_refused_and_the_server_lives(client: Client, tmp_path: Path, name: str) -> None:
    with pytest.raises(ServiceError) as refused:
        client.search_image(HOSTILE[name](tmp_path), gsd=10.0)
    assert refused.value.status in (413, 422)
    assert refused.value.fix
    for told in (refused.value.detail, refused.value.fix):
        assert str(tmp_path) not in told
        assert "swath-upload" not in told
        assert "/" not in told.replace("and/or", "")
    assert client.health().rows == 18


@pytest.mark.parametrize(
    "filename", ["../../etc/passwd", "/vsicurl/http://127.0.0.1:9/a.tif", "a\x00.tif", "é" * 300]
)
def test_the_name_of_an_upload_means_nothing(address: str, filename: str) -> None:
    content = io.BytesIO()
    Image.fromarray(served.pixels_of(0).transpose(1, 2, 0)).save(content, format="PNG")
    files = {"file": (filename, content.getvalue())}
    answer = httpx.post(
        f"{address}/api/search/image", files=files, data={"options": '{"k": 1, "gsd": 10}'}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["returned"] == 1
    assert "etc" not in answer.text


def test_a_sensor_is_a_name_and_never_a_file(client: Client, tmp_path: Path) -> None:
    scene = served.write_scene(tmp_path / "a.tif", served.pixels_of(9), 500_000)
    (tmp_path / "own.yaml").write_text("name: own")
    for sensor in (str(tmp_path / "own.yaml"), "../own.yaml", "sentinel2_l2a"):
        with pytest.raises(ServiceError, match="does not support the sensor") as refused:
            client.search_image(scene, sensor=sensor)
        assert refused.value.status == 422


def form(*parts: tuple[str, bytes]) -> bytes:
    """A multipart/form-data body with the boundary x."""
    return b"".join(b"--x\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data + b"\r\n"
                    for head, data in parts) + b"--x--\r\n"  # fmt: skip


FILE = ('name="file"; filename="a.tif"', b"II*\x00")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no form",
        form(),
        form(('name="file"', b"text in place of a file")),
        form(('name="other"; filename="a.tif"', b"II*\x00")),
        form(FILE, FILE),
        form(FILE, ('name="options"', b"{")),
        form(FILE, ('name="options"', b'{"k": 0}')),
        form(FILE, ('name="options"', b'{"k": 1000000}')),
        form(FILE, ('name="options"', b'{"gsd": -1}')),
        form(FILE, ('name="options"', b'{"where": "1=1"}')),
        form(FILE, ('name="options"', b'{"sensor": "' + b"x" * 10_000 + b'"}')),
        form(FILE, *[(f'name="f{number}"', b"") for number in range(100)]),
        form(FILE)[:-30],
        b"--x\r\n" + b"A: b\r\n" * 10_000 + b"\r\n",
    ],
)  # fmt: skip
def test_forms_that_are_none_are_refused(address: str, body: bytes) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{address}/api/search/image", content=body, headers=headers, timeout=60)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"]


def test_uploads_have_a_limit(address: str) -> None:
    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.tif"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 2**20

    big = httpx.post(f"{address}/api/search", content=b" " * 2_000_000)
    assert (big.status_code, "larger" in big.json()["detail"]) == (413, True)
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/api/search/image")
    connection.putheader("Content-Length", "99999999")
    connection.endheaders()
    assert connection.getresponse().status == 413  # of its word alone
    connection.close()
    try:
        headers: dict[str, Any] = {"Content-Type": "multipart/form-data; boundary=x"}
        chunked = httpx.post(f"{address}/api/search/image", content=endless(), headers=headers, timeout=60)
    except httpx.WriteError:
        return  # the server has closed the connection, as it may
    assert chunked.status_code == 413

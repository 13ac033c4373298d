"""Fifty clients ask one `swath serve` for a minute: rate, latencies, errors, memory every quarter.

The server is a process of its own on a free port of loopback. Its archive is made here: chips with random
vectors, cut from written GeoTIFFs, so that pictures and tiles are really read and drawn. Every client keeps
one connection and asks again as soon as it is answered; of 20 requests 12 are searches by example (every
third with a filter, every fourth varied), 3 pictures, 3 tiles, 1 footprints of a box and 1 the archive's
description. With --model the chips are embedded by it, and one request in 200 uploads an image.

Clients and server share the machine's cores, so the rate is a lower bound of the server's; the CPU time of
the server alone is printed beside it.

    python benchmarks/serving.py [--clients 50] [--seconds 60] [--chips 20000] [--model DIR] [--json OUT.json]
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil

SCENE, CHIP, STEP = 512, 64, 0.0001  # pixels, pixels, degrees a pixel
CHIPS_A_SCENE = (SCENE // CHIP) ** 2
KINDS = ["search"] * 12 + ["image"] * 3 + ["tile"] * 3 + ["footprints", "archive"]


def write_scenes(folder: Path, count: int) -> list[Path]:
    import rasterio
    from rasterio.transform import from_origin

    folder.mkdir()
    paths = []
    for number in range(count):
        coarse = np.random.default_rng(number).integers(20, 255, (3, 64, 64), dtype=np.uint8)
        west, north = corner(number)
        path = folder / f"scene_{number:04d}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=SCENE, height=SCENE, count=3, dtype="uint8", crs="EPSG:4326",
            transform=from_origin(west, north, STEP, STEP), tiled=True, blockxsize=256, blockysize=256,
            compress="deflate", photometric="RGB",
        ) as file:  # fmt: skip
            file.write(coarse.repeat(8, axis=1).repeat(8, axis=2))
        paths.append(path)
    return paths


def corner(number: int) -> tuple[float, float]:
    side = SCENE * STEP
    return 10 + number % 40 * side, 50 - number // 40 * side


def make_archive(path: Path, scenes: list[Path], dimensions: int) -> None:
    from swath.archive.archive import Archive
    from swath.archive.table.rows import rows_from_vectors

    archive = Archive.create(path, "benchmark-0", dimensions)
    random = np.random.default_rng(0)

    def rows() -> Any:
        for number, scene in enumerate(scenes):
            west, north = corner(number)
            side, each = CHIP * STEP, range(SCENE // CHIP)
            row, column = (axis.ravel() for axis in np.meshgrid(each, each, indexing="ij"))
            left, top = west + column * side, north - row * side
            yield rows_from_vectors(
                "benchmark-0",
                [f"{number:028x}{i:04x}" for i in range(CHIPS_A_SCENE)],
                random.standard_normal((CHIPS_A_SCENE, dimensions)).astype(np.float32),
                sensor="rgb_aerial",
                gsd=10.0,
                bounds=np.stack([left, top - side, left + side, top], axis=1),
                source=str(scene),
                window=[
                    {"column": c * CHIP, "row": r * CHIP, "width": CHIP, "height": CHIP}
                    for r, c in zip(row.tolist(), column.tolist(), strict=True)
                ],
            )

    archive.append(rows())


def tile(number: int, z: int = 14) -> str:
    west, north = corner(number)
    lon, lat = west + SCENE * STEP / 2, north - SCENE * STEP / 2
    row = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2
    return f"/api/tiles/{z}/{int((lon + 180) / 360 * 2**z)}/{int(row * 2**z)}.png"


class Load:
    """What the clients ask, and how it was answered."""

    def __init__(self, port: int, ids: list[str], scenes: int, upload: bytes | None) -> None:
        self.port, self.ids, self.scenes, self.upload = port, ids, scenes, upload
        self.times: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "image")}
        self.failures: Counter[str] = Counter()
        self.asked = 0
        self.lock = threading.Lock()

    def client(self, seed: int, until: float) -> None:
        """Ask one thing after the other."""
        random = np.random.default_rng(seed)
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        while time.monotonic() < until:
            kind = KINDS[int(random.integers(len(KINDS)))]
            if self.upload is not None and random.random() < 1 / 200:
                kind = "image"
            began = time.perf_counter()
            try:
                status = self.ask(connection, kind, random)
                problem = "" if status in (200, 204) else f"{kind}: {status}"
            except (OSError, http.client.HTTPException) as error:
                problem = f"{kind}: {type(error).__name__}"
                connection.close()
            with self.lock:
                self.times[kind].append(time.perf_counter() - began)
                if problem:
                    self.failures[problem] += 1
        connection.close()

    def ask(self, connection: http.client.HTTPConnection, kind: str, random: np.random.Generator) -> int:
        """The status of one answer."""
        one = self.ids[int(random.integers(len(self.ids)))]
        headers, body, method = {}, None, "GET"
        if kind == "search":
            asked: dict[str, Any] = {"like": [one], "k": 20, "diverse": bool(random.random() < 0.25)}
            if random.random() < 1 / 3:
                asked["filters"] = {"gsd": [5, 20], "min_valid": 0.5}
            method, path, body = "POST", "/api/search", json.dumps(asked)
            headers = {"Content-Type": "application/json"}
        elif kind == "image":
            path = f"/api/chips/{one}/image"
        elif kind == "tile":
            path = tile(int(random.integers(self.scenes)), int(random.integers(11, 17)))
        elif kind == "footprints":
            west, north = corner(int(random.integers(self.scenes)))
            path = f"/api/footprints?bbox={west},{north - 0.1},{west + 0.1},{north}&limit=500"
        elif kind == "image":
            method, path = "POST", "/api/search/image"
            headers = {"Content-Type": "multipart/form-data; boundary=x"}
            part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
            assert self.upload is not None
            body = part + self.upload + b"\r\n--x--\r\n"  # type: ignore[assignment]
        else:
            path = "/api/archive"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def run(self, clients: int, seconds: float) -> float:
        """All clients at once; how long it took."""
        began = time.monotonic()
        threads = [
            threading.Thread(target=self.client, args=(self.asked + number, began + seconds))
            for number in range(clients)
        ]
        self.asked += clients  # the next time other things are asked
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - began


def memory(process: psutil.Process) -> float:
    """MB of the server and its helpers."""
    return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20


def held(process: psutil.Process, port: int) -> dict[str, float]:
    """MB of memory, and how much of it are drawn pictures that are kept on purpose."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", "/metrics")
    figures = dict(line.rsplit(" ", 1) for line in connection.getresponse().read().decode().splitlines())
    connection.close()
    pictures = float(figures["swath_images_cached_bytes"]) / 2**20
    return {"memory": round(memory(process), 1), "images": round(pictures, 1)}


def cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:4]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--chips", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = max(1, asked.chips // CHIPS_A_SCENE)
        scenes = write_scenes(Path(folder) / "scenes", count)
        archive = Path(folder) / "archive"
        options = []
        if asked.model is None:
            make_archive(archive, scenes, asked.dimensions)
        else:
            embed(asked.model, scenes[0].parent, archive)
            options = ["--model", str(asked.model)]
        report = measure(asked, archive, options, scenes)
    text = json.dumps(report, indent=1)
    print(text)
    if asked.json:
        asked.json.write_text(text)
    sys.exit(1 if report["failures"] else 0)


def embed(model: Path, scenes: Path, archive: Path) -> None:
    from swath.archive.ingest.run import embed_archive
    from swath.datasets.opening import open_dataset
    from swath.models import load_model

    dataset = open_dataset(scenes, sensor="rgb_aerial", layout="chips", chip_size=CHIP)
    embed_archive(load_model(model), dataset, archive, workers=0)


def measure(asked: Any, archive: Path, options: list[str], scenes: list[Path]) -> dict[str, Any]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "swath.cli.main", "serve", str(archive), "--port", str(port), *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        wait(port, server)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        connection.request("GET", "/api/chips?limit=1000")
        ids = [chip["id"] for chip in json.loads(connection.getresponse().read())["chips"]]
        upload = scenes[0].read_bytes() if options else None
        process = psutil.Process(server.pid)
        Load(port, ids, len(scenes), upload).run(asked.clients, 10)  # threads, caches and open files fill
        load = Load(port, ids, len(scenes), upload)
        spent = cpu(process)
        parts = [held(process, port)]
        seconds = 0.0
        for _ in range(4):  # so that what grows without end is told from what fills up
            seconds += load.run(asked.clients, asked.seconds / 4)
            parts.append(held(process, port))
        spent = cpu(process) - spent
        server.send_signal(signal.SIGTERM)
        ended = server.wait(60)
    finally:
        server.kill()
        server.wait()
    every = np.concatenate([np.array(times) for times in load.times.values()])
    return {
        "clients": asked.clients,
        "seconds": round(seconds, 1),
        "requests": len(every),
        "requests_a_second": round(len(every) / seconds, 1),
        "server_cpu_seconds": round(spent, 1),
        "requests_a_server_cpu_second": round(len(every) / spent, 1),
        "failures": dict(load.failures),
        "milliseconds": {
            kind: {
                "count": len(times),
                "p50": round(float(np.percentile(times, 50)) * 1e3, 1),
                "p99": round(float(np.percentile(times, 99)) * 1e3, 1),
            }
            for kind, times in {**load.times, "all": every}.items()
            if len(times)
        },
        "mb_after_each_quarter": parts,
        "exit_status": ended,
    }


def wait(port: int, server: subprocess.Popen[bytes]) -> None:
    while server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()

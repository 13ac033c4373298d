"""A real HTTP server on the loopback that knows ranges, and misbehaves on request."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server:
    """Serves the files of a folder.

    Attributes:
        url: Of the folder.
        requests: (path, Range header or None, status) of each request.
        cut_after: Close the connection after so many bytes of an answer.
        ranges: Whether ranges are known.
        fail: Statuses to answer with first, one a request.
        pause: Seconds between pieces of 64 KiB.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str | None, int]] = []
        self.cut_after: int | None = None
        self.ranges = True
        self.fail: list[int] = []
        self.pause = 0.0
        self.url = ""


@contextmanager
def serve(folder: Path) -> Iterator[Server]:
    state = Server(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            if state.fail:
                self._empty(state.fail.pop(0), wanted)
                return
            file = state.folder / self.path.lstrip("/").partition("?")[0]
            if not file.is_file():
                self._empty(404, wanted)
                return
            data = file.read_bytes()
            etag = f'"{hashlib.md5(data).hexdigest()}"'
            start, end = 0, len(data)
            fresh = self.headers.get("If-Range") in (None, etag)
            if state.ranges and wanted is not None and fresh:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                start, end = int(first), min(int(last) + 1, len(data)) if last else len(data)
            if start and start >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                state.requests.append((self.path, wanted, 416))
                return
            status = 206 if start or end < len(data) else 200
            state.requests.append((self.path, wanted, status))
            self.send_response(status)
            self.send_header("Content-Length", str(end - start))
            self.send_header("ETag", etag)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            self.end_headers()
            body = data[start:end]
            if state.cut_after is not None and len(body) > state.cut_after:
                self.wfile.write(body[: state.cut_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            for i in range(0, len(body), 1 << 16):
                self.wfile.write(body[i : i + (1 << 16)])
                if state.pause:
                    threading.Event().wait(state.pause)

        def _empty(self, status: int, wanted: str | None) -> None:
            state.requests.append((self.path, wanted, status))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client was killed
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()

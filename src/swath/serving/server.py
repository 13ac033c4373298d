"""Running the server: uvicorn with limits, on an address that is safe, until it is asked to end."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from swath.errors import SwathError
from swath.serving.settings import ServerSettings, check_access

if TYPE_CHECKING:
    from swath.models import Model

_CONNECTIONS = 512
_END_SECONDS = 30  # given to requests that are under way
# Decoded blocks that GDAL keeps; drawn tiles are kept by the service itself.
_BLOCK_CACHE = 64 * 2**20


def serve(
    path: str,
    model: Model | None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: ServerSettings | None = None,
    log_level: str = "info",
) -> None:
    """Serve an archive until SIGTERM or SIGINT; requests under way are finished.

    Args:
        path: The archive.
        model: Its model, for searches by image.
        host: Address; anything but loopback needs a token.
        port: 0 takes a free one.
        settings: Limits, token and host names.
        log_level: Of uvicorn.

    Raises:
        SwathError: An address that is open to others without a token, or that is not to be had; no archive.
    """
    settings = settings or ServerSettings()
    check_access(host, settings.token)
    _check_free(host, port)
    os.environ.setdefault("GDAL_CACHEMAX", str(_BLOCK_CACHE // 2**20))
    import uvicorn

    from swath.serving.http.app import create_app

    app = create_app(path, model, settings)
    with _ended_well_by_signals():
        uvicorn.run(
            app,
            host=host,
            port=port,
            log_level=log_level,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            ws="none",
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_END_SECONDS,
            h11_max_incomplete_event_size=16 * 1024,
        )


def _check_free(host: str, port: int) -> None:
    """Tell at once, and not after a model has been loaded, that an address cannot be listened on."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise SwathError(
            f"--host {host} --port {port}: cannot be listened on ({error.strerror or error}); choose another "
            "port (--port 0 takes a free one) or an address of this machine"
        ) from None


@contextmanager
def _ended_well_by_signals() -> Iterator[None]:
    """Leave nothing to do for the signal that ended the server.

    When all is finished, uvicorn raises the signal again for whoever had been listening, and by default that
    kills the process: a supervisor would see a server that died where one ended as asked.
    """
    if threading.current_thread() is not threading.main_thread():  # signals do not come here
        yield
        return
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

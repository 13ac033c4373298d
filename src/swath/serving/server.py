"""Run the server: uvicorn with limits, on a checked address, until it is stopped by a signal."""

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

_MAX_CONNECTIONS = 512
_SHUTDOWN_SECONDS = 30  # for requests that are running
# Block cache of GDAL; rendered tiles are cached by the server itself.
_BLOCK_CACHE = 64 * 2**20


def serve(
    archive: str | os.PathLike[str],
    *,
    model: Model | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: ServerSettings | None = None,
    log_level: str = "info",
) -> None:
    """Serve an archive until SIGTERM or SIGINT; running requests are finished.

    Args:
        archive: Path or URL of the archive.
        model: Its model, for searches by image.
        host: Address; any other than loopback needs a token.
        port: 0 selects a free port.
        settings: Limits, token and host names.
        log_level: Log level of uvicorn.

    Raises:
        SwathError: A public address without a token, an address in use, or no archive.
    """
    settings = settings or ServerSettings()
    check_access(host, settings.token)
    _check_free(host, port)
    os.environ.setdefault("GDAL_CACHEMAX", str(_BLOCK_CACHE // 2**20))
    import uvicorn

    from swath.serving.http.app import create_app

    app = create_app(os.fspath(archive), model, settings)
    with _clean_exit_on_signal():
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
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            h11_max_incomplete_event_size=16 * 1024,
        )


def _check_free(host: str, port: int) -> None:
    """Raise SwathError if the address is in use, before anything is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise SwathError(
            f"Cannot listen on --host {host} --port {port} ({error.strerror or error}). Choose another port "
            "(--port 0 selects a free one) or an address of this machine."
        ) from None


@contextmanager
def _clean_exit_on_signal() -> Iterator[None]:
    """Ignore the signal that uvicorn raises again after a clean shutdown.

    By default it would kill the process, and a supervisor would report a crash.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    previous = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for each, handler in previous.items():
            signal.signal(each, handler)

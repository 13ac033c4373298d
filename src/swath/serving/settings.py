"""What one server may be asked for, and by whom."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from swath.errors import SwathError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
SHORTEST_TOKEN = 16


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Limits and access of a server.

    Attributes:
        token: Who sends it as ``Authorization: Bearer`` may ask; None lets everybody who can connect.
        hosts: Names by which the server may be called (the Host header), without port.
        most_answers: Largest k.
        most_footprints: Largest number of footprints at once.
        upload_bytes: Size of an uploaded image.
        upload_pixels: Pixels (times bands) of an uploaded image.
        body_bytes: Size of any other request.
        receive_seconds: Time a client has to send its request.
        search_seconds: Time until a search is given up.
        upload_seconds: Time, also of CPU, until the reading of an upload is ended.
        upload_memory: Bytes that reading an upload may take.
        searching: Threads that search; and how many requests may wait for them.
        drawing: Threads that draw tiles and pictures.
        waiting: Requests that may wait for a thread; of uploads an eighth.
        tile_sources: Files that are drawn into one tile.
        cache_bytes: Drawn tiles and pictures kept in memory.
    """

    token: str | None = None
    hosts: tuple[str, ...] = LOOPBACK_NAMES
    max_results: int = 1000
    max_footprints: int = 20_000
    upload_bytes: int = 32 * 2**20
    upload_pixels: int = 64_000_000
    body_bytes: int = 2**20
    receive_seconds: float = 60.0
    search_seconds: float = 30.0
    upload_seconds: int = 20
    upload_memory: int = 2 * 2**30
    searching: int = 2
    drawing: int = 2
    waiting: int = 256
    tile_sources: int = 64
    cache_bytes: int = 64 * 2**20


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_access(host: str, token: str | None) -> None:
    """Refuse to be open to others without a token, and tokens that can be guessed.

    Raises:
        SwathError: With the fix.
    """
    how = "python -c 'import secrets; print(secrets.token_urlsafe(24))' makes one"
    if token is None and not is_loopback(host):
        raise SwathError(
            f"--host {host}: anybody who reaches this address could read the archive; set a token "
            f"(SWATH_TOKEN or --token-file; {how}), or serve on 127.0.0.1"
        )
    if token is not None and (
        len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token
    ):
        raise SwathError(f"the token needs at least {SHORTEST_TOKEN} ASCII characters without spaces; {how}")


def host_names(host: str, others: Sequence[str] = ()) -> tuple[str, ...]:
    """Names by which a server on `host` may be called: loopback's, its own address, and `others`."""
    own = () if host in ("0.0.0.0", "::", "") else (f"[{host}]" if ":" in host else host,)
    return tuple(dict.fromkeys((*LOOPBACK_NAMES, *own, *others)))

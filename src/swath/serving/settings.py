"""Limits of a server, and who may use it."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from swath.errors import SwathError

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
MIN_TOKEN_LENGTH = 16


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Limits and access of a server.

    Attributes:
        token: Bearer token that clients must send; None admits everyone who can connect.
        hosts: Accepted values of the Host header, without port.
        max_results: Maximum `k` of a search, and `limit` of a list of chips or changes.
        max_footprints: Maximum number of footprints in one response.
        upload_bytes: Maximum size of an uploaded image.
        upload_pixels: Maximum pixels (times bands) of an uploaded image.
        body_bytes: Maximum size of any other request.
        receive_seconds: Time in which a request must arrive.
        search_seconds: Timeout of a search.
        upload_seconds: Timeout of decoding an upload, in CPU time too.
        upload_memory: Memory limit of decoding an upload, in bytes.
        search_workers: Threads for searches.
        tile_workers: Threads for tiles and images of chips.
        max_queue: Requests that may wait for each pool of threads; an eighth of it for uploads.
        max_tile_sources: Maximum number of files drawn into one tile.
        cache_bytes: Size of the cache of rendered tiles and images.
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
    search_workers: int = 2
    tile_workers: int = 2
    max_queue: int = 256
    max_tile_sources: int = 64
    cache_bytes: int = 64 * 2**20


def is_loopback(host: str) -> bool:
    """Whether an address is a loopback address of this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_access(host: str, token: str | None) -> None:
    """Refuse a public address without a token, and tokens that are too short.

    Raises:
        SwathError: The address needs a token, or the token is unusable.
    """
    create = "create one with python -c 'import secrets; print(secrets.token_urlsafe(24))'"
    if token is None and not is_loopback(host):
        raise SwathError(
            f"--host {host} makes the archive readable for everyone who reaches this address. Set a token "
            f"(SWATH_TOKEN or --token-file; {create}), or serve on 127.0.0.1."
        )
    if token is not None and (
        len(token) < MIN_TOKEN_LENGTH or not token.isascii() or not token.isprintable() or " " in token
    ):
        raise SwathError(
            f"The token needs at least {MIN_TOKEN_LENGTH} ASCII characters without spaces; {create}."
        )


def host_names(host: str, others: Sequence[str] = ()) -> tuple[str, ...]:
    """Host names that a server on `host` accepts: those of loopback, its own address, and `others`."""
    own = () if host in ("0.0.0.0", "::", "") else (f"[{host}]" if ":" in host else host,)
    return tuple(dict.fromkeys((*LOOPBACK_NAMES, *own, *others)))

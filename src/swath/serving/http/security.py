"""Access control and size limits, checked before a request is parsed.

- The Host header must be an accepted name. This stops DNS rebinding, where a page of another site makes a
  browser resolve its own name to this machine.
- With a token, everything but the static page and `/api/health` needs it; compared in constant time.
- Requests with a body that come from a page of another site (Origin, Sec-Fetch-Site) are refused: a browser
  would send them even to a server on loopback. No CORS header is ever sent.
- Bodies are counted while they arrive, and must arrive in time.

Every response has headers that restrict what the page can do (see `PAGE_POLICY`).

This is plain ASGI rather than a framework's middleware because it must see a body before anything reads it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from swath.serving.http.errors import MEDIA_TYPE, ApiError
from swath.serving.settings import ServerSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_QUERY_LENGTH = 4096  # characters after the question mark
UPLOADS = ("/api/search/image",)
# Without a token: the files of the page, which hold no data and ask for the token, and the health check.
OPEN = ("/", "/favicon.ico", "/api/health")
OPEN_FOLDERS = ("/page/",)

# MapLibre creates its worker from a blob, and displays tiles fetched with a token as blobs.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; font-src 'self'; "
    "connect-src 'self' blob:; worker-src 'self' blob:; child-src blob:; manifest-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": PAGE_POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(self), payment=()",
}


class SecurityMiddleware:
    """ASGI middleware that refuses requests without access or over the limits.

    Args:
        app: The application.
        settings: Token, hosts and sizes.
    """

    def __init__(self, app: App, settings: ServerSettings) -> None:
        self.app = app
        self.settings = settings
        self._token = settings.token.encode() if settings.token else None
        self._hosts = {name.lower() for name in settings.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket, which no route supports
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers(scope)
        scope.setdefault("state", {})["authorized"] = False
        response = _Response(send, api=scope["path"].startswith("/api/"))
        try:
            limit = self._admit(scope, headers)
        except ApiError as refusal:
            await response.refuse(refusal)
            return
        body = _Body(receive, limit, self.settings.receive_seconds)
        try:
            await self.app(scope, body, response.unless_refused(body))
        except Exception:
            if body.refusal is None:
                raise
        if body.refusal is not None:
            await response.refuse(body.refusal)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> int:
        """The maximum size of the body in bytes; raises ApiError if the request is refused."""
        host = headers.get("host", "")
        if _without_port(host) not in self._hosts:
            raise ApiError(
                421,
                f"the host name {host[:100]!r} is not accepted",
                "Start the server with --allow-host NAME to accept it.",
            )
        path, method = scope["path"], scope["method"]
        scope["state"]["authorized"] = authorized = self._authorized(headers)
        if not (authorized or path in OPEN or path.startswith(OPEN_FOLDERS)):
            raise ApiError(
                401,
                "this server requires a token",
                "Send it as the header `Authorization: Bearer TOKEN`.",
                {"WWW-Authenticate": "Bearer"},
            )
        if method not in ("GET", "HEAD"):
            _refuse_other_sites(headers, host)
        if len(scope.get("query_string", b"")) > MAX_QUERY_LENGTH:
            raise ApiError(
                414, f"the query string is longer than {MAX_QUERY_LENGTH} characters", "Shorten it."
            )
        limit = self.settings.body_bytes
        if path in UPLOADS:
            limit += self.settings.upload_bytes
        length = headers.get("content-length", "0")
        if not length.isdecimal():
            raise ApiError(400, "Content-Length is not a number")
        if int(length[:20]) > limit:
            raise _too_large(limit)
        return limit

    def _authorized(self, headers: dict[str, str]) -> bool:
        if self._token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode("latin-1", "replace"), self._token)
        return same and scheme.lower() == "bearer"


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdecimal() else host.lower()


def _refuse_other_sites(headers: dict[str, str], host: str) -> None:
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
    foreign = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    if foreign or site not in ("same-origin", "none"):
        raise ApiError(403, "this request comes from a page of another site", "Use the page of this server.")


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the request is larger than {limit:,} bytes", "Send a smaller image or request.")


class _Body:
    """An ASGI receive channel that limits the size of a body and the time it takes to arrive."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._limit, self._count = receive, limit, 0
        self._until = time.monotonic() + seconds
        self._seconds = seconds
        self._complete = False
        self.refusal: ApiError | None = None

    async def __call__(self) -> Message:
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if self._complete:  # only the disconnect follows, which may take long
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            self.refusal = ApiError(
                408, f"the request did not arrive within {self._seconds:g} seconds", "Try again."
            )
            return {"type": "http.disconnect"}
        if message["type"] == "http.request":
            self._count += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._count > self._limit:
                self.refusal = _too_large(self._limit)
                return {"type": "http.disconnect"}
        return message


class _Response:
    """Sends a response with our headers, or an error instead of it if the request was refused midway."""

    def __init__(self, send: Send, api: bool) -> None:
        self._send, self._api = send, api
        self._started = False

    def unless_refused(self, body: _Body) -> Send:
        async def send(message: Message) -> None:
            if body.refusal is None or self._started:
                await self._pass(message)

        return send

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            own = {name.lower() for name, _ in message["headers"]}
            extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in own]
            if b"cache-control" not in own:  # responses are current, files belong to this version
                extra.append((b"cache-control", b"no-store" if self._api else b"no-cache"))
            message["headers"] = [*message["headers"], *extra]
        await self._send(message)

    async def refuse(self, refusal: ApiError) -> None:
        if self._started:
            return
        content = json.dumps(refusal.body()).encode()
        headers = {
            "content-type": MEDIA_TYPE,
            "content-length": str(len(content)),
            "connection": "close",  # the rest of the body is not read
            **{name.lower(): value for name, value in refusal.headers.items()},
        }
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._pass({"type": "http.response.start", "status": refusal.status, "headers": encoded})
        await self._pass({"type": "http.response.body", "body": content})

"""Who may come in, and with how much: looked at before a byte of the request is understood.

- The Host header must be a name that this server was given. A page of another site that makes a browser
  resolve its own name to this machine (DNS rebinding) is stopped here.
- With a token, everything but the static page and a bare sign of life needs it; compared in constant time.
- A request that changes or uploads something and comes from another site's page (Origin, Sec-Fetch-Site) is
  refused: a browser would send it to a server on loopback, too. No CORS header is ever sent.
- Bodies are counted while they arrive, and have to arrive in time.

Every answer carries headers that let the page do no more than it needs (see `PAGE_POLICY`).

Plain ASGI rather than a framework's middleware: it has to see a body before anything reads it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from swath.serving.http.errors import ApiError
from swath.serving.settings import ServerSettings

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LONGEST_QUERY = 4096  # characters after the question mark
UPLOADS = ("/api/search/image",)
# Without a token: the page's own files, which hold no data and ask for the token, and a sign of life.
OPEN = ("/", "/favicon.ico", "/api/health")
OPEN_FOLDERS = ("/page/",)

# MapLibre makes its worker from a blob and shows tiles fetched with a token as blobs.
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
    """ASGI middleware that lets in what may come in.

    Args:
        app: What is behind it.
        settings: Token, hosts and sizes.
    """

    def __init__(self, app: App, settings: ServerSettings) -> None:
        self.app = app
        self.settings = settings
        self._token = settings.token.encode() if settings.token else None
        self._hosts = {name.lower() for name in settings.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's event stream."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # a websocket; there is none here
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = _headers(scope)
        scope.setdefault("state", {})["known"] = False
        answer = _Answer(send, api=scope["path"].startswith("/api/"))
        try:
            limit = self._admit(scope, headers)
        except ApiError as refusal:
            await answer.refuse(refusal)
            return
        body = _Body(receive, limit, self.settings.receive_seconds)
        try:
            await self.app(scope, body, answer.unless(body))
        except Exception:
            if body.refusal is None:
                raise
        if body.refusal is not None:
            await answer.refuse(body.refusal)

    def _admit(self, scope: Scope, headers: dict[str, str]) -> int:
        """How many bytes of body may come, or a Refusal."""
        host = headers.get("host", "")
        if _without_port(host) not in self._hosts:
            raise ApiError(
                421,
                f"this server does not go by the name {host[:100]!r}",
                "start it with --allow-host NAME if it should",
            )
        path, method = scope["path"], scope["method"]
        scope["state"]["known"] = known = self._knows(headers)
        if not (known or path in OPEN or path.startswith(OPEN_FOLDERS)):
            raise ApiError(
                401,
                "this server wants its token",
                "send it as the header `Authorization: Bearer TOKEN`",
                {"WWW-Authenticate": "Bearer"},
            )
        if method not in ("GET", "HEAD"):
            _refuse_other_sites(headers, host)
        if len(scope.get("query_string", b"")) > LONGEST_QUERY:
            raise ApiError(
                414, f"the query is longer than {LONGEST_QUERY} characters", "ask for less at once"
            )
        limit = self.settings.body_bytes
        if path in UPLOADS:
            limit += self.settings.upload_bytes
        stated = headers.get("content-length", "0")
        if not stated.isdecimal():
            raise ApiError(400, "Content-Length is not a number", None)
        if int(stated[:20]) > limit:
            raise _too_large(limit)
        return limit

    def _knows(self, headers: dict[str, str]) -> bool:
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
        raise ApiError(403, "this request comes from the page of another site", "use this server's own page")


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, f"the request is larger than {limit:,} bytes", "send a smaller image, or ask for less"
    )


class _Body:
    """The body of a request as it arrives, counted and timed; an ASGI receive."""

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive, self._limit, self._count = receive, limit, 0
        self._until = time.monotonic() + seconds
        self._seconds = seconds
        self._complete = False
        self.refusal: ApiError | None = None

    async def __call__(self) -> Message:
        if self.refusal is not None:
            return {"type": "http.disconnect"}
        if self._complete:  # what comes now is the end of the connection, which may be long in coming
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            self.refusal = ApiError(
                408, f"the request did not arrive within {self._seconds:g} seconds", "try again"
            )
            return {"type": "http.disconnect"}
        if message["type"] == "http.request":
            self._count += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._count > self._limit:
                self.refusal = _too_large(self._limit)
                return {"type": "http.disconnect"}
        return message


class _Answer:
    """What goes back, with our headers; nothing of an application whose request was refused midway."""

    def __init__(self, send: Send, api: bool) -> None:
        self._send, self._api = send, api
        self._started = False

    def unless(self, body: _Body) -> Send:
        async def send(message: Message) -> None:
            if body.refusal is None or self._started:
                await self._pass(message)

        return send

    async def _pass(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._started = True
            own = {name.lower() for name, _ in message["headers"]}
            extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in own]
            if b"cache-control" not in own:  # answers are of this moment, files of this version
                extra.append((b"cache-control", b"no-store" if self._api else b"no-cache"))
            message["headers"] = [*message["headers"], *extra]
        await self._send(message)

    async def refuse(self, refusal: ApiError) -> None:
        if self._started:
            return
        content = json.dumps(refusal.body()).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            "connection": "close",  # the rest of the body is not read
            **{name.lower(): value for name, value in refusal.headers.items()},
        }
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await self._pass({"type": "http.response.start", "status": refusal.status, "headers": encoded})
        await self._pass({"type": "http.response.body", "body": content})

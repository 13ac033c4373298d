"""Errors of the HTTP interface, as RFC 9457 problem details that contain no paths of the server's disk."""

from __future__ import annotations

import re
from http import HTTPStatus

from swath.errors import (
    ArchiveUnavailable,
    ChipNotFound,
    ContractError,
    ImageryError,
    InvalidQuery,
    SwathError,
)

MEDIA_TYPE = "application/problem+json"


class ApiError(Exception):
    """A response with an error status.

    Attributes:
        status: HTTP status, 400 or more.
        detail: What is wrong.
        fix: What to do about it, or None.
        headers: Further headers, such as Retry-After.
    """

    def __init__(
        self, status: int, detail: str, fix: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.fix, self.headers = status, detail, fix, headers or {}

    def body(self) -> dict[str, str | int | None]:
        """The problem details (RFC 9457); `fix` is our extension member."""
        title = HTTPStatus(self.status).phrase
        return {
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "detail": self.detail,
            "fix": self.fix,
        }


_PATH = re.compile(r"(?<![\w/:.-])(?:[a-z][a-z0-9+]*:/)?/(?:[^\s/'\":;,()]+/)*([^\s/'\":;,()]+)")


def redact_paths(text: str, *paths: str) -> str:
    """`text` with file paths reduced to their last component.

    Args:
        text: A message for the operator of the server.
        paths: Paths that it may contain, even with spaces.
    """
    for path in sorted((path for path in paths if path), key=len, reverse=True):
        text = text.replace(path, path.rstrip("/").rsplit("/", 1)[-1])
    return _PATH.sub(r"\1", text)


def api_error_from(error: SwathError, *paths: str) -> ApiError:
    """The response for an error of the library; its class determines the status.

    Args:
        error: The error.
        paths: Paths that its message may contain.
    """
    text = str(error)
    for path in paths:
        text = text.removeprefix(f"{path}: ")
    text = redact_paths(text, *paths)
    # Options of the command line are keys of a request here.
    text = re.sub(r"--(?:query-)?(?=[a-z])", "", text)
    detail, fix, *_ = [*re.split(r"; |\. (?=[A-Z])", text, maxsplit=1), ""]
    if isinstance(error, ArchiveUnavailable):
        return ApiError(
            503,
            f"the archive cannot be read at the moment: {detail}",
            "Try again, and inform the operator of this server.",
            {"Retry-After": "10"},
        )
    if isinstance(error, ChipNotFound):
        return ApiError(404, detail, fix or None)
    if isinstance(error, InvalidQuery | ImageryError | ContractError):
        return ApiError(422, detail, fix or None)
    return ApiError(400, detail, fix or None)

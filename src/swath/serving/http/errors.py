"""Refusing a request in words that help, and that tell nothing about the server's disk."""

from __future__ import annotations

import re

from swath.errors import ArchiveError, ContractError, ImageryError, SwathError


class ApiError(Exception):
    """An answer other than success.

    Attributes:
        status: HTTP status, 400 or more.
        what: What is wrong.
        fix: What to do about it, or None.
        headers: Further headers, such as Retry-After.
    """

    def __init__(
        self, status: int, what: str, fix: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(what)
        self.status, self.what, self.fix, self.headers = status, what, fix, headers or {}

    def body(self) -> dict[str, dict[str, str | None]]:
        """As the JSON that is sent."""
        return {"error": {"what": self.what, "fix": self.fix}}


_PATH = re.compile(r"(?<![\w/:.-])(?:[a-z][a-z0-9+]*:/)?/(?:[^\s/'\":;,()]+/)*([^\s/'\":;,()]+)")


def redact_paths(text: str, *known: str) -> str:
    """`text` with file paths cut to their last part.

    Args:
        text: A message that was written for the person at the server.
        known: Paths that may be in it, spaces and all.
    """
    for path in sorted((path for path in known if path), key=len, reverse=True):
        text = text.replace(path, path.rstrip("/").rsplit("/", 1)[-1])
    return _PATH.sub(r"\1", text)


_BROKEN = re.compile(
    r"damaged|no archive there|not an archive|newer Swath|disk is full|cannot be listed|has no version"
)
_UNKNOWN = re.compile(r"no chip shows|has no chip|no place is shown")


def api_error_from(error: SwathError, *known: str) -> ApiError:
    """What a client is told about an error of Swath's.

    Trouble with the archive itself is the server's (503); everything else is about what was asked for.

    Args:
        error: It.
        known: Paths that its message may begin with or hold.
    """
    text = str(error)
    for path in known:
        text = text.removeprefix(f"{path}: ")
    text = redact_paths(text, *known)
    text = re.sub(
        r"--(?:query-)?(?=[a-z])", "", text
    )  # options of the command line are keys of a request here
    what, fix, *_ = [*re.split(r"; |\. (?=[A-Z])", text, maxsplit=1), ""]
    if isinstance(error, ArchiveError) and _BROKEN.search(text):
        return ApiError(
            503,
            f"the archive cannot be read now: {what}",
            "try again, and tell whoever runs this server",
            {"Retry-After": "10"},
        )
    if isinstance(error, ArchiveError) and _UNKNOWN.search(text):
        return ApiError(404, what, fix or None)
    return ApiError(422 if isinstance(error, ImageryError | ContractError) else 400, what, fix or None)

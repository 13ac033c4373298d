"""A client of `swath serve`, typed: what it gives are the models of `swath.serving.http.schemas`.

with Client("http://127.0.0.1:8000") as archive:
    chip = archive.chips(limit=1).chips[0]
    for found in archive.search(like=[chip.id], k=5).answers:
        print(found.score, found.id, found.sensor)
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel

from swath.errors import SwathError
from swath.serving.http.schemas import (
    ArchiveInfo,
    ChangeCollection,
    ChipPage,
    ChipRecord,
    FeatureCollection,
    Health,
    SearchResponse,
)
from swath.serving.settings import is_loopback

M = TypeVar("M", bound=BaseModel)
Filters = Mapping[str, Any]
_LONGEST_WAIT = 10.0  # seconds that a busy server may ask for


class ServiceError(SwathError):
    """The server refused a request, or cannot be reached.

    Attributes:
        status: HTTP status; 0 if there was no answer.
        what: What is wrong.
        fix: What to do about it, or None.
    """

    def __init__(self, status: int, what: str, fix: str | None = None) -> None:
        super().__init__(f"{what}; {fix}" if fix else what)
        self.status, self.what, self.fix = status, what, fix


class Client:
    """Asks one server; one client may be used by one thread at a time.

    Args:
        url: Where it is.
        token: If the server wants one.
        timeout: Seconds without an answer until it is given up.
        patience: How often a request is sent again to a server that is busy, after the time it asks for.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout: float = 60.0,
        patience: int = 3,
    ) -> None:
        try:
            import httpx
        except ImportError:
            raise SwathError("the client needs httpx: pip install 'swath[serve]'") from None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # What is on this machine is not asked for through a proxy, whatever the environment says.
        near = is_loopback(urlsplit(url).hostname or "")
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=not near)
        self._patience = patience

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    # --- the archive ------------------------------------------------------------------------------------

    def archive(self) -> ArchiveInfo:
        """What the archive holds, and how it can be searched."""
        return self._get("/api/archive", ArchiveInfo)

    def chip(self, id: str) -> ChipRecord:
        """One chip."""
        return self._get(f"/api/chips/{quote(id)}", ChipRecord)

    def picture(self, id: str, size: int = 256) -> bytes:
        """A chip as PNG, its longer side at most `size` pixels."""
        content: bytes = self._send("GET", f"/api/chips/{quote(id)}/picture", params={"size": size}).content
        return content

    def chips(self, *, limit: int = 48, offset: int = 0, **filters: Any) -> ChipPage:
        """Chips in a mixed order; filters are sensor, gsd_min, gsd_max, time_min, time_max."""
        return self._get("/api/chips", ChipPage, limit=limit, offset=offset, **filters)

    def footprints(
        self, bbox: Sequence[float] | None = None, *, limit: int = 2000, **filters: Any
    ) -> FeatureCollection:
        """Chips that touch a box (west, south, east, north), as GeoJSON; filters as for `chips`."""
        box = ",".join(f"{side:.8g}" for side in bbox) if bbox is not None else None
        return self._get("/api/footprints", FeatureCollection, bbox=box, limit=limit, **filters)

    def tile(self, z: int, x: int, y: int, **filters: Any) -> bytes | None:
        """A map tile as PNG, None where there is no imagery; filters are sensor, time_min, time_max."""
        answer = self._send("GET", f"/api/tiles/{z}/{x}/{y}.png", params=_given(filters))
        return answer.content if answer.status_code == 200 else None

    # --- searching --------------------------------------------------------------------------------------

    def search(
        self,
        *,
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        place: tuple[float, float] | None = None,
        area: Mapping[str, Any] | None = None,
        k: int = 20,
        filters: Filters | None = None,
        diverse: bool = False,
        group_by_location: bool = False,
    ) -> SearchResponse:
        """Search by chips, a place (longitude, latitude) or an area (GeoJSON).

        Args:
            like: Ids of chips to find more of.
            unlike: Ids of chips to keep away from.
            place: A point; the chips that show it are the examples.
            area: A polygon; the chips inside are the examples.
            k: How many answers.
            filters: Any of sensors, gsd, time, area, valid_min; see `swath.serving.http.schemas.Filters`.
            diverse: No ten answers from one field.
            group_by_location: One answer a place.

        Raises:
            ServiceError: What the server says.
        """
        asked = {
            "like": list(like), "unlike": list(unlike), "place": place, "area": area, "k": k,
            "filters": dict(filters or {}), "diverse": diverse, "group_by_location": group_by_location,
        }  # fmt: skip
        return self._read(self._send("POST", "/api/search", json=_plain(asked)), SearchResponse)

    def search_image(
        self,
        image: str | os.PathLike[str] | bytes,
        *,
        sensor: str | None = None,
        gsd: float | None = None,
        like: Sequence[str] = (),
        unlike: Sequence[str] = (),
        k: int = 20,
        filters: Filters | None = None,
        diverse: bool = False,
        group_by_location: bool = False,
    ) -> SearchResponse:
        """Search by an image: a file or its bytes; see `search`.

        Args:
            image: TIFF, PNG, JPEG or WebP.
            sensor: What it was taken with, where the server cannot tell.
            gsd: Metres per pixel of an image without georeference.
            like: Chips that are wanted, too.
            unlike: Chips to keep away from.
            k: How many answers.
            filters: As for `search`.
            diverse: As for `search`.
            group_by_location: As for `search`.
        """
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        asked = {
            "sensor": sensor, "gsd": gsd, "like": list(like), "unlike": list(unlike), "k": k,
            "filters": dict(filters or {}), "diverse": diverse, "group_by_location": group_by_location,
        }  # fmt: skip
        files = {"file": ("image", content, "application/octet-stream")}
        options = {"options": json.dumps(_plain(asked))}
        return self._read(self._send("POST", "/api/search/image", files=files, data=options), SearchResponse)

    def changes(
        self, before: str, after: str, *, sensor: str | None = None, limit: int = 100
    ) -> ChangeCollection:
        """Places that changed most between two days, or periods FIRST/LAST."""
        return self._get(
            "/api/changes", ChangeCollection, before=before, after=after, sensor=sensor, limit=limit
        )

    # --- the service ------------------------------------------------------------------------------------

    def health(self) -> Health:
        """Whether the service can answer."""
        return self._get("/api/health", Health)

    def metrics(self) -> str:
        """Figures in the text format of Prometheus."""
        text: str = self._send("GET", "/metrics").text
        return text

    # --- sending ----------------------------------------------------------------------------------------

    def _get(self, path: str, model: type[M], **query: Any) -> M:
        return self._read(self._send("GET", path, params=_given(query)), model)

    def _read(self, answer: Any, model: type[M]) -> M:
        return model.model_validate_json(answer.content)

    def _send(self, method: str, path: str, **parts: Any) -> Any:
        """The answer, or a ServiceError; who is told to come again later does."""
        import httpx

        for attempt in range(self._patience + 1):
            try:
                answer = self._http.request(method, path, **parts)
            except httpx.HTTPError as error:
                raise ServiceError(
                    0, f"{self._http.base_url} does not answer ({error})", "is `swath serve` running there?"
                ) from None
            if answer.status_code != 503 or attempt == self._patience:
                break
            asked = answer.headers.get("Retry-After", "1")
            time.sleep(min(_LONGEST_WAIT, float(asked) if asked.isdecimal() else 1.0))
        if answer.status_code >= 400:
            raise _error(answer)
        return answer


def _error(answer: Any) -> ServiceError:
    try:
        told = answer.json()["error"]
        return ServiceError(answer.status_code, str(told["what"]), told["fix"])
    except (ValueError, KeyError, TypeError):  # something else than Swath answered
        return ServiceError(
            answer.status_code, f"{answer.url} answered {answer.status_code} {answer.text:.80}"
        )


def _given(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in query.items() if value is not None}


def _plain(value: Any) -> Any:
    """Without datetimes and None, which JSON does not have or need not have."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value

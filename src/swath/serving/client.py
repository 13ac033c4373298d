"""A typed client of `swath serve`; its methods return the models of `swath.serving.http.schemas`.

with Client("http://127.0.0.1:8000") as client:
    chip = client.chips(limit=1).chips[0]
    for result in client.search(like=[chip.id], k=5).results:
        print(result.score, result.id, result.sensor)
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
_MAX_RETRY_WAIT = 10.0  # seconds, whatever Retry-After says


class ServiceError(SwathError):
    """The server refused a request, or cannot be reached.

    Attributes:
        status: HTTP status; 0 if the server did not respond.
        detail: What is wrong.
        fix: What to do about it, or None.
    """

    def __init__(self, status: int, detail: str, fix: str | None = None) -> None:
        super().__init__(f"{detail}. {fix}" if fix else detail)
        self.status, self.detail, self.fix = status, detail, fix


class Client:
    """Client of one server; not thread-safe.

    Args:
        url: URL of the server.
        token: Token, if the server requires one.
        timeout: Timeout of a request in seconds.
        retries: How often a request is repeated while the server is busy, after the time it requests.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout: float = 60.0,
        retries: int = 3,
    ) -> None:
        try:
            import httpx
        except ImportError:
            raise SwathError(
                "The client needs httpx. Run pip install '.[serve]' in the clone of Swath."
            ) from None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # No proxy for a server on this machine, whatever the environment says.
        local = is_loopback(urlsplit(url).hostname or "")
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout, trust_env=not local)
        self._retries = retries

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # --- the archive ------------------------------------------------------------------------------------

    def archive(self) -> ArchiveInfo:
        """Contents of the archive, and how it can be searched."""
        return self._get("/api/archive", ArchiveInfo)

    def chip(self, id: str) -> ChipRecord:
        """One chip."""
        return self._get(f"/api/chips/{quote(id)}", ChipRecord)

    def image(self, id: str, size: int = 256) -> bytes:
        """A chip as PNG of at most `size` pixels in height and width."""
        content: bytes = self._send("GET", f"/api/chips/{quote(id)}/image", params={"size": size}).content
        return content

    def chips(self, *, limit: int = 48, offset: int = 0, **filters: Any) -> ChipPage:
        """Chips in a fixed shuffled order; filters are sensor, gsd_min, gsd_max, datetime."""
        return self._get("/api/chips", ChipPage, limit=limit, offset=offset, **filters)

    def footprints(
        self, bbox: Sequence[float] | None = None, *, limit: int = 2000, **filters: Any
    ) -> FeatureCollection:
        """Chips that touch a box (west, south, east, north), as GeoJSON; filters as for `chips`."""
        box = ",".join(f"{edge:.8g}" for edge in bbox) if bbox is not None else None
        return self._get("/api/footprints", FeatureCollection, bbox=box, limit=limit, **filters)

    def tile(self, z: int, x: int, y: int, **filters: Any) -> bytes | None:
        """A map tile as PNG, None where there is no imagery; filters are sensor and datetime."""
        response = self._send("GET", f"/api/tiles/{z}/{x}/{y}.png", params=_parameters(filters))
        return response.content if response.status_code == 200 else None

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
            unlike: Ids of chips to avoid.
            place: A point; the chips that cover it are the examples.
            area: A polygon; the chips inside are the examples.
            k: Number of results.
            filters: Any of sensors, gsd, datetime, intersects, min_valid, max_cloud; see
                `swath.serving.http.schemas.Filters`. `datetime` may be a pair of datetimes.
            diverse: Avoid near-duplicate results.
            group_by_location: One result per place.

        Raises:
            ServiceError: The server refused the request, or cannot be reached.
        """
        body = {
            "like": list(like), "unlike": list(unlike), "place": place, "area": area, "k": k,
            "filters": dict(filters or {}), "diverse": diverse, "group_by_location": group_by_location,
        }  # fmt: skip
        return self._read(self._send("POST", "/api/search", json=_plain(body)), SearchResponse)

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
            sensor: Sensor of the image, if several fit.
            gsd: Metres per pixel of an image without georeference.
            like: Ids of further examples.
            unlike: Ids of chips to avoid.
            k: Number of results.
            filters: As for `search`.
            diverse: As for `search`.
            group_by_location: As for `search`.
        """
        content = image if isinstance(image, bytes) else Path(image).read_bytes()
        body = {
            "sensor": sensor, "gsd": gsd, "like": list(like), "unlike": list(unlike), "k": k,
            "filters": dict(filters or {}), "diverse": diverse, "group_by_location": group_by_location,
        }  # fmt: skip
        files = {"file": ("image", content, "application/octet-stream")}
        options = {"options": json.dumps(_plain(body))}
        return self._read(self._send("POST", "/api/search/image", files=files, data=options), SearchResponse)

    def changes(
        self, before: str, after: str, *, sensor: str | None = None, limit: int = 100
    ) -> ChangeCollection:
        """The largest changes between two days, or intervals FIRST/LAST."""
        return self._get(
            "/api/changes", ChangeCollection, before=before, after=after, sensor=sensor, limit=limit
        )

    # --- the server -------------------------------------------------------------------------------------

    def health(self) -> Health:
        """State of the server."""
        return self._get("/api/health", Health)

    def metrics(self) -> str:
        """Metrics in the text format of Prometheus."""
        text: str = self._send("GET", "/metrics").text
        return text

    # --- sending ----------------------------------------------------------------------------------------

    def _get(self, path: str, model: type[M], **query: Any) -> M:
        return self._read(self._send("GET", path, params=_parameters(query)), model)

    def _read(self, response: Any, model: type[M]) -> M:
        return model.model_validate_json(response.content)

    def _send(self, method: str, path: str, **parts: Any) -> Any:
        """The response; raises ServiceError on an error status, after retries while the server is busy."""
        import httpx

        for attempt in range(self._retries + 1):
            try:
                response = self._http.request(method, path, **parts)
            except httpx.HTTPError as error:
                raise ServiceError(
                    0,
                    f"{self._http.base_url} does not respond ({error})",
                    "Check that `swath serve` is running there.",
                ) from None
            if response.status_code != 503 or attempt == self._retries:
                break
            delay = response.headers.get("Retry-After", "1")
            time.sleep(min(_MAX_RETRY_WAIT, float(delay) if delay.isdecimal() else 1.0))
        if response.status_code >= 400:
            raise _error(response)
        return response


def _error(response: Any) -> ServiceError:
    status = response.status_code
    try:
        problem = response.json()
        return ServiceError(status, str(problem["detail"]), problem.get("fix"))
    except (ValueError, KeyError, TypeError, AttributeError):  # not a response of Swath
        return ServiceError(status, f"{response.url} responded with status {status}: {response.text:.80}")


def _parameters(query: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(name, value) for name, value in query.items() if value is not None}


def _value(name: str, value: Any) -> Any:
    """A parameter or key; a pair of datetimes becomes an interval FIRST/LAST, None is an open end."""
    if name == "datetime" and isinstance(value, list | tuple):
        return "/".join(".." if end is None else str(_plain(end)) for end in value)
    return _plain(value)


def _plain(value: Any) -> Any:
    """A value as JSON: datetimes as text, without keys that are None."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: _value(name, part) for name, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value

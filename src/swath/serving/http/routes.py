"""The HTTP interface. Every handler checks its arguments by type and hands the work to a lane."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from swath._version import __version__
from swath.archive.query.filters import Filter
from swath.serving.http.api_docs import render_api_docs
from swath.serving.http.errors import ApiError
from swath.serving.http.metrics import CONTENT_TYPE
from swath.serving.http.query_types import ChipId, LastMoment, Moment, Name, parse_interval
from swath.serving.http.schemas import (
    ArchiveInfo,
    ChangeCollection,
    ChipPage,
    ChipRecord,
    FeatureCollection,
    Health,
    ImageSearchOptions,
    SearchRequest,
    SearchResponse,
)
from swath.serving.service import ServerState
from swath.serving.workers.archive_handle import chip_record
from swath.serving.workers.browse import filter_from_query, list_chips, list_footprints
from swath.serving.workers.search import changes, check_count, search_by_example, search_by_image
from swath.serving.workers.tiles import DEEPEST
from swath.serving.workers.uploads import temporary_upload
from swath.serving.workers.worker_pool import WorkerPool

router = APIRouter()


def _service(request: Request) -> ServerState:
    service: ServerState = request.app.state.service
    return service


Serving = Annotated[ServerState, Depends(_service)]


async def _answer(lane: WorkerPool, work: Callable[..., BaseModel], *arguments: object) -> Response:
    """What `work` gives as JSON, which is written in the lane's thread, too: it may be large."""
    content = await lane.run(lambda: work(*arguments).model_dump_json().encode())
    return Response(content, media_type="application/json")


Id = Annotated[ChipId, Path(description="id of a chip, whole")]


# --- the archive and its chips ----------------------------------------------------------------------------


@router.get("/api/archive", tags=["archive"], response_model=ArchiveInfo)
async def archive(service: Serving) -> Response:
    """What the archive holds, and how it can be searched."""
    return await _answer(service.searching, service.holdings.info)


@router.get("/api/chips/{id:path}/picture", tags=["archive"], response_class=Response)
async def picture(
    request: Request, service: Serving, id: Id, size: Annotated[int, Query(ge=16, le=1024)] = 256
) -> Response:
    """A chip as PNG, its longer side at most `size` pixels."""
    content = await service.drawing.run(service.pictures.chip, id, size)
    return _png(request, content)


@router.get("/api/chips/{id:path}", tags=["archive"], response_model=ChipRecord)
async def chip(service: Serving, id: Id) -> Response:
    """One chip."""
    return await _answer(service.searching, lambda: chip_record(service.holdings.chip(id)))


class FilterParams(BaseModel):
    """Filters that a query string may hold."""

    sensor: Name | None = None
    gsd_min: float | None = Field(None, ge=0, allow_inf_nan=False)
    gsd_max: float | None = Field(None, ge=0, allow_inf_nan=False)
    time_min: Moment | None = None
    time_max: LastMoment | None = None

    def where(self, bbox: str | None = None) -> Filter:
        """As the archive's filter."""
        return filter_from_query(
            self.sensor, (self.gsd_min, self.gsd_max), (self.time_min, self.time_max), bbox
        )


class FootprintParams(FilterParams):
    """What may be asked of footprints."""

    model_config = ConfigDict(extra="forbid")
    bbox: str | None = Field(None, max_length=200, description="west,south,east,north in degrees")
    limit: int = Field(2000, ge=0)


class ChipListParams(FilterParams):
    """What may be asked of chips to begin with."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(48, ge=0)
    offset: int = Field(0, ge=0, le=10**9)


@router.get("/api/footprints", tags=["archive"], response_model=FeatureCollection)
async def chips_of_a_place(service: Serving, asked: Annotated[FootprintParams, Query()]) -> Response:
    """Chips whose footprint's bounds touch a box, as GeoJSON; evenly chosen where there are too many."""
    where = asked.where(asked.bbox)
    return await _answer(service.searching, list_footprints, service.holdings, where, asked.limit)


@router.get("/api/chips", tags=["archive"], response_model=ChipPage)
async def chips_to_begin_with(service: Serving, asked: Annotated[ChipListParams, Query()]) -> Response:
    """Chips of the whole archive in a mixed order, by pages."""
    where = asked.where()
    return await _answer(service.searching, list_chips, service.holdings, where, asked.limit, asked.offset)


# --- searching --------------------------------------------------------------------------------------------


@router.post("/api/search", tags=["search"], response_model=SearchResponse)
async def search_chips(service: Serving, asked: SearchRequest) -> Response:
    """Search by chips (more like these, less like those), by a place, or by an area."""
    return await _answer(service.searching, search_by_example, service.holdings, asked)


@router.get("/api/changes", tags=["search"], response_model=ChangeCollection)
async def places_that_changed(
    service: Serving,
    before: Annotated[str, Query(max_length=100, description="a day, or FIRST/LAST")],
    after: Annotated[str, Query(max_length=100, description="a later day, or FIRST/LAST")],
    sensor: Annotated[Name | None, Query()] = None,
    limit: Annotated[int, Query(ge=1)] = 100,
) -> Response:
    """Places that changed most between two days or periods, by their embeddings."""
    periods = _period("before", before), _period("after", after)
    return await _answer(service.searching, changes, service.holdings, *periods, sensor, limit)


def _period(name: str, text: str) -> tuple[datetime, datetime]:
    try:
        return parse_interval(text)
    except ValueError:
        what = f"{name}: {text[:60]!r} is no day and no range of time"
        raise ApiError(422, what, "such as 2021-06-30 or 2021-06-01/2021-06-30") from None


_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "TIFF, PNG, JPEG or WebP",
                        },
                        "options": {"type": "string", "description": "JSON of ImageOptions"},
                    },
                }
            }
        },
    }
}
_OPTIONS = TypeAdapter(ImageSearchOptions)


@router.post("/api/search/image", tags=["search"], openapi_extra=_UPLOAD, response_model=SearchResponse)
async def search_image(request: Request, service: Serving) -> Response:
    """Search by an uploaded image (form field `file`; `options` holds JSON)."""
    if service.holdings.model is None:
        raise ApiError(
            501, "this server searches by chips and places only", "start it with --model to search by image"
        )
    async with request.form(max_files=1, max_fields=1, max_part_size=service.settings.body_bytes) as form:
        file, text = form.get("file"), form.get("options", "{}")
        if file is None or isinstance(file, str) or not isinstance(text, str):
            raise ApiError(422, "the form has no file", "send it as the field `file` of multipart/form-data")
        try:
            options = _OPTIONS.validate_json(text)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise ApiError(
                422, f"options: {where}: {problem['msg']}", "see /docs for what they may hold"
            ) from None
        check_count(service.settings, options.k)

        def work() -> SearchResponse:
            with temporary_upload(file.file) as path:
                query = service.images.query(path, options.sensor, options.gsd)
            return search_by_image(service.holdings, query, options)

        return await _answer(service.embedding, work)


# --- pictures of the map ----------------------------------------------------------------------------------


@router.get("/api/tiles/{z}/{x}/{y}.png", tags=["map"], response_class=Response)
async def tile(
    request: Request,
    service: Serving,
    z: Annotated[int, Path(ge=0, le=DEEPEST)],
    x: Annotated[int, Path(ge=0)],
    y: Annotated[int, Path(ge=0)],
    sensor: Annotated[Name | None, Query()] = None,
    time_min: Annotated[Moment | None, Query()] = None,
    time_max: Annotated[LastMoment | None, Query()] = None,
) -> Response:
    """The archive's own imagery as a tile of 256 pixels in Web Mercator; 204 where there is none."""
    if max(x, y) >= 2**z:
        raise ApiError(404, f"zoom {z} has tiles 0 to {2**z - 1}", None)
    content = await service.drawing.run(
        service.pictures.tile, z, x, y, filter_from_query(sensor, (None, None), (time_min, time_max))
    )
    return _png(request, content)


def _png(request: Request, content: bytes | None) -> Response:
    """A picture that a browser may keep for a minute and then asks whether it is still the same."""
    headers = {"Cache-Control": "private, max-age=60"}
    if content is None:
        return Response(status_code=204, headers=headers)
    headers["ETag"] = tag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="image/png", headers=headers)


# --- the service itself -----------------------------------------------------------------------------------


@router.get("/api/health", tags=["service"])
async def health(request: Request, service: Serving) -> Health | dict[str, str]:
    """Whether the service can answer; to who has no token only that."""
    info = await service.searching.run(service.holdings.info)
    if not request.state.known:
        return {"status": "ok"}
    return Health(status="ok", version=__version__, rows=info.rows)


@router.get("/metrics", tags=["service"], response_class=Response)
async def metrics(service: Serving) -> Response:
    """Figures for Prometheus."""
    text = await service.searching.run(service.metrics_text)
    return Response(text, media_type=CONTENT_TYPE)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """This interface as a page."""
    return Response(render_api_docs(request.app.openapi()), media_type="text/html; charset=utf-8")

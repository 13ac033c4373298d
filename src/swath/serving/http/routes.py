"""The routes. Every handler validates its arguments by type and runs the work in a worker pool."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from swath._version import __version__
from swath.archive.query.filters import Filter
from swath.serving.http.api_docs import render_api_docs
from swath.serving.http.errors import ApiError
from swath.serving.http.metrics import CONTENT_TYPE
from swath.serving.http.query_types import ChipId, Interval, Name, parse_interval, unknown_key_text
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
from swath.serving.workers.tiles import MAX_ZOOM
from swath.serving.workers.uploads import temporary_upload
from swath.serving.workers.worker_pool import WorkerPool


def _refuse_unknown_parameters(request: Request) -> None:
    """Raise ApiError (422) for query parameters that the route does not declare."""
    route = request.scope["route"]
    operation = request.app.openapi()["paths"].get(route.path_format, {}).get(request.method.lower(), {})
    names = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
    if unknown := sorted(set(request.query_params) - names):
        accepted = f"Accepted are {', '.join(sorted(names))}." if names else "This route has no parameters."
        raise ApiError(422, f"the parameter {unknown_key_text(unknown[0])}", accepted)


router = APIRouter(dependencies=[Depends(_refuse_unknown_parameters)])


def _server_state(request: Request) -> ServerState:
    state: ServerState = request.app.state.server
    return state


State = Annotated[ServerState, Depends(_server_state)]


async def _json(pool: WorkerPool, work: Callable[..., BaseModel], *arguments: object) -> Response:
    """The result of `work` as JSON, serialized in the thread of the pool because it may be large."""
    content = await pool.run(lambda: work(*arguments).model_dump_json().encode())
    return Response(content, media_type="application/json")


Id = Annotated[ChipId, Path(description="full id of a chip")]


# --- the archive and its chips ----------------------------------------------------------------------------


@router.get("/api/archive", tags=["archive"], response_model=ArchiveInfo)
async def archive(state: State) -> Response:
    """Contents of the archive, and how it can be searched."""
    return await _json(state.search_pool, state.archive.info)


@router.get("/api/chips/{id:path}/image", tags=["archive"], response_class=Response)
async def chip_image(
    request: Request, state: State, id: Id, size: Annotated[int, Query(ge=16, le=1024)] = 256
) -> Response:
    """A chip as PNG of at most `size` pixels in height and width."""
    content = await state.tile_pool.run(state.tiles.chip, id, size)
    return _png(request, content)


@router.get("/api/chips/{id:path}", tags=["archive"], response_model=ChipRecord)
async def chip(state: State, id: Id) -> Response:
    """One chip."""
    return await _json(state.search_pool, lambda: chip_record(state.archive.chip(id)))


class FilterParams(BaseModel):
    """Filters in the query string."""

    sensor: Name | None = None
    gsd_min: float | None = Field(None, ge=0, allow_inf_nan=False)
    gsd_max: float | None = Field(None, ge=0, allow_inf_nan=False)
    datetime: Interval | None = None

    def to_filter(self, bbox: str | None = None) -> Filter:
        """The filter of the archive."""
        return filter_from_query(self.sensor, (self.gsd_min, self.gsd_max), self.datetime, bbox)


class FootprintParams(FilterParams):
    """Parameters of `/api/footprints`."""

    model_config = ConfigDict(extra="forbid")
    bbox: str | None = Field(None, max_length=200, description="west,south,east,north in degrees")
    limit: int = Field(2000, ge=0)


class ChipListParams(FilterParams):
    """Parameters of `/api/chips`."""

    model_config = ConfigDict(extra="forbid")
    limit: int = Field(48, ge=0)
    offset: int = Field(0, ge=0, le=10**9)


@router.get("/api/footprints", tags=["archive"], response_model=FeatureCollection)
async def footprints(state: State, parameters: Annotated[FootprintParams, Query()]) -> Response:
    """Chips whose bounds touch a box, as GeoJSON; an even subset if there are more than `limit`."""
    where = parameters.to_filter(parameters.bbox)
    return await _json(state.search_pool, list_footprints, state.archive, where, parameters.limit)


@router.get("/api/chips", tags=["archive"], response_model=ChipPage)
async def chips(state: State, parameters: Annotated[ChipListParams, Query()]) -> Response:
    """Chips of the whole archive in a fixed shuffled order, in pages."""
    where = parameters.to_filter()
    return await _json(
        state.search_pool, list_chips, state.archive, where, parameters.limit, parameters.offset
    )


# --- searching --------------------------------------------------------------------------------------------


@router.post("/api/search", tags=["search"], response_model=SearchResponse)
async def search_chips(state: State, query: SearchRequest) -> Response:
    """Search by chips (more like these, less like those), a place or an area."""
    return await _json(state.search_pool, search_by_example, state.archive, query)


@router.get("/api/changes", tags=["search"], response_model=ChangeCollection)
async def list_changes(
    state: State,
    before: Annotated[Interval, Query()],
    after: Annotated[Interval, Query()],
    sensor: Annotated[Name | None, Query()] = None,
    limit: Annotated[int, Query(ge=1)] = 100,
) -> Response:
    """Largest changes between two days or intervals, by the embeddings."""
    periods = parse_interval(before), parse_interval(after)
    return await _json(state.search_pool, changes, state.archive, *periods, sensor, limit)


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
                        "options": {"type": "string", "description": "JSON of ImageSearchOptions"},
                    },
                }
            }
        },
    }
}
_OPTIONS = TypeAdapter(ImageSearchOptions)


@router.post("/api/search/image", tags=["search"], openapi_extra=_UPLOAD, response_model=SearchResponse)
async def search_image(request: Request, state: State) -> Response:
    """Search by an uploaded image (form field `file`; `options` holds JSON)."""
    if state.archive.model is None:
        raise ApiError(
            501, "searching by image is unavailable: no model is loaded", "Start the server with --model."
        )
    async with request.form(max_files=1, max_fields=1, max_part_size=state.settings.body_bytes) as form:
        file, text = form.get("file"), form.get("options", "{}")
        if file is None or isinstance(file, str) or not isinstance(text, str):
            raise ApiError(422, "the form has no file", "Send it as the field `file` of multipart/form-data.")
        try:
            options = _OPTIONS.validate_json(text)
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            extra = problem["type"] == "extra_forbidden"
            text = unknown_key_text(str(problem["loc"][-1])) if extra else problem["msg"]
            raise ApiError(422, f"options: {where}: {text}", "See /docs for ImageSearchOptions.") from None
        check_count(state.settings, options.k)

        def work() -> SearchResponse:
            with temporary_upload(file.file) as path:
                query = state.uploads.query(path, options.sensor, options.gsd)
            return search_by_image(state.archive, query, options)

        return await _json(state.upload_pool, work)


# --- map tiles --------------------------------------------------------------------------------------------


class TileParams(BaseModel):
    """Parameters of a tile."""

    model_config = ConfigDict(extra="forbid")
    sensor: Name | None = None
    datetime: Interval | None = None


@router.get("/api/tiles/{z}/{x}/{y}.png", tags=["map"], response_class=Response)
async def tile(
    request: Request,
    state: State,
    z: Annotated[int, Path(ge=0, le=MAX_ZOOM)],
    x: Annotated[int, Path(ge=0)],
    y: Annotated[int, Path(ge=0)],
    parameters: Annotated[TileParams, Query()],
) -> Response:
    """The imagery of the archive as a Web Mercator tile of 256 pixels; 204 where there is none."""
    if max(x, y) >= 2**z:
        raise ApiError(404, f"zoom {z} has tiles 0 to {2**z - 1}")
    content = await state.tile_pool.run(
        state.tiles.tile, z, x, y, filter_from_query(parameters.sensor, (None, None), parameters.datetime)
    )
    return _png(request, content)


def _png(request: Request, content: bytes | None) -> Response:
    """A PNG that browsers may cache for a minute and then revalidate by its ETag."""
    headers = {"Cache-Control": "private, max-age=60"}
    if content is None:
        return Response(status_code=204, headers=headers)
    headers["ETag"] = tag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="image/png", headers=headers)


# --- the server -------------------------------------------------------------------------------------------


@router.get("/api/health", tags=["server"])
async def health(request: Request, state: State) -> Health | dict[str, str]:
    """Whether the server works; the version and the number of chips only with the token."""
    info = await state.search_pool.run(state.archive.info)
    if not request.state.authorized:
        return {"status": "ok"}
    return Health(status="ok", version=__version__, rows=info.rows)


@router.get("/metrics", tags=["server"], response_class=Response)
async def metrics(state: State) -> Response:
    """Metrics for Prometheus."""
    text = await state.search_pool.run(state.metrics_text)
    return Response(text, media_type=CONTENT_TYPE)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """This interface as an HTML page."""
    return Response(render_api_docs(request.app.openapi()), media_type="text/html; charset=utf-8")

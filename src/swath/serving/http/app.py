"""The ASGI application: routes, the files of the page, and error responses."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from swath._version import __version__
from swath.serving.http.errors import MEDIA_TYPE, ApiError
from swath.serving.http.metrics import RequestCounter
from swath.serving.http.query_types import unknown_key_text
from swath.serving.http.routes import router
from swath.serving.http.schemas import Problem
from swath.serving.http.security import SecurityMiddleware
from swath.serving.service import ServerState
from swath.serving.settings import ServerSettings

if TYPE_CHECKING:
    from swath.models import Model

PAGE = Path(__file__).parents[1] / "page"


def create_app(
    path: str, model: Model | None = None, settings: ServerSettings | None = None
) -> RequestCounter:
    """The ASGI application that serves one archive.

    Args:
        path: The archive.
        model: The archive's model, for searches by image.
        settings: Limits, token and host names.

    Raises:
        ArchiveError: There is no archive, or it was embedded with another model.
    """
    settings = settings or ServerSettings()
    state = ServerState(path, model, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        state.warm()
        yield
        state.close()

    app = FastAPI(
        title="Swath",
        summary=f"The archive {state.archive.name}: search by example, images and map tiles.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from other hosts; ours is `api_docs`
        redoc_url=None,
        responses={status: _problem_response(status) for status in (400, 401, 404, 422, 503)},
    )
    app.state.server = state
    app.include_router(router)
    _serve_page(app)
    _handle_errors(app)
    return RequestCounter(SecurityMiddleware(app, settings), state.metrics)


def _serve_page(app: FastAPI) -> None:
    """`/` and `/page/*`, if the files of the page are installed."""

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        file = PAGE / "index.html"
        if not file.is_file():
            raise ApiError(404, "this server has no page", "See /docs for the HTTP interface.")
        return FileResponse(file)

    for ending in (".js", ".mjs"):  # some systems register another type, which browsers refuse
        mimetypes.add_type("text/javascript", ending)
    if PAGE.is_dir():
        app.mount("/page", StaticFiles(directory=PAGE), name="page")


def _problem_response(status: int) -> dict[str, Any]:
    """The OpenAPI description of an error response."""
    return {
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}},
    }


def _handle_errors(app: FastAPI) -> None:
    """Every error as problem details (RFC 9457), none with a traceback."""

    def respond(error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
        return JSONResponse(error.body(), error.status, headers or error.headers, MEDIA_TYPE)

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return respond(error)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        return respond(malformed_refusal(error))

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        fix = "See /docs for the available routes." if error.status_code in (404, 405) else None
        return respond(ApiError(error.status_code, str(error.detail), fix), error.headers)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:  # uvicorn logs the traceback
        return respond(
            ApiError(500, "internal error of the server", "Please report the traceback in its log.")
        )


def malformed_refusal(error: RequestValidationError) -> ApiError:
    """Where a request is malformed, and what is expected there; values are not echoed."""
    problems = []
    for problem in error.errors()[:3]:
        where = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query", "path"))
        text = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            text = unknown_key_text(str(problem["loc"][-1]))
        problems.append(f"{where}: {text}" if where else text)
    more = len(error.errors()) - 3
    detail = "; ".join(problems) + (f"; and {more} more" if more > 0 else "")
    return ApiError(422, detail[:1000], "See /docs for the format of a request.")

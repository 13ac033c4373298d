"""The web application: routes, the page's files, and the answers to what goes wrong."""

from __future__ import annotations

import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from swath._version import __version__
from swath.serving.http.errors import ApiError
from swath.serving.http.metrics import RequestCounter
from swath.serving.http.routes import router
from swath.serving.http.schemas import ErrorMessage
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
        ArchiveError: There is no archive, or it is of another model.
    """
    settings = settings or ServerSettings()
    service = ServerState(path, model, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.warm()
        yield
        service.close()

    app = FastAPI(
        title="Swath",
        summary=f"The archive {service.handle.name}: search by example, pictures and tiles.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load scripts from elsewhere; ours is in `reference`
        redoc_url=None,
        responses={400: {"model": ErrorMessage}, 401: {"model": ErrorMessage}, 503: {"model": ErrorMessage}},
    )
    app.state.service = service
    app.include_router(router)
    _serve_page(app)
    _answer_errors(app)
    return RequestCounter(SecurityMiddleware(app, settings), service.metrics)


def _serve_page(app: FastAPI) -> None:
    """`/` and `/page/*`, with the page's files if they are installed."""

    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        file = PAGE / "index.html"
        if not file.is_file():
            raise ApiError(404, "this server has no page", "use /docs")
        return FileResponse(file)

    for ending in (".js", ".mjs"):  # told differently by different systems, and browsers insist
        mimetypes.add_type("text/javascript", ending)
    if PAGE.is_dir():
        app.mount("/page", StaticFiles(directory=PAGE), name="page")


def _answer_errors(app: FastAPI) -> None:
    """Every error as {"error": {what, fix}}, and none with a trace."""

    @app.exception_handler(ApiError)
    async def refused(_: Request, refusal: ApiError) -> Response:
        return JSONResponse(refusal.body(), refusal.status, refusal.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> Response:
        return JSONResponse(malformed_refusal(error).body(), 422)

    @app.exception_handler(HTTPException)
    async def other(_: Request, error: HTTPException) -> Response:
        fix = {404: "see /docs for what there is", 405: "see /docs for what there is"}.get(error.status_code)
        refusal = ApiError(error.status_code, str(error.detail), fix)
        return JSONResponse(refusal.body(), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:  # uvicorn logs its trace
        refusal = ApiError(500, "the server made a mistake", "its log has the details; please report them")
        return JSONResponse(refusal.body(), 500)


def malformed_refusal(error: RequestValidationError) -> ApiError:
    """Where a request is not well formed, and what it should be; values are not echoed."""
    problems = []
    for problem in error.errors()[:3]:
        where = ".".join(str(part) for part in problem["loc"] if part not in ("body", "query", "path"))
        text = problem["msg"].removeprefix("Value error, ")
        problems.append(f"{where}: {text}" if where else text)
    more = len(error.errors()) - 3
    what = "; ".join(problems) + (f"; and {more} more" if more > 0 else "")
    return ApiError(422, what[:1000], "see /docs for what a request may hold")

"""Serve the archive of the demo on a map in the browser."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

from swath.errors import SwathError

PORT = 8000


def serve_hint(out: str | Path) -> str:
    """The line that says how to open the archive of the demo on a map, and what to install for it."""
    command = f"swath serve {shlex.quote(str(Path(out) / 'archive'))}"
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        return (
            f"To search it on a map in the browser, run pip install '.[serve]' in the clone, then {command}"
        )
    return f"To search it on a map in the browser: {command}"


def serve_demo(out: str | Path, *, port: int = PORT) -> None:
    """Serve the archive of the demo with its model on this machine until Ctrl-C.

    Raises:
        SwathError: `out` holds no archive of a demo, or the extra `serve` is not installed.
    """
    archive = Path(out) / "archive"
    if not archive.is_dir():
        raise SwathError(f"{archive} does not exist. Run `swath demo --out {shlex.quote(str(out))}` first.")
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise SwathError(
            "The web page needs the extra `serve`. Run pip install '.[serve]' in the clone of Swath."
        )
    from swath.archive.archive import Archive
    from swath.models import load_encoder
    from swath.serving.server import serve

    model_path = Archive.open(str(archive)).model_path
    serve(archive, model=load_encoder(model_path) if model_path else None, port=port)

"""How a walk ends: its archive on a map in the browser."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path

from swath.errors import SwathError

PORT = 8000


def serve_hint(out: str | Path) -> str:
    """The line that tells how to look at the demo's archive, or what is missing for it."""
    command = f"swath serve {shlex.quote(str(Path(out) / 'archive'))}"
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        return f"to search it on a map in the browser: pip install 'swath[serve]', then {command}"
    return f"to search it on a map in the browser: {command}"


def serve_demo(out: str | Path, *, port: int = PORT) -> None:
    """Serve the demo's archive with its model on this machine until Ctrl-C.

    Raises:
        SwathError: There is no archive of a demo in `out`, or the extra `serve` is not installed.
    """
    archive = Path(out) / "archive"
    if not archive.is_dir():
        raise SwathError(f"{archive}: is not there; run `swath demo --out {shlex.quote(str(out))}` first")
    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise SwathError("the web page needs more libraries: pip install 'swath[serve]'")
    from swath.archive.archive import Archive
    from swath.models import load_model
    from swath.serving.server import serve

    model_path = Archive.open(str(archive)).model_path
    serve(str(archive), load_model(model_path) if model_path else None, port=port)

"""`swath serve ARCHIVE`: serve an archive over HTTP, with a map in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from swath.models import Model


def command(
    archive: Annotated[str, typer.Argument(help="Archive created by `swath embed`.")],
    model: Annotated[
        Path | None,
        typer.Option(help="Model of the archive, for searches by image.  \\[default: its recorded path]"),
    ] = None,
    host: Annotated[str, typer.Option(help="Address; any other than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 selects a free one.", min=0, max=65535)] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="SWATH_TOKEN",
            show_envvar=True,
            help="Bearer token that clients must send. Visible to other users in the process list; prefer "
            "SWATH_TOKEN or --token-file.",
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with the token in its first line.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Accepted host name, for example of a reverse proxy. Can be given several times."),
    ] = None,
    device: Annotated[str, typer.Option(help="Device of the model: cpu, cuda, ...")] = "cpu",
) -> None:
    """Serve an archive: a map in the browser, and an HTTP interface for programs.

    Open the printed address in a browser. Chips that are embedded meanwhile are found at once. Stop it by
    Ctrl-C or SIGTERM; running requests are finished first.

    swath serve my_archive

    swath serve my_archive --host 0.0.0.0 --token-file token.txt --allow-host maps.example.org
    """
    from swath.serving.server import serve
    from swath.serving.settings import ServerSettings, check_access, host_names

    secret = _token(token, token_file)
    check_access(host, secret)
    serve(
        archive,
        model=_model(archive, model, device),
        host=host,
        port=port,
        settings=ServerSettings(token=secret, hosts=host_names(host, allow_host or ())),
    )


def _token(token: str | None, file: Path | None) -> str | None:
    from swath.errors import SwathError

    if token is not None and file is not None:
        raise SwathError("--token and --token-file are both given. Give only one of them.")
    if file is None:
        return token
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SwathError(
            f"{file}: cannot read the token ({error}). Write it into the first line of this file."
        ) from None
    if not lines or not lines[0].strip():
        raise SwathError(f"{file}: the first line is empty. Write the token into it.")
    return lines[0].strip()


def _model(archive: str, path: Path | None, device: str) -> Model | None:
    """The model of the archive, or None with a message that searching by image is unavailable."""
    from swath.archive.archive import Archive
    from swath.models import load_encoder

    opened = Archive.open(archive)
    recorded = Path(opened.model_path) if opened.model_path else None
    if path is None and (recorded is None or not recorded.exists()):
        typer.echo(
            f"searching by image is unavailable: model {opened.model_id} is not at {recorded} (--model DIR)",
            err=True,
        )
        return None
    model_path = path or recorded
    assert model_path is not None
    model = load_encoder(model_path, device=device)
    opened.require_model(model.id)
    return model

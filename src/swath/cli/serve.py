"""`swath serve ARCHIVE`: an archive over HTTP, with a map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from swath.models import Model


def command(
    archive: Annotated[str, typer.Argument(help="Archive, as `swath embed` makes it.")],
    model: Annotated[
        Path | None,
        typer.Option(help="The archive's model, for searches by image.  \\[default: where it was last seen]"),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address; any but this machine's own needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", min=0, max=65535)] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="SWATH_TOKEN",
            show_envvar=True,
            help="Who sends it may ask. On the command line other users of the machine can read it; better "
            "set the variable, or use --token-file.",
        ),
    ] = None,
    token_file: Annotated[Path | None, typer.Option(help="File whose first line is the token.")] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            help="Name by which the server is called, such as that of a proxy before it; may be repeated."
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, ...")] = "cpu",
) -> None:
    """Serve an archive: a map in the browser, and an HTTP interface for programs.

    Open the address that it prints. Chips that are embedded meanwhile are found at once. It ends on Ctrl-C or
    SIGTERM, after the requests that are under way.

    swath serve my_archive

    swath serve my_archive --host 0.0.0.0 --token-file token.txt --allow-host maps.example.org
    """
    from swath.serving.server import serve
    from swath.serving.settings import ServerSettings, check_access, host_names

    secret = _token(token, token_file)
    check_access(host, secret)
    serve(
        archive,
        _model(archive, model, device),
        host=host,
        port=port,
        settings=ServerSettings(token=secret, hosts=host_names(host, allow_host or ())),
    )


def _token(token: str | None, file: Path | None) -> str | None:
    from swath.errors import SwathError

    if token is not None and file is not None:
        raise SwathError("--token and --token-file are two ways to say one thing; give one")
    if file is None:
        return token
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SwathError(f"{file}: cannot be read ({error}); write the token into it") from None
    if not lines or not lines[0].strip():
        raise SwathError(f"{file}: has no token in its first line")
    return lines[0].strip()


def _model(archive: str, given: Path | None, device: str) -> Model | None:
    """The archive's model, or None with a word about what cannot be done then."""
    from swath.archive.archive import Archive
    from swath.models import load_model

    opened = Archive.open(archive)
    noted = given or (Path(opened.model_path) if opened.model_path else None)
    if given is None and (noted is None or not noted.exists()):
        typer.echo(
            f"no search by image: the model {opened.model_id} is not at {noted} any more (--model DIR)",
            err=True,
        )
        return None
    assert noted is not None
    model = load_model(noted, device=device)
    opened.require_model(model.id)
    return model

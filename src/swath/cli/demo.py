"""`swath demo`: the whole path on sample imagery, told on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything it makes.")] = Path(
        "demo-output"
    ),
    minutes: Annotated[
        float | None,
        typer.Option(help="Processor minutes of pretraining.  \\[default: 6]", min=0.01),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the recipe. Repeatable."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew instead of using what an earlier demo left.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="In the end open the archive to your browser, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(help="--serve: port on this machine.", min=0, max=65535)] = 8000,
) -> None:
    """Pretrain, measure, embed and search on sample imagery in a few minutes; writes OUT/report.html.

    Needs no data and no network. A second run uses what the first one made, so it takes seconds to a minute.

    With --serve the archive that it made can then be searched on a map; `swath serve` does it at any time.

    [dim]Example:[/dim] swath demo --out demo-output --minutes 2 --serve
    """
    from swath.demo.run import run_demo

    run_demo(out, minutes=minutes, settings=tuple(settings or ()), fresh=fresh, log=typer.echo, show=True)
    if serve:
        from swath.demo.serve import serve_demo

        serve_demo(out, port=port)

"""`swath demo`: pretrain, evaluate, embed and search on sample imagery, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder.")] = Path("demo-output"),
    minutes: Annotated[
        float | None,
        typer.Option(help="CPU minutes of pretraining.  \\[default: 6]", min=0.01),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override one key of the recipe. Can be given several times."
        ),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of reusing results of an earlier demo.")
    ] = False,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the archive to a browser at the end, until Ctrl-C.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of --serve.", min=0, max=65535)] = 8000,
) -> None:
    """Pretrain, evaluate, embed and search on sample imagery in a few minutes; writes OUT/report.html.

    Needs no data and no network. A second run reuses the results of the first and takes at most a minute.

    With --serve, the archive can then be searched on a map; `swath serve OUT/archive` does the same later.

    [dim]Example:[/dim] swath demo --out demo-output --minutes 2 --serve
    """
    from swath.demo.run import run_demo

    run_demo(out, minutes=minutes, settings=tuple(settings or ()), fresh=fresh, log=typer.echo, show=True)
    if serve:
        from swath.demo.serve import serve_demo

        serve_demo(out, port=port)

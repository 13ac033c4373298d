"""`swath doctor`: what works here, and what a bug report needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[
        Path, typer.Argument(help="Where runs will be written; its free disk is looked at.", exists=True)
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
    step: Annotated[bool, typer.Option(help="Take a tiny training step.")] = True,
) -> None:
    """Look at this machine: versions, devices, what GDAL may open, disk, and a tiny training step.

    Paste the output into a bug report: it names no files of yours, and no variables but those that change
    how things run.

    [bold]Exit status:[/bold] 0 all is well, 1 something is broken (lines that begin with PROBLEM).

    Example: swath doctor --json
    """
    import json

    from swath.doctor import format_diagnostics, run_diagnostics

    report = run_diagnostics(folder, step=step)
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else format_diagnostics(report))
    if report.problems:
        raise typer.Exit(1)

"""`swath doctor`: check this machine, for a bug report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[
        Path, typer.Argument(help="Folder for runs; used to report free disk space.", exists=True)
    ] = Path(),
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of text.")] = False,
    step: Annotated[bool, typer.Option(help="Run a tiny training step.")] = True,
) -> None:
    """Check this machine: versions, devices, GDAL drivers, disk space, and a tiny training step.

    Paste the output into a bug report: it contains no names of your files, and only environment variables
    that affect Swath.

    [bold]Exit status:[/bold] 0 all is well, 1 something is broken (lines that begin with PROBLEM).

    Example: swath doctor --json
    """
    import json

    from swath.doctor import format_diagnostics, run_diagnostics

    report = run_diagnostics(folder, step=step)
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else format_diagnostics(report))
    if report.problems:
        raise typer.Exit(1)

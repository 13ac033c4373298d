"""The `swath` command. Verbs are loaded when they are used; `swath --help` imports nothing heavy."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from swath.cli.renamed import refuse_renamed
from swath.errors import SwathError, missing_extra

# One file a verb, in the order in which a newcomer meets them. Each file holds either a function `command`
# or, for a verb with sub-verbs, a `typer.Typer` called `app`; at its top it imports nothing but typer and
# the standard library, so that all of them together cost milliseconds.
COMMANDS = (
    "demo", "simulate", "inspect", "pretrain", "finetune", "predict", "evaluate", "datasets", "embed",
    "archive", "search", "changes", "serve", "import-weights", "export", "doctor",
)  # fmt: skip


class _InOrder(TyperGroup):
    """Lists verbs as `COMMANDS` has them; Typer itself lists those with sub-verbs after all others."""

    def list_commands(self, ctx: object) -> list[str]:
        return list(COMMANDS)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        refuse_renamed(args)
        return super().parse_args(ctx, args)


def build_app() -> typer.Typer:
    """The whole command line as one Typer application."""
    app = typer.Typer(
        name="swath",
        cls=_InOrder,
        help="Representations of Earth-observation imagery that know their scale and their sensor.",
        no_args_is_help=True,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for verb in COMMANDS:
        module = import_module(f"swath.cli.{verb.replace('-', '_')}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=verb)
        else:
            app.command(name=verb)(module.command)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from swath._version import __version__

        typer.echo(f"swath {__version__}")
        raise typer.Exit()


def _root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
    ),
) -> None:
    """What stands before a verb."""


def _tell_warnings() -> None:
    """Show Swath's own warnings as sentences; Python puts a file and a line of code beside them."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not category.__module__.startswith("swath."):
            return usual(message, category, filename, lineno, file, line)
        typer.secho("warning: ", fg=typer.colors.YELLOW, bold=True, err=True, nl=False)
        typer.echo(str(message), err=True)

    warnings.showwarning = show


def run() -> None:
    """Entry point of the console script: user errors are one clear message and exit status 2."""
    _tell_warnings()
    try:
        build_app()()
    except SwathError as error:
        _refuse(error)
    except ModuleNotFoundError as error:
        missing = missing_extra(error, f"`swath {' '.join(sys.argv[1:2])}`")
        if missing is None:
            raise
        _refuse(missing)


def _refuse(error: SwathError) -> NoReturn:
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(str(error), err=True)
    sys.exit(2)


if __name__ == "__main__":
    run()

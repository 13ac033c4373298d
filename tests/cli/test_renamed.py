"""Old options and commands tell their new names."""

from __future__ import annotations

import click
import pytest
import typer.main
from typer.testing import CliRunner

from swath.cli.main import build_app
from swath.cli.renamed import COMMANDS, OPTIONS


def commands() -> dict[str, set[str]]:
    """Every command with its options."""
    found: dict[str, set[str]] = {}

    def walk(command: click.Command, path: tuple[str, ...]) -> None:
        if hasattr(command, "list_commands"):
            context = click.Context(command)
            for name in command.list_commands(context):
                walk(command.get_command(context, name), (*path, name))
        names = [name for option in command.params for name in (*option.opts, *option.secondary_opts)]
        found[" ".join(path)] = set(names)

    walk(typer.main.get_command(build_app()), ())
    return found


ROWS = [(command, old, new) for command, names in OPTIONS.items() for old, new in names.items()]


def test_every_row_is_true() -> None:
    known = commands()
    for command, old, new in ROWS:
        assert old not in known[command], (command, old)
        for name in (word for word in new.split() if word.startswith("--")):
            assert name in known[command], (command, name)
    for old, new in COMMANDS.items():
        assert old not in known
        assert new in known


@pytest.mark.parametrize("value", [(), ("x",)])
@pytest.mark.parametrize(("command", "old", "new"), ROWS)
def test_an_old_option_tells_the_new_one(command: str, old: str, new: str, value: tuple[str, ...]) -> None:
    typed = [f"{old}={value[0]}"] if value else [old, "x"]
    result = CliRunner().invoke(build_app(), [*command.split(), "a", "b", *typed])
    assert result.exit_code == 2
    assert old in result.stderr
    assert all(name in result.stderr for name in new.split() if name.startswith("--"))
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("old", "new"), COMMANDS.items())
def test_an_old_command_tells_the_new_one(old: str, new: str) -> None:
    result = CliRunner().invoke(build_app(), [*old.split(), "a"])
    assert result.exit_code == 2
    assert f"`swath {new}`" in result.stderr


def test_what_follows_two_dashes_and_other_commands_is_left_alone() -> None:
    result = CliRunner().invoke(build_app(), ["embed", "--help", "--", "--fit"])
    assert result.exit_code == 0

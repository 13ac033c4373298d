"""What the documentation tells people to type exists: verbs, options, recipe keys, files, Python names."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from swath.cli.main import build_app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [
        *(ROOT / "docs").rglob("*.md"),
        *(
            ROOT / name
            for name in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "benchmarks/RESULTS.md")
        ),
    ]
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for found in BLOCK.finditer(page.read_text(encoding="utf-8")):
            if found[1] == language:
                yield page, found[2]


def commands() -> list[tuple[Path, str]]:
    """Every `swath ...` line of the shell blocks, continuation lines joined and comments cut."""
    found = []
    for page, block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.split(" #")[0].strip()
            if line.startswith("swath ") and " ... " not in line and not line.endswith(" ..."):
                found.append((page, line))
    return found


def examples_in_help() -> list[tuple[str, str]]:
    """(verb, line) of every `swath ...` that the help of a verb gives as an example."""
    found: list[tuple[str, str]] = []

    def walk(command: Any, name: str) -> None:
        for paragraph in re.split(r"\n\s*\n", command.help or ""):
            told = re.sub(r"\[/?\w+\]", "", " ".join(paragraph.split()))  # without mark-up
            if (line := told.removeprefix("Example:").strip()).startswith("swath "):
                found.append((name, line))
        for child, below in getattr(command, "commands", {}).items():
            walk(below, f"{name} {child}".strip())

    walk(typer.main.get_command(build_app()), "")
    return found


SCRIPT = re.compile(r"python ((?:benchmarks|examples)/[\w/]+\.py)((?:[^`\n]|`(?!\w))*)")


def scripts() -> list[tuple[str, str, str]]:
    """(page, script, its arguments) wherever a script of ours is named with how to run it."""
    files = [*PAGES, *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "examples").glob("*.py")]
    return [
        (str(page.relative_to(ROOT)), script, arguments)
        for page in files
        for script, arguments in SCRIPT.findall(page.read_text(encoding="utf-8"))
    ]


def parse(line: str) -> dict[str, Any]:
    """Let the command line itself parse a line, without running it; the parameters that it understood."""
    words = shlex.split(line)[1:]
    command: Any = typer.main.get_command(build_app())
    while hasattr(command, "commands"):
        if words[0] in ("--help", "--version"):
            return {}
        assert words[0] in command.commands, f"there is no verb {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return dict(command.make_context("swath", words).params)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda value: str(value)[-60:])
def test_command_parses(page: Path, line: str) -> None:
    try:
        given = parse(line)
    except Exception as error:  # Typer brings exceptions of its own
        pytest.fail(f"{page.name}: {line}: {error}")
    recipe = given.get("recipe")
    if recipe is not None and str(recipe).startswith("configs/finetune_"):
        from swath.tasks.recipe import load_finetune_recipe

        task = line.split()[2]
        settings = [
            *(given["settings"] or []),
            "encoder.name=vit_nano_patch4",
            "mode=scratch",
            "layer_decay=1.0",
        ]
        load_finetune_recipe(ROOT / recipe, settings, task=task)
    elif recipe is not None and str(recipe).startswith("configs/"):
        from swath.training.config.recipe import load_recipe

        # The recipe with these overrides is valid; a sensor file of the reader's is not there.
        settings = [s for s in given["settings"] or [] if not s.startswith("sensor=my_")]
        load_recipe(ROOT / recipe, settings)


@pytest.mark.parametrize(("verb", "line"), examples_in_help())
def test_example_in_the_help_parses(verb: str, line: str) -> None:
    try:
        parse(line)
    except Exception as error:  # Typer brings exceptions of its own
        pytest.fail(f"swath {verb} --help: {line}: {error}")


def test_every_verb_gives_an_example() -> None:
    told = {verb.split()[0] for verb, _ in examples_in_help()}
    verbs = set(typer.main.get_command(build_app()).commands)  # type: ignore[attr-defined]
    assert not verbs - told, "an Example: swath VERB ... in its help, please"


@pytest.mark.parametrize(("page", "script", "arguments"), scripts())
def test_script_is_there_and_knows_its_options(page: str, script: str, arguments: str) -> None:
    path = ROOT / script
    assert path.is_file(), f"{page} names {script}"
    text = path.read_text(encoding="utf-8")
    told = arguments.split("#")[0]
    unknown = [option for option in re.findall(r"(?<!\w)--[a-z][\w-]*", told) if f'"{option}"' not in text]
    assert not unknown, f"{page}: {script} has no {unknown}"


@pytest.mark.parametrize(("page", "block"), list(blocks("yaml")), ids=lambda value: str(value)[-40:])
def test_yaml_of_a_sensor_is_valid(page: Path, block: str, tmp_path: Path) -> None:
    data = yaml.safe_load(block)
    if "bands" in data:
        from swath.sensors.registry import get_sensor

        path = tmp_path / "sensor.yaml"
        path.write_text(block, encoding="utf-8")
        assert get_sensor(path).name == data["name"]


@pytest.mark.parametrize(("page", "block"), list(blocks("python")), ids=lambda value: str(value)[-40:])
def test_python_compiles(page: Path, block: str) -> None:
    compile(block, page.name, "exec")


def public_code() -> Iterator[tuple[Path, str]]:
    """Python that users read and copy: blocks of pages, examples and notebooks."""
    yield from blocks("python")
    for path in sorted((ROOT / "examples").iterdir()):
        if path.suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            for cell in cells:
                if cell["cell_type"] == "code":
                    yield path, "".join(line for line in cell["source"] if not line.startswith("%"))
        elif path.suffix == ".py":
            yield path, path.read_text(encoding="utf-8")


def test_public_code_imports_public_names() -> None:
    """At most `swath.<package>`, and names that are there."""
    wrong = []
    for path, code in public_code():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                if module.split(".")[0] != "swath":
                    continue
                names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) else []
                missing = [name for name in names if not hasattr(import_module(module), name)]
                if module.count(".") > 1 or missing:
                    wrong.append(f"{path.relative_to(ROOT)}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for page, block in blocks("bash"):
        for line in block.splitlines():
            words = line.split("#")[0].split()
            if words[:1] == ["make"]:
                wanted = {word for word in words[1:] if "=" not in word}
                assert wanted <= targets, f"{page.name}: {line}"


def test_the_makefile_installs_its_extras_in_one_piece() -> None:
    # Commas part the arguments of a call in make: written into one, all but the first extra are lost.
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (extras,) = re.findall(r"^EXTRAS *:= *(\S+)$", makefile, flags=re.MULTILINE)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert set(extras.split(",")) <= set(known["optional-dependencies"])
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make here")
    planned = subprocess.run(
        [make, "-n", "-B", "VENV=elsewhere", "test"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert f"-e '.[{extras}]' --group dev" in planned


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pictures_and_files_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (page.parent / target).is_file(), target
    for name in re.findall(r"`((?:configs|examples|benchmarks|tests|src)/[\w./]+)`", text):
        assert (ROOT / name).exists(), name

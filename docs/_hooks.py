"""What the documentation takes from the repository itself, so that it cannot go stale.

- `{{ include FILE }}` on a page puts in a Markdown file of the repository, its links put right.
- `{{ cli }}` puts in every command with its options, read from the program.
- `{{ sensors }}` puts in the built-in sensors as tables.
- `{{ datasets }}` puts in the labeled data sets that are known by name.
- `$$ ... $$` (on lines of their own) and `$...$` become MathML: no script is needed to show them.
- `benchmarks/figures` appears in the site as `assets/figures`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
LINKS = {  # in the repository -> on the page that includes it
    "(ARCHITECTURE.md)": "(architecture.md)",
    "(CONTRIBUTING.md)": "(contributing.md)",
    "(CHANGELOG.md)": "(changelog.md)",
    "(figures/": "(assets/figures/",
}
FENCE = re.compile(r"(^```.*?^```[ \t]*$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Show the benchmarks' figures under assets/figures."""
    for path in sorted((ROOT / "benchmarks" / "figures").glob("*.*")):
        files.append(File.generated(config, f"assets/figures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in what a page asks for, then typeset equations outside of code."""
    markdown = re.sub(r"^\{\{ include (\S+) \}\}$", _include, markdown, flags=re.MULTILINE)
    if "{{ cli }}" in markdown:
        markdown = markdown.replace("{{ cli }}", _command_line())
    if "{{ sensors }}" in markdown:
        markdown = markdown.replace("{{ sensors }}", _sensors())
    if "{{ datasets }}" in markdown:
        markdown = markdown.replace("{{ datasets }}", _datasets())
    parts = FENCE.split(markdown)
    return "".join(part if FENCE.fullmatch(part) else _equations(part) for part in parts)


def _include(match: re.Match[str]) -> str:
    text = (ROOT / match[1]).read_text(encoding="utf-8")
    for there, here in LINKS.items():
        text = text.replace(there, here)
    return text


def _equations(text: str) -> str:
    def display(match: re.Match[str]) -> str:
        return (
            f'<div class="equation">{latex2mathml.converter.convert(match[1].strip(), display="block")}</div>'
        )

    def inline(match: re.Match[str]) -> str:
        return f"<span>{latex2mathml.converter.convert(match[1])}</span>"

    text = re.sub(r"^\$\$\n(.+?)\n\$\$$", display, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<![\\$\w])\$([^$\n]+?)\$(?![\w$])", inline, text)


def _command_line() -> str:
    from swath.cli.main import build_app

    lines: list[str] = []
    # Typer brings a click of its own, so what is asked of its objects is asked by attribute.
    for name, command in typer.main.get_command(build_app()).commands.items():  # type: ignore[attr-defined]
        _describe(command, f"swath {name}", lines)
    return "\n".join(lines)


def _describe(command: Any, name: str, lines: list[str]) -> None:
    lines += [f"## `{name}`", "", _markdown(command.help or ""), ""]
    if hasattr(command, "commands"):
        for verb, child in command.commands.items():
            _describe(child, f"{name} {verb}", lines)
        return
    shown = [parameter for parameter in command.params if parameter.name != "help"]
    positional = " ".join(p.name.upper() for p in shown if p.param_type_name == "argument")
    lines += ["```text", f"{name} [OPTIONS] {positional}".rstrip(), "```", ""]
    lines += ["| argument or option | meaning | default |", "|---|---|---|"]
    for parameter in shown:
        named = parameter.param_type_name == "option"
        spelled = ", ".join(parameter.opts) if named else parameter.name.upper()
        said = _markdown(getattr(parameter, "help", None) or "").replace("|", "\\|").replace("\n", " ")
        given = parameter.default
        plain = isinstance(given, int | float | str | Path) and given is not False and not parameter.required
        lines.append(f"| `{spelled}` | {said} | {f'`{given}`' if plain else ''} |")
    lines.append("")


def _markdown(help_text: str) -> str:
    """Help as the terminal has it (rich's markup, escaped brackets) as Markdown."""
    text = re.sub(
        r"\[(/?)(bold|dim)\]", lambda m: "**" if m[2] == "bold" else "", help_text.replace("\b", "")
    )
    return text.replace("\\[", "[").strip()


def _sensors() -> str:
    from swath.sensors.registry import get_sensor, list_sensors

    lines: list[str] = []
    for name in list_sensors():
        sensor = get_sensor(name)
        lines += [f"## `{name}`", "", f"**{sensor.title}.** {sensor.description}", ""]
        lines += [
            "| band | common name | wavelength nm | GSD m | unit | mean | std |",
            "|---|---|---|---|---|---|---|",
        ]
        for band in sensor.bands:
            cells = (band.name, band.common_name, band.wavelength, band.gsd, band.unit, band.mean, band.std)
            lines.append("| " + " | ".join("" if cell is None else _short(cell) for cell in cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _datasets() -> str:
    from swath.datasets.benchmarks.catalog import get_benchmark, list_benchmarks

    lines = ["| name | set | images | classes | pixels | GSD, m |", "|---|---|---|---|---|---|"]
    sets = [get_benchmark(name) for name in list_benchmarks()]
    for known in sets:
        gsd = _short(known.gsd) if known.gsd else "-".join(map(_short, known.gsd_range or ())) or "unknown"
        counts = f"{known.images:,} | {len(known.classes)} | {known.image_size}"
        lines.append(f"| [`{known.name}`](#{known.name}) | {known.title} | {counts} | {gsd} |")
    for known in sets:
        pages = ", ".join(f"[{source.title}]({source.url})" for source in known.references)
        facts = [
            ("also called", ", ".join(known.aliases)),
            ("classes", ", ".join(known.classes) + (f". {known.classes_note}" if known.classes_note else "")),
            ("opened with", f"`{known.sensor}`, {known.image_size} x {known.image_size} pixels"),
            ("split", known.split.note.strip()),
            (
                "found in",
                ", ".join(f"`{folder}`" for folder in known.folders) + ", or anywhere below the root",
            ),
            ("had from", pages),
            *(("archive", _archive(archive)) for archive in known.downloads),
            ("license", known.license),
            ("cite", known.paper),
        ]
        lines += [
            "",
            f"## `{known.name}` {{#{known.name}}}",
            "",
            f"**{known.title}.** {known.description.strip()}",
        ]
        lines += ["", *(f"- *{label}*: {text}" for label, text in facts)]
    return "\n".join(lines)


def _archive(archive: Any) -> str:
    sums = [
        f"{kind} `{value}`" for kind, value in (("md5", archive.md5), ("sha256", archive.sha256)) if value
    ]
    known = f"{', '.join(sums)} ({archive.checksum_source})" if sums else "no published checksum"
    return f"{archive.name}, {'fetched by Swath' if archive.url else 'to be downloaded by hand'}; {known}"


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)

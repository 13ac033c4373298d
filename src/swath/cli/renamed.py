"""Options and commands of 0.1 that have another name now: typing one tells the new name, with status 2.

Remove a row two releases after the renaming.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

_FROZEN = ("evaluate knn", "evaluate linear", "evaluate fewshot")
_SPLIT_DATA = (*_FROZEN, "evaluate leakage", "evaluate embedding", "evaluate robustness", "evaluate report")
_FINETUNE = ("finetune classify", "finetune segment", "finetune change", "finetune detect")

COMMANDS = {
    "evaluate split": "evaluate make-split",
    "evaluate leaks": "evaluate leakage",
    "evaluate geometry": "evaluate embedding",
}

_OPTIONS: tuple[tuple[Sequence[str], dict[str, str]], ...] = (
    (
        _SPLIT_DATA,
        {
            "--bank": "--train-split",
            "--queries": "--test-split",
            "--fold-column": "--split-column",
            "--root": "--data-root",
        },
    ),
    ((*_FROZEN, "evaluate report"), {"--scales": "--image-sizes", "--labels": "--label-mode"}),
    (_FROZEN, {"--seeds": "--average-seeds"}),
    (("evaluate embedding",), {"--scales": "--image-sizes"}),
    (("evaluate fewshot",), {"--draws": "--repeats"}),
    (("evaluate robustness", "evaluate report"), {"--by": "--corruptions", "--limit": "--max-images"}),
    (("evaluate robustness",), {"--side": "--image-size", "--standardised": "--standardize"}),
    (("evaluate report",), {"--pictures": "--images", "--no-pictures": "--no-images"}),
    (
        ("evaluate retrieval",),
        {
            "--queries": "--query-split",
            "--archive": "--gallery-split",
            "--classes": "--per-class",
            "--pictures": "--images",
            "--no-pictures": "--no-images",
        },
    ),
    (
        ("evaluate make-split",),
        {
            "--by": "--strategy",
            "--shares": "--fractions",
            "--column": "--group-column",
            "--block": "--block-metres",
            "--buffer": "--buffer-metres",
        },
    ),
    (
        ("evaluate suite",),
        {
            "--pages": "--html-reports",
            "--pictures": "--images",
            "--no-pictures": "--no-images",
            "--root": "--data-root",
        },
    ),
    (("datasets list", "datasets show"), {"--root": "--data-root"}),
    (("embed",), {"--fit": "--resize-mode", "--fold": "--split"}),
    (("simulate",), {"--fold": "--split", "--first": "--start-index"}),
    (("inspect",), {"--days": "--max-days", "--every": "--all-partners"}),
    (_FINETUNE, {"--labels-share": "--label-fraction"}),
    (
        ("predict",),
        {"--align": "--coregister", "--read-gsd": "--target-gsd", "--window": "--read-window"},
    ),
    (
        ("search",),
        {
            "--centre": "--center",
            "--no-centre": "--no-center",
            # Not the range of answers: this must not change its meaning in silence.
            "--gsd": "--query-gsd (of the query image) or --gsd-range (of the answers)",
            "--offset-dn": "--query-offset-dn",
            "--only-gsd": "--gsd-range",
            "--only-time": "--datetime",
            "--only-bbox": "--bbox",
            "--only-area": "--intersects",
            "--only-sensor": "--sensor",
            "--exclude-pair": "--exclude-location",
            "--pair-share": "--exclude-overlap",
            "--group-places": "--group-by-location",
            "--picture": "--contact-sheet",
        },
    ),
    (
        ("changes",),
        {
            "--map": "--heatmap",
            "--cell": "--cell-size",
            "--only-gsd": "--gsd-range",
            "--only-bbox": "--bbox",
            "--only-area": "--intersects",
        },
    ),
    (("archive delete",), {"--max-cloud": "--cloudier-than"}),
    (("export",), {"--embedding": "--embeddings-only"}),
)

# Command -> old option -> new option.
OPTIONS: dict[str, dict[str, str]] = {}
for commands, names in _OPTIONS:
    for command in commands:
        OPTIONS.setdefault(command, {}).update(names)


def renamed_hint(arguments: Sequence[str]) -> str | None:
    """One line for an old command or option among the arguments of `swath`; None where there is none."""
    words = [argument for argument in arguments if not argument.startswith("-")]
    command = next(
        (name for name in (" ".join(words[:2]), *words[:1]) if name in COMMANDS or name in OPTIONS), ""
    )
    if command in COMMANDS:
        return f"`swath {command}` is now `swath {COMMANDS[command]}`"
    for argument in arguments:
        if argument == "--":
            break
        option = argument.partition("=")[0]
        if option in OPTIONS.get(command, {}):
            return f"`{option}` is now {_quoted(OPTIONS[command][option])}"
    return None


def _quoted(new: str) -> str:
    return new if " " in new else f"`{new}`"


def refuse_renamed(arguments: Sequence[str]) -> None:
    """End with status 2 and the hint where an old name was typed."""
    if (hint := renamed_hint(arguments)) is not None:
        sys.stderr.write(f"error: {hint}\n")
        raise SystemExit(2)

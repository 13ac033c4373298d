"""What is committed speaks of Swath alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from helpers.source_tree import ROOT


def committed_texts() -> list[Path]:
    """Text files under version control, and those that are about to be."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    endings = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".css", ".csv", ""}
    paths = [ROOT / line for line in listing.stdout.splitlines()]
    return [path for path in paths if path.suffix in endings and path.is_file()]


# Written in pieces, so that this file does not trip over itself.
FORBIDDEN = {
    "an absolute path of somebody's machine": r"(?<![\w.])/(?:work|root|home|Users)/\w" + r"",
    "a temporary folder": r"(?<![\w.])/" + r"tmp/\w",
    "a download host": r"\bfiles\.python"
    + r"hosted\b|\bpypi\."
    + r"org/simple\b|\bdownload\.py"
    + r"torch\b",
    "unfinished work": r"\bTO" + r"DO\b|\bFIX" + r"ME\b|\bX" + r"XX\b",
}


@pytest.mark.parametrize("what", sorted(FORBIDDEN))
def test_committed_files_are_free_of(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in committed_texts()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found


def test_every_test_file_has_a_name_of_its_own() -> None:
    # Test folders are no packages: of two files with one name pytest imports only the first.
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))

"""Plug-ins by entry points: only what is requested is imported, and a broken one harms nobody else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from swath.errors import SwathError
from swath.registry import Registry

GROUP = "swath.test_things"


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry[str]:
    """A registry and three installed packages: a single thing, a family, and one that fails on import."""
    registry: Registry[str] = Registry("thing", GROUP)
    install(tmp_path, "good-things", "good_things", ["good"])
    install(
        tmp_path, "family-things", "family_things", ["family", "family_large", "other"], announced="family"
    )
    install(tmp_path, "broken-things", "broken_things", [], announced="broken", code="import no_such_library")
    monkeypatch.syspath_prepend(tmp_path)
    for module in ("good_things", "family_things", "broken_things"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr("swath.test_things_registry", registry, raising=False)
    return registry


def install(
    folder: Path, package: str, module: str, names: list[str], *, announced: str = "", code: str = ""
) -> None:
    """An installed distribution with one module, which registers `names` and is announced by the first."""
    lines = ["import swath", code, *(f"swath.test_things_registry.register({n!r})({n!r})" for n in names)]
    (folder / f"{module}.py").write_text("\n".join(lines))
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{announced or names[0]} = {module}\n")


def imported() -> set[str]:
    return {"good_things", "family_things", "broken_things"} & set(sys.modules)


def test_names_import_nothing(things: Registry[str]) -> None:
    assert things.names() == ["broken", "family", "good"]
    assert "good" in things
    assert "nothing" not in things
    assert not imported()


def test_only_the_requested_plugin_is_imported(things: Registry[str]) -> None:
    assert things.get("good") == "good"
    assert things.find("nothing") is None
    assert imported() == {"good_things"}


def test_a_member_of_an_announced_family_is_found_by_its_beginning(things: Registry[str]) -> None:
    assert things.get("family_large") == "family_large"
    assert imported() == {"family_things"}


def test_a_member_that_nothing_announces_is_found(things: Registry[str]) -> None:
    assert things.get("other") == "other"


def test_a_plugin_that_fails_is_named_and_the_others_work(
    things: Registry[str], caplog: pytest.LogCaptureFixture
) -> None:
    things.load_all()
    assert things.names() == ["family", "family_large", "good", "other"]
    for part in ("'broken'", "'broken-things'", "no_such_library"):
        assert part in caplog.text
    assert things.get("good") == "good"


def test_asking_for_a_plugin_that_fails_says_why(things: Registry[str]) -> None:
    for _ in range(2):
        with pytest.raises(
            SwathError, match=r"thing 'broken' cannot be used: .*'broken-things'.*no_such_library"
        ):
            things.get("broken")


def test_an_unknown_name_is_answered_with_the_nearest_and_what_failed(things: Registry[str]) -> None:
    with pytest.raises(
        SwathError, match=r"unknown thing 'goof'. Did you mean 'good'\? Not available: .*'broken-things'"
    ):
        things.get("goof")


def test_a_name_is_taken_once(things: Registry[str]) -> None:
    things.register("mine")("first")
    with pytest.raises(ValueError, match="already registered"):
        things.register("mine")("second")

"""Old spellings are read under their new names, and hashes see the old ones."""

from __future__ import annotations

import logging

import pytest

from swath import renames


@pytest.fixture(autouse=True)
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {
        "optimiser": "optimizer",
        "optimiser.final_lr": "optimizer.min_lr_ratio",
        "sets.*.bank": "sets.*.train",
    }
    monkeypatch.setattr(renames, "_reported", set())
    monkeypatch.setitem(renames.KEYS, "recipe", keys)
    monkeypatch.setitem(renames.VALUES, "recipe", {"pooling": {"moments": "mean_std"}})


OLD = {"optimiser": {"final_lr": 0.1, "lr": 1}, "sets": [{"bank": "a"}, {"other": 2}], "pooling": "moments"}
NEW = {
    "optimizer": {"min_lr_ratio": 0.1, "lr": 1},
    "sets": [{"train": "a"}, {"other": 2}],
    "pooling": "mean_std",
}


def test_old_spellings_are_read_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert renames.current_names(OLD, "recipe", "recipe.yaml") == NEW
        renames.current_names(OLD, "recipe", "recipe.yaml")
    (record,) = caplog.records
    assert record.getMessage() == (
        "recipe.yaml: 'optimiser' is now 'optimizer', 'optimiser.final_lr' is now 'min_lr_ratio', "
        "'sets.*.bank' is now 'train', 'pooling: moments' is now 'mean_std' "
        "(still read; will be refused from 0.3)"
    )


def test_new_spellings_are_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    assert renames.current_names(NEW, "recipe", "recipe.yaml") == NEW
    assert not caplog.records


def test_hashes_see_the_old_spelling() -> None:
    assert renames.stored_names(NEW, "recipe") == OLD


def test_both_spellings_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="old name of optimizer"):
        renames.current_names({"optimiser": {}, "optimizer": {}}, "recipe", "recipe.yaml")

"""Folders as the Hugging Face Hub has them, opened from the disk and from its cache, without a network."""

from __future__ import annotations

import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
import yaml

import swath
from swath.errors import CheckpointError, ContractError, SwathError
from swath.models import load_model
from swath.models.export.registry import export_model

IMAGES = torch.randint(0, 255, (2, 3, 16, 16), dtype=torch.uint8)


def test_a_hub_folder_opens(folder: Path, tmp_path: Path) -> None:
    found = export_model(folder, tmp_path / "hub", to="hub")
    assert {".gitattributes", "README.md", "config.json", "model.safetensors"} <= set(found.facts["files"])
    model = swath.from_pretrained(tmp_path / "hub")
    assert model.id == load_model(folder).id
    torch.testing.assert_close(model.embed(IMAGES, 1.0), load_model(folder).embed(IMAGES, 1.0))
    _, front, body = (tmp_path / "hub" / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(front)
    assert about["library_name"] == "swath"
    assert about["pipeline_tag"] == "image-feature-extraction"
    assert "rgb_aerial" in about["tags"]
    assert "swath.from_pretrained(" in body


def test_a_folder_opens_without_the_hubs_package_and_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_model(folder, tmp_path / "hub", to="hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr(socket, "socket", lambda *a, **k: pytest.fail("asked the network"))
    assert swath.from_pretrained(tmp_path / "hub").id == load_model(folder).id
    with pytest.raises(SwathError, match="pip install huggingface_hub"):
        swath.from_pretrained("somebody/forest")


def test_an_older_export_is_replaced_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    export_model(folder, tmp_path / "hub", to="hub")
    export_model(folder, tmp_path / "hub", to="hub")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(CheckpointError):
        export_model(folder, tmp_path / "mine", to="hub")
    with pytest.raises(CheckpointError, match="the model itself"):
        export_model(folder, folder, to="hub")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_choices_and_unsaved_models_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="size: the whole model"):
        export_model(folder, tmp_path / "hub", to="hub", size=32)
    with pytest.raises(ContractError, match="save the model"):
        export_model(load_model(folder), tmp_path / "hub", to="hub")


def cached(folder: Path, cache: Path, commit: str = "0" * 40) -> Path:
    """A snapshot as the Hub's own client keeps it."""
    repository = cache / "models--somebody--forest"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repository / "snapshots" / commit)
    return cache


def test_a_repository_in_the_cache_opens(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    cache = cached(folder, tmp_path / "cache")
    model = swath.from_pretrained("somebody/forest", cache_dir=cache, local_files_only=True)
    assert model.id == load_model(folder).id
    again = swath.from_pretrained(
        "somebody/forest", cache_dir=cache, local_files_only=True, revision="0" * 40
    )
    assert again.id == model.id


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nobody/nothing", {"local_files_only": True}, "cache does not hold it"),
        ("no such folder", {}, "no such model directory, and a repository is named owner/name"),
        ("../up/model", {}, "named owner/name"),
    ],
)
def test_what_is_not_there_is_told(name: str, options: dict[str, bool], message: str, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(CheckpointError, match=message):
        swath.from_pretrained(name, cache_dir=tmp_path, **options)


def test_a_local_folder_has_no_revision(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no revision"):
        swath.from_pretrained(folder, revision="main")


def test_a_damaged_snapshot_is_refused(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    cache = cached(folder, tmp_path / "cache")
    weights = next(cache.rglob("model.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"xxxx")
    with pytest.raises(CheckpointError, match="checksum"):
        swath.from_pretrained("somebody/forest", cache_dir=cache, local_files_only=True)

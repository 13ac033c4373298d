"""Model directories: whole or not at all, checked when read, and what they say about themselves."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import swath
from helpers.small_models import NAME, OPTIONS, save_small, small_encoder
from swath.errors import CheckpointError
from swath.models import Contract, SavedObjective, load_objective
from swath.models import directory as module

IMAGES = torch.randint(0, 255, (3, 3, 32, 32), dtype=torch.uint8)


def edit(folder: Path, change: Callable[[dict[str, Any]], None], *, sign: bool = True) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    if sign:
        config["config_sha256"] = module._digest(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_loads_with_the_same_embeddings(tmp_path: Path, contract: Contract) -> None:
    encoder = small_encoder()
    path = save_small(tmp_path / "m", contract, encoder, pooling="mean")
    model = swath.load_model(path)
    with torch.no_grad():
        batch = contract.normalize({"image": IMAGES, "gsd": torch.full((3,), 0.5)})
        expected = encoder(batch["image"], batch["gsd"]).pooled
    torch.testing.assert_close(model.embed(IMAGES, gsd=0.5), expected)
    assert model.contract == contract
    assert not model.training


def test_id_tells_weights_statistics_and_pooling_apart(tmp_path: Path, contract: Contract) -> None:
    encoder = small_encoder()
    first = swath.load_model(save_small(tmp_path / "a", contract, encoder, pooling="mean"))
    again = swath.load_model(save_small(tmp_path / "b", contract, encoder, pooling="mean"))
    assert first.id == again.id
    assert first.id.startswith(NAME + "-")
    assert len(first.id) == len(NAME) + 13
    others = {
        swath.load_model(save_small(tmp_path / "c", contract, encoder, pooling="cls")).id,
        swath.load_model(save_small(tmp_path / "d", contract, small_encoder(), pooling="mean")).id,
        swath.load_model(
            save_small(tmp_path / "e", Contract.of("rgb_aerial", reference_gsd=2.0), encoder, pooling="mean")
        ).id,
    }
    assert len(others) == 3
    assert first.id not in others


def test_seen_gsds_are_no_part_of_the_id(tmp_path: Path, contract: Contract) -> None:
    encoder = small_encoder()
    wide = contract.model_copy(update={"gsd_range": (0.1, 10.0)})
    a, b = save_small(tmp_path / "a", contract, encoder), save_small(tmp_path / "b", wide, encoder)
    assert swath.load_model(a).id == swath.load_model(b).id


def test_loading_leaves_the_random_numbers_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    swath.load_model(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_objective_comes_back(tmp_path: Path, contract: Contract) -> None:
    objective = SavedObjective("scale_mae", {"mask_ratio": 0.75}, {"decoder.weight": torch.arange(6.0)})
    path = save_small(tmp_path / "m", contract, objective=objective)
    back = load_objective(path)
    assert back is not None
    assert (back.name, back.options) == ("scale_mae", {"mask_ratio": 0.75})
    assert torch.equal(back.weights["decoder.weight"], torch.arange(6.0))
    assert load_objective(save_small(tmp_path / "n", contract)) is None


# ---- damage


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        swath.load_model(folder)


@pytest.mark.parametrize("place", [0, 5, 1000, -1])
def test_one_flipped_bit_in_the_weights_is_found(folder: Path, place: int) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"checksum is wrong.*copy the directory again"):
        swath.load_model(folder)


def test_cut_weights_are_found(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="checksum is wrong"):
        swath.load_model(folder)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_cut_config_is_found(folder: Path, share: float) -> None:
    file = folder / "config.json"
    text = file.read_text()
    file.write_text(text[: int(len(text) * share)])
    with pytest.raises(CheckpointError, match=r"config\.json: cannot be read"):
        swath.load_model(folder)


def test_statistics_edited_by_hand_are_found(folder: Path) -> None:
    def change(config: dict[str, Any]) -> None:
        config["contract"]["sensors"]["rgb_aerial"]["bands"][0]["mean"] = 0.485

    edit(folder, change, sign=False)
    with pytest.raises(CheckpointError, match=r"edited by hand.*save_model"):
        swath.load_model(folder)


def test_newer_format_is_refused_with_the_fix(folder: Path) -> None:
    edit(folder, lambda config: config.update(version=2))
    with pytest.raises(CheckpointError, match=r"format version 2.*reads up to 1; upgrade"):
        swath.load_model(folder)


def test_foreign_directory_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["ViTModel"]}')
    with pytest.raises(CheckpointError, match=r"not a model directory of Swath.*import-weights"):
        swath.load_model(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    edit(folder, lambda config: config["encoder"]["options"].update(embed_dim=64))
    with pytest.raises(CheckpointError, match="the weights are not those of encoder"):
        swath.load_model(folder)


def test_unknown_encoder_is_refused_with_the_fix(folder: Path) -> None:
    edit(folder, lambda config: config["encoder"].update(name="swin_of_somebody"))
    with pytest.raises(CheckpointError, match=r"swin_of_somebody.*install that package"):
        swath.load_model(folder)


def test_pickles_are_not_read(folder: Path) -> None:
    torch.save({"weight": torch.ones(1)}, folder / "model.safetensors")
    edit(
        folder,
        lambda c: c["files"].update({"model.safetensors": module.sha256(folder / "model.safetensors")}),
    )
    with pytest.raises(CheckpointError, match="cannot be read"):
        swath.load_model(folder)


def test_absent_path_file_and_run_folder_say_what_to_give(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model directory"):
        swath.load_model(folder / "nowhere")
    with pytest.raises(CheckpointError, match="is a file"):
        swath.load_model(folder / "config.json")
    with pytest.raises(CheckpointError, match=r"Did you mean .*model"):
        swath.load_model(folder.parent)


# ---- writing


def test_an_older_model_is_replaced_whole(folder: Path, contract: Contract) -> None:
    first = swath.load_model(folder).id
    (folder / "objective.safetensors").write_bytes(b"left over")
    save_small(folder, contract)
    assert swath.load_model(folder).id != first
    assert not (folder / "objective.safetensors").exists()


def test_a_folder_that_is_no_model_is_never_replaced(tmp_path: Path, contract: Contract) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"cat")
    with pytest.raises(CheckpointError, match="is no model; choose another place"):
        save_small(tmp_path / "photos", contract)
    assert (tmp_path / "photos" / "cat.png").read_bytes() == b"cat"


def test_full_disk_leaves_the_old_model_and_nothing_else(
    folder: Path, contract: Contract, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = swath.load_model(folder).id

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(CheckpointError, match=r"could not be written.*No space left"):
        save_small(folder, contract)
    assert swath.load_model(folder).id == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, contract: Contract) -> None:
    encoder = small_encoder()
    with torch.no_grad():
        next(encoder.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        save_small(tmp_path / "m", contract, encoder)
    assert not (tmp_path / "m").exists()


def test_options_that_build_another_encoder_are_not_saved(tmp_path: Path, contract: Contract) -> None:
    with pytest.raises(CheckpointError, match="do not build this encoder"):
        save_small(tmp_path / "m", contract, encoder_options=OPTIONS | {"depth": 3})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "my model/../x"}, "a model's name"),
        ({"pooling": "max"}, "unknown pooling 'max'"),
        ({"provenance": {"loss": float("nan")}}, "not plain data"),
        ({"provenance": {"when": object()}}, "not plain data"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, contract: Contract, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        save_small(tmp_path / "m", contract, **wrong)


# ---- what it says about itself


def test_card_states_bands_scale_and_origin(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: swath\n")
    for words in ("rgb_aerial", "| R | red |", "123.67", "0.3 to 2.2 m", "| data | drawn |", "| steps | 3 |"):
        assert words in card


def test_card_of_a_relative_model_says_so(tmp_path: Path) -> None:
    contract = Contract.of("rgb_aerial", gsd_mode="relative", reference_size=224)
    card = (save_small(tmp_path / "m", contract) / "README.md").read_text()
    assert "relative, without metres" in card
    assert "224 / width" in card


def test_stac_item_describes_each_sensor_as_an_input(tmp_path: Path) -> None:
    contract = Contract.of("sentinel2_l2a", "sentinel1_grd", reference_gsd=10.0)
    bands = {"sentinel2_l2a": 12, "sentinel1_grd": 2}
    options = OPTIONS | {"bands": bands}
    path = save_small(tmp_path / "m", contract, small_encoder(bands=bands), encoder_options=options)
    item = json.loads((path / "mlm.json").read_text())
    assert (item["type"], item["stac_version"], item["geometry"]) == ("Feature", "1.1.0", None)
    properties = item["properties"]
    assert [entry["name"] for entry in properties["mlm:input"]] == ["sentinel2_l2a", "sentinel1_grd"]
    first = properties["mlm:input"][0]
    assert first["bands"] == list(contract.sensors["sentinel2_l2a"].band_names)
    assert first["input"]["shape"] == [-1, 12, -1, -1]
    assert first["value_scaling"][3]["mean"] == contract.sensors["sentinel2_l2a"].mean[3]
    assert {band["name"] for band in properties["bands"]} >= {"B02", "VV"}
    assert properties["mlm:output"][0]["result"]["shape"] == [-1, 32]
    assert properties["mlm:total_parameters"] == sum(
        p.numel() for p in small_encoder(bands=bands).parameters()
    )
    assert item["assets"]["model"]["mlm:artifact_type"] == "safetensors.torch.save_file"
    assert (path / item["assets"]["model"]["href"]).is_file()


def test_a_copy_elsewhere_loads(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "elsewhere")
    assert swath.load_model(tmp_path / "elsewhere").id == swath.load_model(folder).id

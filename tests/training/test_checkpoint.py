from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from swath.errors import CheckpointError
from swath.training import checkpoint
from swath.training.checkpoint import TrainingCheckpoint
from swath.training.optim.param_groups import parameter_groups


def some(step: int) -> TrainingCheckpoint:
    return TrainingCheckpoint(
        step, {"w": torch.full((64,), float(step))}, {"exp_avg/w": torch.ones(64)}, {"note": "x"}
    )


def test_written_and_read_back(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, some(3), keep=1)
    assert path.name == "step_00000003"
    found = checkpoint.load(path)
    assert (found.step, found.state["note"]) == (3, "x")
    assert torch.equal(found.model["w"], some(3).model["w"])
    assert not any("pickle" in file.name or file.suffix in {".pt", ".pth"} for file in path.iterdir())


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 5, 20, 100):
        checkpoint.save(tmp_path, some(step), keep=2)
    assert [checkpoint.step_of(path) for path in checkpoint.list_checkpoints(tmp_path)] == [20, 100]


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimiser.safetensors", "state.json", "checksums.json"]
)
@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.99])
def test_one_changed_byte_anywhere_is_noticed(name: str, where: float, tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, some(3), keep=1) / name
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="step_00000003"):
        checkpoint.load(path.parent)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimiser.safetensors", "state.json", "checksums.json"]
)
@pytest.mark.parametrize("length", [0, 1, 40])
def test_a_file_cut_short_is_noticed(name: str, length: int, tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, some(3), keep=1) / name
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="step_00000003"):
        checkpoint.load(path.parent)


def test_the_newest_valid_one_is_taken(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, some(step), keep=9)
    for step in (2, 3):
        (tmp_path / f"step_0000000{step}" / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="passed over") as warned:
        found = checkpoint.load_newest(tmp_path)
    assert found is not None
    assert found.step == 1
    assert len(warned) == 2


def test_none_at_all(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path) is None
    assert checkpoint.load_newest(tmp_path / "nothing") is None


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    path = checkpoint.save(tmp_path, some(3), keep=1)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="version 2; this Swath reads swath-checkpoint version 1"):
        checkpoint.load(path)


def test_weights_of_another_model_are_refused() -> None:
    state = checkpoint.model_state(nn.Linear(2, 3))
    with pytest.raises(CheckpointError, match=r"weight is \[3, 2\] there and \[4, 2\] here"):
        checkpoint.load_model_state(nn.Linear(2, 4), {**state, "bias": torch.zeros(4)})
    with pytest.raises(CheckpointError, match="1 tensors are on one side only, such as bias"):
        checkpoint.load_model_state(nn.Linear(2, 3, bias=False), state)


def test_the_optimiser_continues_bit_for_bit() -> None:
    def built() -> tuple[nn.Module, torch.optim.AdamW]:
        torch.manual_seed(0)
        module = nn.Linear(3, 3)
        return module, torch.optim.AdamW(parameter_groups(module, 0.1), lr=0.1, fused=True)

    def step(module: nn.Module, optimizer: torch.optim.AdamW) -> None:
        optimizer.zero_grad()
        module(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()

    module, optimizer = built()
    step(module, optimizer)
    weights, state = checkpoint.model_state(module), checkpoint.optimizer_state(optimizer)
    step(module, optimizer)
    other, again = built()
    checkpoint.load_model_state(other, weights)
    checkpoint.load_optimizer_state(again, state)
    step(other, again)
    assert torch.equal(other.weight, module.weight)

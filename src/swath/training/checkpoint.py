"""Checkpoints that appear whole or not at all, and prove it when they are read.

A checkpoint is a folder ``step_00000500/`` with

- ``model.safetensors``: the objective's state, encoder included, under its own names
- ``optimiser.safetensors``: ``<moment>/<parameter>``
- ``state.json``: where the run was; whatever small things continue from there
- ``checksums.json``: SHA-256 of the others

No pickles. Tensors are whole, never shards, so a run may continue on another number of processes. The folder
is written under another name, flushed and renamed; older ones go only when the new one is in place.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from swath.errors import CheckpointError, TrainingError
from swath.files import atomic_folder, sha256
from swath.training.parallel import copy_into, gather_full_tensor, shard_like

FORMAT = "swath-checkpoint"
VERSION = 1
_NAME = re.compile(r"step_(\d{8,})$")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass
class TrainingCheckpoint:
    """A checkpoint in memory.

    Attributes:
        step: Optimizer steps done.
        model: The objective's state by name.
        optimizer: State tensors by ``<moment>/<parameter>``.
        state: JSON-safe rest.
    """

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    state: dict[str, Any]


# ------------------------------------------------------------------------------- from and to live objects


def model_state(module: nn.Module) -> dict[str, Tensor]:
    """The state of `module`, whole and in main memory; collective where it is sharded."""
    return {name: gather_full_tensor(value) for name, value in module.state_dict().items()}


def load_model_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill `module`, sharded or not, from whole tensors.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    own = module.state_dict()
    if own.keys() != state.keys():
        odd = sorted(own.keys() ^ state.keys())
        raise CheckpointError(
            f"the checkpoint is of another model: {len(odd)} tensors are on one side only, such as {odd[0]}"
        )
    for name, target in own.items():
        if target.shape != state[name].shape:
            raise CheckpointError(
                f"the checkpoint is of another model: {name} is {list(state[name].shape)} there and "
                f"{list(target.shape)} here"
            )
        copy_into(target, state[name])


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State tensors by ``<moment>/<parameter name>``; groups carry their names (see `parameter_groups`)."""
    found = {}
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            for key, value in optimizer.state.get(parameter, {}).items():
                found[f"{key}/{name}"] = gather_full_tensor(value)
    return found


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Fill the optimizer's state from whole tensors."""
    by_name: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        moment, _, name = key.partition("/")
        by_name.setdefault(name, {})[moment] = value
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            optimizer.state[parameter] = {
                # `step` is a scalar of its own; moments have the parameter's form
                moment: shard_like(parameter, value)
                if value.shape == parameter.shape
                else value.to(parameter.device)
                for moment, value in by_name.get(name, {}).items()
            }


# ------------------------------------------------------------------------------------------- on the disk


def save(folder: Path, checkpoint: TrainingCheckpoint, keep: int) -> Path:
    """Write `checkpoint` below `folder` and remove all but the newest `keep`.

    Raises:
        TrainingError: The disk is full, or cannot be written; names what is still intact.
    """
    target = folder / f"step_{checkpoint.step:08d}"
    try:
        _check_room(folder, checkpoint)
        with atomic_folder(target) as part:
            save_file(checkpoint.model, part / "model.safetensors")
            save_file(checkpoint.optimizer, part / "optimiser.safetensors")
            state = {"format": FORMAT, "version": VERSION, "step": checkpoint.step, **checkpoint.state}
            (part / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
            sums = {path.name: sha256(path) for path in sorted(part.iterdir())}
            (part / "checksums.json").write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise TrainingError(_cannot_write(target, folder, error)) from error
    for old in list_checkpoints(folder)[:-keep]:
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders below `folder`, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.match(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step in a checkpoint folder's name."""
    found = _NAME.match(path.name)
    assert found is not None
    return int(found[1])


def load(path: Path) -> TrainingCheckpoint:
    """Read one checkpoint and verify it.

    Raises:
        CheckpointError: Incomplete, damaged, or of another format; says which file.
    """
    state = verify(path)
    try:
        return TrainingCheckpoint(
            step=state["step"],
            model=load_file(path / "model.safetensors"),
            optimizer=load_file(path / "optimiser.safetensors"),
            state=state,
        )
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from None


def verify(path: Path) -> dict[str, Any]:
    """Check a checkpoint's files against their checksums; returns its ``state.json``. Raises as `load`."""
    sums = _json(path / "checksums.json")
    for name in ("model.safetensors", "optimiser.safetensors", "state.json"):
        if name not in sums:
            raise CheckpointError(
                f"{path / 'checksums.json'}: has no entry for {name}; the checkpoint is damaged"
            )
        if not (path / name).is_file():
            raise CheckpointError(f"{path / name}: is missing; the checkpoint is incomplete")
        if sha256(path / name) != sums[name]:
            raise CheckpointError(
                f"{path / name}: does not have its checksum; the file is damaged or cut short"
            )
    state = _json(path / "state.json")
    if state.get("format") != FORMAT or state.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: is {state.get('format')} version {state.get('version')}; this Swath reads {FORMAT} "
            f"version {VERSION}"
        )
    return state


def load_newest(folder: Path) -> TrainingCheckpoint | None:
    """The newest valid checkpoint below `folder`, with a warning for each damaged one; None if there is none.

    Raises:
        CheckpointError: There are checkpoints, and not one is valid.
    """
    found = list_checkpoints(folder)
    for path in reversed(found):
        try:
            checkpoint = load(path)
        except CheckpointError as error:
            warnings.warn(f"checkpoint passed over: {error}", stacklevel=2)
            continue
        return checkpoint
    if found:
        raise CheckpointError(
            f"{folder}: none of the {len(found)} checkpoints is valid (see the warnings); start over with "
            "--fresh"
        )
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); the checkpoint is damaged") from None
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: is not a mapping; the checkpoint is damaged")
    return data


def _check_room(folder: Path, checkpoint: TrainingCheckpoint) -> None:
    """Raise now what the disk would say halfway through some gigabytes."""
    tensors = [*checkpoint.model.values(), *checkpoint.optimizer.values()]
    needed = sum(t.numel() * t.element_size() for t in tensors)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{needed / 2**20:.0f} MiB are needed and {free / 2**20:.0f} MiB are free"
        )


def _cannot_write(target: Path, folder: Path, error: Exception) -> str:
    code = error.errno if isinstance(error, OSError) else None
    # safetensors reports the system's error as text: Os { code: 28, kind: StorageFull, ... }
    found = re.search(r"code: (\d+)|os error (\d+)", str(error))
    if code is None and found:
        code = int(found[1] or found[2])
    what = "the disk is full" if code in _FULL else "it cannot be written"
    older = list_checkpoints(folder)
    rest = (
        f"The checkpoint of step {step_of(older[-1])} is intact: make room and run the same command again"
        if older
        else "There is no earlier one: make room and start again"
    )
    return f"{target}: {what} ({error}). {rest}. (Less room is needed with a lower training.keep.)"

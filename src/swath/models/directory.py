"""Model directories: weights with everything that is needed to use them rightly.

=====================  ======================================================================================
config.json            format and version, encoder and its options, pooling, contract, provenance, checksums
model.safetensors      the encoder's weights
objective.safetensors  optional: what the objective trained beside the encoder (to go on training)
README.md              model card, for people
mlm.json               the same for catalogs: a STAC item with the Machine Learning Model extension
=====================  ======================================================================================

A directory appears whole or not at all, holds no code and no pickle, and is read only if its checksums hold.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from swath._version import __version__
from swath.encoders import create_model
from swath.encoders.pooling import Pooling
from swath.errors import CheckpointError, SwathError, suggest
from swath.files import atomic_folder, sha256
from swath.models.card import mlm_item, model_card
from swath.models.contract import Contract
from swath.models.download import model_folder
from swath.models.model import Model
from swath.registry import Registry
from swath.renames import current_names, stored_names

FORMAT = "swath-model"
VERSION = 1

_WEIGHTS, _OBJECTIVE, _CONFIG = "model.safetensors", "objective.safetensors", "config.json"


@dataclass(frozen=True)
class SavedObjective:
    """An objective as a model directory keeps it: registered name, options, weights beside the encoder's."""

    name: str
    options: Mapping[str, Any]
    weights: Mapping[str, Tensor] = field(default_factory=dict)


def save_model(
    path: str | Path,
    *,
    encoder_name: str,
    encoder_options: Mapping[str, Any],
    encoder: nn.Module,
    contract: Contract,
    pooling: str | None = None,
    objective: SavedObjective | None = None,
    provenance: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> Path:
    """Write a model directory, whole or not at all; an older model in its place is replaced.

    Args:
        path: The directory.
        encoder_name: Registered name of the encoder.
        encoder_options: What `create_model` is called with to build it again; JSON-safe.
        encoder: Its weights.
        contract: What it may be shown.
        pooling: "mean", "mean_std", "cls", or None for the encoder's own.
        objective: What it was trained with.
        provenance: Where it comes from: recipe, data, steps, images seen, scores; JSON-safe.
        name: Short name: letters, digits, `_`, `.` and `-`; the encoder's by default.

    Returns:
        `path`.

    Raises:
        CheckpointError: There is something else at `path`; weights that are not finite; options that cannot
            build the encoder again; no room on the disk.
    """
    path = Path(path)
    name = name or encoder_name
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]+[A-Za-z0-9]", name):
        raise CheckpointError(
            f"a model's name is three or more letters, digits, _, . or -, a letter first, not {name!r}"
        )
    if pooling is not None and pooling not in get_args(Pooling):
        raise CheckpointError(f"unknown pooling {pooling!r}.{suggest(pooling, list(get_args(Pooling)))}")
    _check_target(path)
    weights = _own_memory(encoder.state_dict())
    bad = [key for key, value in weights.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise CheckpointError(
            f"{path}: not written, because {len(bad)} weights hold NaN or infinity (first: {bad[0]}); go "
            "back to an earlier checkpoint of the run"
        )
    config: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "encoder": {"name": encoder_name, "options": dict(encoder_options)},
        "pooling": pooling,
        "contract": contract.to_dict(),
        "objective": {"name": objective.name, "options": dict(objective.options)} if objective else None,
        "provenance": {"swath": __version__, "torch": torch.__version__, **(provenance or {})},
    }
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: not written; options or provenance are not plain data: {error}"
        ) from None
    rebuilt = _build(config, path)
    if {k: v.shape for k, v in rebuilt.state_dict().items()} != {k: v.shape for k, v in weights.items()}:
        raise CheckpointError(
            f"{path}: not written, because encoder_options do not build this encoder: its weights have other "
            "names or shapes than those of create_model(encoder_name, **encoder_options)"
        )
    try:
        with atomic_folder(path) as folder:
            save_file(weights, folder / _WEIGHTS)
            if objective and objective.weights:
                save_file(_own_memory(objective.weights), folder / _OBJECTIVE)
            config["files"] = {
                file: sha256(folder / file) for file in (_WEIGHTS, _OBJECTIVE) if (folder / file).exists()
            }
            config["id"] = f"{name}-{_fingerprint(config)[:12]}"
            config["config_sha256"] = _digest(config)
            parameters = sum(value.numel() for value in weights.values())
            described = Model(rebuilt, contract, name=name, pooling=pooling)
            facts = {"parameters": parameters, "embed_dim": described.embed_dim, "step": described.min_size}
            _write(folder / _CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
            _write(folder / "README.md", model_card(config, contract, **facts))
            item = mlm_item(config, contract, **facts)
            _write(folder / "mlm.json", json.dumps(item, indent=2, ensure_ascii=False) + "\n")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: the model could not be written ({error}); nothing is left of it"
        ) from error
    return path


Loader = Callable[[Path, str | torch.device], Model]
model_loaders: Registry[Loader] = Registry("model loader", "swath.model_loaders")


def load_model(
    source: str | Path, *, device: str | torch.device = "cpu", revision: str | None = None
) -> Model:
    """The model in a directory or on the Hugging Face Hub, its checksums verified, in evaluation mode.

    Args:
        source: A model directory; or ``owner/name`` of a repository of the Hub, if no such folder exists.
        device: Where its weights go.
        revision: Branch, tag or commit of the repository; a commit is the safe choice.

    Returns:
        A `Model`, which embeds images; of a directory that `swath finetune` wrote a `TaskModel`, which also
        predicts.

    Raises:
        CheckpointError: Not a model directory, incomplete, damaged, or of a newer format; with the fix.
    """
    path = model_folder(source, revision)
    objective = read_config(path)["objective"]
    if objective and objective["options"].get("classes"):  # a task; what pretraining trained has no classes
        return model_loaders.get("task")(path, device)
    return load_encoder(path, device)


def load_encoder(path: str | Path, device: str | torch.device = "cpu") -> Model:
    """The encoder in a model directory, also where a task was trained on it; otherwise as `load_model`.

    Args:
        path: A model directory.
        device: Where its weights go.

    Raises:
        CheckpointError: Not a model directory, incomplete, damaged, or of a newer format; with the fix.
    """
    path = Path(path)
    config = read_config(path)
    contract = Contract.from_dict(config["contract"], where=str(path / _CONFIG))
    encoder = _build(config, path)
    weights = _load(path, _WEIGHTS, config)
    try:
        encoder.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: the weights are not those of encoder {config['encoder']['name']!r} with the options in "
            f"config.json ({str(error).splitlines()[-1].strip()}). The directory was put together from two "
            "models, or the encoder's code has changed: save it again."
        ) from None
    model = Model(
        encoder,
        contract,
        name=config["name"],
        fingerprint=_fingerprint(config),
        pooling=config["pooling"],
        config=config,
    )
    return model.to(device)


def load_objective(path: str | Path) -> SavedObjective | None:
    """What the model in a directory was trained with, weights included; None where it does not say.

    Raises:
        CheckpointError: As `load_model`.
    """
    path = Path(path)
    config = read_config(path)
    if config["objective"] is None:
        return None
    weights = _load(path, _OBJECTIVE, config) if _OBJECTIVE in config["files"] else {}
    return SavedObjective(config["objective"]["name"], config["objective"]["options"], weights)


def read_config(path: str | Path) -> dict[str, Any]:
    """The config.json of a model directory, checked for format, version and damage (without the weights).

    Raises:
        CheckpointError: As `load_model`.
    """
    path = Path(path)
    file = path / _CONFIG
    if not path.is_dir():
        if path.exists():
            raise CheckpointError(f"{path}: is a file; give the model directory that holds config.json")
        raise CheckpointError(f"{path}: there is no such model directory")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        inside = [folder for folder in sorted(path.glob("*/")) if (folder / _CONFIG).is_file()]
        hint = f" Did you mean {inside[0]}?" if inside else " A run writes it when training ends."
        raise CheckpointError(f"{path}: is not a model directory, it has no config.json.{hint}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file}: cannot be read ({error}); {_FETCH}") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: is not a model directory of Swath (config.json does not say format {FORMAT!r}). "
            "Weights of other projects: `swath import-weights`."
        )
    version = config.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise CheckpointError(
            f"{path}: has format version {version}, this Swath ({__version__}) reads up to {VERSION}; "
            "upgrade it"
        )
    if config.get("config_sha256") != _digest(config):
        raise CheckpointError(
            f"{file}: its checksum is wrong: it is damaged or was edited by hand. To change a contract, load "
            f"the model as it was and call save_model; otherwise {_FETCH}"
        )
    config = current_names(config, "config", str(file))
    if objective := config.get("objective"):
        objective["options"] = current_names(objective["options"], f"options/{objective['name']}", str(file))
    return config


_FETCH = "copy the directory again from where it came from"


def _check_target(path: Path) -> None:
    """Only an older model may be replaced, never somebody's folder."""
    if path.is_dir():
        try:
            old = json.loads((path / _CONFIG).read_text(encoding="utf-8")).get("format") == FORMAT
        except (OSError, ValueError, AttributeError):
            old = not any(path.iterdir())
    else:
        old = not path.exists()
    if not old:
        raise CheckpointError(f"{path}: exists and is no model; choose another place, nothing was written")


def _build(config: Mapping[str, Any], path: Path) -> nn.Module:
    encoder = config["encoder"]
    # Building draws random weights that are thrown away; nobody else's random numbers may depend on it.
    with torch.random.fork_rng(devices=[]):
        try:
            return create_model(encoder["name"], **encoder["options"])
        except SwathError as error:
            raise CheckpointError(
                f"{path}: {error} If the encoder is from another package, install that package."
            ) from None
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: encoder {encoder['name']!r} cannot be built: {error}") from None


def _load(path: Path, file: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    if not (path / file).is_file():
        raise CheckpointError(f"{path / file}: is missing; {_FETCH}")
    if sha256(path / file) != config["files"][file]:
        raise CheckpointError(
            f"{path / file}: its checksum is wrong, so the weights are damaged or were replaced; {_FETCH}"
        )
    try:
        return dict(load_file(path / file))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path / file}: cannot be read ({error}); {_FETCH}") from None


def _own_memory(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory, which safetensors asks for."""
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in weights.items()}


def _digest(config: Mapping[str, Any]) -> str:
    """SHA-256 of config.json's content, whatever the order of its keys and its white space."""
    content = {key: value for key, value in config.items() if key != "config_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _fingerprint(config: Mapping[str, Any]) -> str:
    """SHA-256 over all that decides an embedding: the same weights, read otherwise, are another model.

    Taken over old spellings, so that a model keeps the id under which archives know it.
    """
    config = stored_names(config, "config")
    contract = {key: value for key, value in config["contract"].items() if key != "gsd_range"}
    parts = [config["files"][_WEIGHTS], config["encoder"], config["pooling"], contract]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")

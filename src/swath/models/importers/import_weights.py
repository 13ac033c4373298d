"""Official checkpoints to model directories, without executing what is in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from swath.encoders.protocol import create_model
from swath.errors import CheckpointError
from swath.files import sha256
from swath.models.contract import Contract
from swath.models.directory import SavedObjective, save_model
from swath.models.importers.cmid import (
    cmid_encoder_options,
    cmid_encoder_state,
    cmid_layout,
    cmid_options,
    cmid_part,
    is_cmid,
)
from swath.models.importers.csmae import UNUSED as CSMAE_UNUSED
from swath.models.importers.csmae import csmae_layout, csmae_options, is_csmae
from swath.models.importers.inert_pickle import read_checkpoint, to_plain_data
from swath.models.importers.scale_mae import UNUSED, scale_mae_layout
from swath.objectives.cmid import CMID
from swath.objectives.cmid_config import CMIDConfig
from swath.objectives.protocol import objectives
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

# The GSDs of the released training: 2.5 x 2 x (crop side - 1) / 448, with crops of 200 to 448 pixels. They
# are ratios to nothing in particular; no true metres were ever read.
_RELEASED_GSD_RANGE = (2.22, 4.99)

# What the released CMID saw: MillionAID, pixels of 0 to 1, standardized by these.
_MILLIONAID = ((0.33797, 0.3605, 0.3348), (0.1359, 0.1352, 0.1407))

# What the released CSMAE saw: BigEarthNet-MM, band order and statistics of its authors.
_CSMAE_SENSORS = ("sentinel1_ben", "sentinel2_ben")


def import_weights(
    path: str | Path,
    out: str | Path,
    *,
    kind: Literal["auto", "scale_mae", "csmae", "cmid"] = "auto",
    sensor: str | Sensor | None = None,
    heads: int | None = None,
    decoder_heads: int = 16,
) -> Path:
    """Turn an official checkpoint into a model directory.

    Args:
        path: The checkpoint, as `torch.save` wrote it. Nothing in it is executed.
        out: The model directory to write.
        kind: Whose checkpoint it is; "auto" looks at the names of its tensors. A CMID ResNet's backbone alone
            has everybody's names: say "cmid".
        sensor: What the model was trained on, a name or a `Sensor`; RGB photographs by default, which is what
            the released Scale-MAE saw.
            CSMAE checkpoints are of BigEarthNet's Sentinel-1 and Sentinel-2: leave it out.
        heads: Attention heads of the encoder. Shapes do not tell; by default the number that belongs to the
            width in the published sizes (64 channels a head; 80 for the huge one).
        decoder_heads: The same for the decoder.

    Returns:
        `out`.

    Raises:
        CheckpointError: Not such a checkpoint, or one with tensors that do not belong there.
    """
    path = Path(path)
    checkpoint = read_checkpoint(path)
    weights, options = _weights(checkpoint, path)
    if kind not in ("auto", "scale_mae", "csmae", "cmid"):
        raise CheckpointError(f"unknown kind {kind!r}: 'auto', 'scale_mae', 'csmae' or 'cmid'")
    if kind == "cmid" or (kind == "auto" and is_cmid(weights)):
        if heads is not None or decoder_heads != 16:
            raise CheckpointError(
                "a CMID checkpoint has no heads to be told: its Swin's tables say how many, a ResNet has "
                "none; leave heads and decoder_heads out"
            )
        return _cmid(path, out, weights, sensor)
    if kind == "csmae" and not is_csmae(weights):
        raise CheckpointError(
            f"{path}: not a CSMAE checkpoint; it has no patch_embed_s2, but "
            f"{', '.join(list(weights)[:4])}, ..."
        )
    if kind == "csmae" or (kind == "auto" and is_csmae(weights)):
        if sensor is not None:
            raise CheckpointError(
                "a CSMAE checkpoint is of two sensors, BigEarthNet's Sentinel-1 and -2; leave the sensor out"
            )
        return _csmae(path, out, weights, options, heads, decoder_heads)
    if "cls_token" not in weights or "patch_embed.proj.weight" not in weights:
        raise CheckpointError(
            f"{path}: not a Scale-MAE checkpoint; it has no cls_token or patch_embed.proj.weight, but "
            f"{', '.join(list(weights)[:4])}, ..."
        )
    return _scale_mae(path, out, weights, options, sensor, heads, decoder_heads)


def _weights(checkpoint: Any, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State dict and training options of a checkpoint in any of the usual wrappings."""
    found: Any = checkpoint
    options: Any = {}
    if isinstance(checkpoint, dict):
        options = to_plain_data(checkpoint.get("args", checkpoint.get("hyper_parameters", {})))
        for key in ("model", "state_dict"):
            if isinstance(checkpoint.get(key), dict):
                found = checkpoint[key]
                break
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(f"{path}: there is no state dict in it")
    weights = {str(k).removeprefix("module."): v for k, v in found.items() if isinstance(v, Tensor)}
    return weights, options if isinstance(options, dict) else {}


def scale_mae_options(
    weights: Mapping[str, Tensor],
    options: Mapping[str, Any],
    *,
    heads: int | None = None,
    decoder_heads: int = 16,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What to build for a released state dict, as far as names and shapes tell.

    Args:
        weights: The state dict (shapes are enough: meta tensors do).
        options: The checkpoint's training options, where it has them; they settle what shapes cannot.
        heads: See `import_weights`.
        decoder_heads: See `import_weights`.

    Returns:
        Options of the encoder (for `create_model("vit", ...)`) and of the objective `scale_mae`; None for the
        latter where there is no decoder.
    """

    def count(prefix: str) -> int:
        depth = prefix.count(".") + 1
        return len({key.split(".")[depth] for key in weights if key.startswith(prefix + ".")})

    dim, bands, patch_size, _ = weights["patch_embed.proj.weight"].shape
    encoder = {
        "bands": bands,
        "patch_size": patch_size,
        "embed_dim": dim,
        "depth": count("blocks"),
        "heads": heads or (16 if dim == 1280 else max(1, dim // 64)),
        "mlp_ratio": weights["blocks.0.mlp.fc1.weight"].shape[0] / dim,
    }
    if "decoder_embed.weight" not in weights:
        return encoder, None
    shared = "fcn.proj.weight" in weights
    head = "fcn" if shared else "fcn_high"
    # The position table is used by nothing, but it tells the size of the training images.
    grid = math.isqrt(weights["pos_embed"].shape[1] - 1) if "pos_embed" in weights else 224 // patch_size
    objective: dict[str, Any] = {
        "source_size": grid * patch_size,
        "source_filter": "bilinear",
        "orientation": "flip",
        "decoder_dim": weights["decoder_embed.weight"].shape[0],
        "decoder_depth": count("decoder_blocks"),
        "decoder_heads": decoder_heads,
        "fcn_dim": weights[f"{head}.proj.weight"].shape[0],
        "fcn_layers": count(f"{head}.conv_blocks"),
        "independent_heads": not shared,
        "progressive": "fpn.fpn1.0.ln.weight" in weights,
    }
    if isinstance(ratio := options.get("mask_ratio"), float):
        objective["mask_ratio"] = ratio
    if options.get("use_l1_loss"):
        objective |= {"high_loss": "l1", "high_weight": float(options.get("l1_loss_weight", 1.0))}
    band = options.get("band_config")
    if isinstance(band, list) and len(band) == 2:
        objective["high_pass"] = int(band[0])
        if band[1] == 224:
            objective["low_pass"] = 224
    return encoder, objective


def _check_bands(path: Path, sensor: Sensor, bands: int) -> None:
    if len(sensor.bands) != bands:
        raise CheckpointError(
            f"{path}: the encoder takes {bands} bands, but sensor {sensor.name!r} has {len(sensor.bands)}; "
            "name the one it was trained on (--sensor)"
        )


def _filled(
    path: Path,
    title: str,
    encoder_name: str,
    encoder_options: dict[str, Any],
    objective_name: str,
    objective_options: dict[str, Any] | None,
    state: dict[str, Tensor],
) -> tuple[torch.nn.Module, SavedObjective | None]:
    """An encoder, and the objective around it where there are options for one, with the tensors of `state`.

    Args:
        path: The checkpoint, for messages.
        title: Of the method, for messages.
        encoder_name: Registered.
        encoder_options: Of the encoder.
        objective_name: Registered.
        objective_options: Of the objective; None for the encoder alone.
        state: Under the objective's keys; the encoder's begin with "encoder.".
    """
    rest = {key: value for key, value in state.items() if not key.startswith("encoder.")}
    with torch.device("meta"):  # of the right shapes, without the memory
        encoder = create_model(encoder_name, **encoder_options)
        module, saved = encoder, None
        if objective_options is None:
            state = {key.removeprefix("encoder."): value for key, value in state.items()}
        else:
            entry = objectives.get(objective_name)
            config = entry.config.model_validate(objective_options)
            module = entry.build(encoder, config)
            saved = SavedObjective(objective_name, config.model_dump(), rest)
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its tensors do not make a {title} model: {' '.join(str(error).split())}"
        ) from None
    return encoder, saved


def _scale_mae(
    path: Path,
    out: str | Path,
    weights: dict[str, Tensor],
    options: dict[str, Any],
    sensor: str | Sensor | None,
    heads: int | None,
    decoder_heads: int,
) -> Path:
    encoder_options, objective_options = scale_mae_options(
        weights, options, heads=heads, decoder_heads=decoder_heads
    )
    found = get_sensor(sensor or "rgb_aerial")
    _check_bands(path, found, encoder_options["bands"])
    # A classification head belongs to another task than an embedding.
    dropped = sorted(key for key in weights if key in UNUSED or key.startswith("head."))
    weights = {key: value for key, value in weights.items() if key not in dropped}
    layout = scale_mae_layout(weights)
    state = {ours: to(weights[theirs]).float().contiguous() for theirs, (ours, to) in layout.items()}
    encoder, objective = _filled(
        path, "Scale-MAE", "vit", encoder_options, "scale_mae", objective_options, state
    )
    contract = Contract.of(
        found,
        gsd_mode="relative",
        gsd_range=_RELEASED_GSD_RANGE,
        reference_size=224,  # as its authors evaluate: 1 at 224 pixels, whatever the true GSD
    )
    return save_model(
        out,
        name=f"scale_mae_vit_d{encoder_options['embed_dim']}_p{encoder_options['patch_size']}",
        encoder_name="vit",
        encoder_options=encoder_options,
        encoder=encoder,
        contract=contract,
        pooling="mean",  # its class token's output was never trained
        objective=objective,
        provenance={
            "imported_from": path.name,
            "imported_sha256": sha256(path),
            "method": "Scale-MAE, official checkpoint (the authors' code and weights: CC-BY-NC-4.0)",
            "not_taken_over": dropped,
            "training_options": options,
        },
    )


def _csmae(
    path: Path,
    out: str | Path,
    weights: dict[str, Tensor],
    options: dict[str, Any],
    heads: int | None,
    decoder_heads: int,
) -> Path:
    encoder_options, objective_options = csmae_options(
        weights, *_CSMAE_SENSORS, heads=heads, decoder_heads=decoder_heads
    )
    sensors = [get_sensor(name) for name in _CSMAE_SENSORS]
    for found in sensors:
        if len(found.bands) != encoder_options["bands"][found.name]:
            raise CheckpointError(
                f"{path}: its encoder takes {encoder_options['bands'][found.name]} bands of {found.title}, "
                f"but the released CSMAE takes {len(found.bands)} ({', '.join(found.band_names)})"
            )
    layout = csmae_layout(weights, *_CSMAE_SENSORS)
    state = {ours: weights[theirs].float().contiguous() for theirs, ours in layout.items()}
    encoder, objective = _filled(
        path, "CSMAE", "vit_multi_sensor", encoder_options, "csmae", objective_options, state
    )
    specific, common = encoder_options["specific_depth"], encoder_options["common_depth"]
    variant = ("s" if specific else "c") + "e"
    if objective is not None:
        variant += f"{objective.options['decoder'][0]}d"
    return save_model(
        out,
        name=f"csmae_{variant}_{specific}_{common}_d{encoder_options['embed_dim']}",
        encoder_name="vit_multi_sensor",
        encoder_options=encoder_options,
        encoder=encoder,
        # Its authors' images reach the network with rows and columns swapped: the contract does it for you.
        contract=Contract.of(*sensors, reference_gsd=10.0, gsd_range=(10.0, 10.0), transpose=True),
        objective=objective,
        provenance={
            "imported_from": path.name,
            "imported_sha256": sha256(path),
            "method": "CSMAE, official checkpoint (the authors' code: MIT)",
            "not_taken_over": sorted(key for key in weights if key.rpartition(".")[2] in CSMAE_UNUSED),
            "training_options": options,
        },
    )


_OF_OURS = {"progress", "queue.owners"}  # buffers that the released code has not; as they begin


def _cmid(path: Path, out: str | Path, weights: dict[str, Tensor], sensor: str | Sensor | None) -> Path:
    part = cmid_part(weights)
    try:
        encoder_name, encoder_options = cmid_encoder_options(weights, part)
        objective_options = cmid_options(weights)
    except (CheckpointError, KeyError) as error:
        raise CheckpointError(f"{path}: not a CMID checkpoint: {error}") from None
    found = get_sensor(sensor) if sensor is not None else _millionaid()
    _check_bands(path, found, encoder_options["bands"])
    encoder = create_model(encoder_name, **encoder_options)
    config, rest, dropped = None, {}, []
    try:
        if objective_options is None:
            encoder.load_state_dict(cmid_encoder_state(weights, part))
        else:
            config = CMIDConfig.model_validate(objective_options)
            layout = cmid_layout(weights)
            whole = {ours: to(weights[theirs]) for theirs, (ours, to) in layout.items()}
            module = CMID(encoder, config)
            missing, unexpected = module.load_state_dict(whole, strict=False)
            if unexpected or set(missing) - _OF_OURS:
                raise RuntimeError(f"missing {missing[:3]}, unexpected {unexpected[:3]}")
            rest = {k: v for k, v in module.state_dict().items() if not k.startswith("encoder.")}
            dropped = sorted(set(weights) - set(layout))
    except RuntimeError as error:
        raise CheckpointError(
            f"{path}: its tensors do not make a CMID model: {' '.join(str(error).split())}"
        ) from None
    return save_model(
        out,
        name=f"cmid_{encoder_name}",
        encoder_name=encoder_name,
        encoder_options=encoder_options,
        encoder=encoder,
        # Its authors squash every scene to 224 pixels: no scale in metres was ever seen.
        contract=Contract.of(found, gsd_mode="relative", reference_size=224),
        objective=None if config is None else SavedObjective("cmid", config.model_dump(), rest),
        provenance={
            "imported_from": path.name,
            "imported_sha256": sha256(path),
            "method": "CMID, official checkpoint (the authors' code and weights: no license, non-commercial)",
            "not_taken_over": dropped,
        },
    )


def _millionaid() -> Sensor:
    """Red, green and blue as the released CMID standardizes them."""
    rgb = get_sensor("rgb_aerial")
    bands = [
        band.model_copy(update={"mean": 255 * mean, "std": 255 * std})
        for band, mean, std in zip(rgb.bands, *_MILLIONAID, strict=True)
    ]
    return rgb.model_copy(update={"bands": tuple(bands)})

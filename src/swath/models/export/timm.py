"""Our encoders as weights for timm: a file of tensors, and the arguments that build the network they fit.

What the file gives: ``timm.create_model(architecture, **arguments).load_state_dict(tensors)`` fits without a
missing or superfluous key, and the network makes of normalized images what our encoder makes of them. The
architecture, arguments, bands, mean, standard deviation and GSD stand in the file's metadata.

What timm cannot hold, and is therefore fixed or left behind:

- *Scale.* A ViT's positions become a table for one GSD and one size of image. A scale-aware Swin has no such
  table in timm and is refused.
- *Sensors.* One of them, the one chosen.
- *Size.* timm's Swin cuts its windows, and their tables, to the maps of one size of image; so do we. Sizes at
  which a map does not divide into windows are refused: timm shifts before it pads.
- *The contract.* timm normalizes by what it is told and refuses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from swath.encoders.cnn import CNN
from swath.encoders.inputs import resolve_sensor
from swath.encoders.positions import gsd_positions
from swath.encoders.swin import Swin
from swath.encoders.vit import ViT
from swath.errors import ContractError
from swath.files import atomic_path
from swath.models.export.registry import ExportOptions, ExportResult, check_file, exporters
from swath.models.model import Model

# timm's architectures whose arguments are exactly these; others are built from the first of their family.
_VITS = {
    (192, 12, 3, 16): "vit_tiny_patch16_224", (384, 12, 6, 16): "vit_small_patch16_224",
    (768, 12, 12, 16): "vit_base_patch16_224", (1024, 24, 16, 16): "vit_large_patch16_224",
    (384, 12, 6, 8): "vit_small_patch8_224", (768, 12, 12, 8): "vit_base_patch8_224",
    (1024, 24, 16, 14): "vit_large_patch14_224", (1280, 32, 16, 14): "vit_huge_patch14_224",
}  # fmt: skip
_SWINS: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2), (3, 6, 12, 24)): "swin_tiny_patch4_window7_224",
    (96, (2, 2, 18, 2), (3, 6, 12, 24)): "swin_small_patch4_window7_224",
    (128, (2, 2, 18, 2), (4, 8, 16, 32)): "swin_base_patch4_window7_224",
    (192, (2, 2, 18, 2), (6, 12, 24, 48)): "swin_large_patch4_window7_224",
}


@exporters.register("timm")
def export_to_timm(model: Model, out: Path, choices: ExportOptions) -> ExportResult:
    """Write a ViT, Swin or CNN as weights for timm (``.safetensors``).

    Raises:
        ContractError: timm has no network like this encoder; a sensor, size or GSD is missing or has no
            meaning; the file's name.
    """
    check_file(out, ".safetensors", "weights for timm are written as .safetensors")
    if model.contract.transpose:
        raise ContractError(
            f"{model.name} looks at transposed images, which timm would not know; it cannot be exported there"
        )
    encoder = model.encoder
    sensor = model.contract.sensor(choices.sensor)
    if isinstance(encoder, ViT):
        architecture, arguments, state, left = _vit(model, encoder, sensor.name, choices)
    elif isinstance(encoder, Swin):
        architecture, arguments, state, left = _swin(encoder, sensor.name, choices)
    elif isinstance(encoder, CNN):
        architecture, arguments, state, left = _cnn(encoder, sensor.name, choices)
    else:
        raise ContractError(
            f"timm has no network like a {type(encoder).__name__}; ViT, Swin and CNN can be exported to it"
        )
    arguments = {"in_chans": len(sensor.bands), "num_classes": 0, **arguments}
    _check(architecture, arguments, state)
    if model.pooling == "mean_std":
        left.append("pooling by moments: timm's output is the mean alone; forward_features gives the map")
    if len(model.contract.sensors) > 1:
        left.append(f"the model's other sensors; this is for {sensor.name}")
    left.append(
        "the contract: normalize images as in `mean` and `std`, (x - mean) / std in the sensor's unit"
    )
    facts = {
        "architecture": architecture,
        "arguments": arguments,
        "model": model.id,
        "sensor": sensor.name,
        "bands": list(sensor.band_names),
        "unit": sensor.unit,
        "mean": sensor.mean,
        "std": sensor.std,
        "gsd": choices.gsd,
    }
    metadata = {key: v if isinstance(v, str) else json.dumps(v) for key, v in facts.items() if v is not None}
    with atomic_path(out) as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, temporary, metadata)
    given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    usage = (
        "from safetensors.torch import load_file\n"
        "import timm\n"
        f"network = timm.create_model({architecture!r}, {given})\n"
        f"network.load_state_dict(load_file({str(out)!r}))"
    )
    return ExportResult(out, usage, tuple(left), facts)


Found = tuple[str, dict[str, Any], dict[str, Tensor], list[str]]


def _vit(model: Model, encoder: ViT, sensor: str, choices: ExportOptions) -> Found:
    size = _size(choices, encoder.patch_size)
    if not encoder.scale_aware and choices.gsd is not None:
        raise ContractError("gsd: this ViT takes no notice of it; leave it out")
    relative = torch.ones(1)
    if encoder.scale_aware:
        relative = model.contract.gsd(choices.gsd, 1, size) / model.contract.reference_gsd
    state = _of_sensor(encoder, "patch_embed", sensor)
    grid = size // encoder.patch_size
    state["pos_embed"] = gsd_positions(grid, grid, encoder.embed_dim, relative)
    block = cast(Any, encoder.blocks[0])
    heads, hidden = block.attn.heads, block.mlp.fc1.out_features
    architecture = _VITS.get((encoder.embed_dim, len(encoder.blocks), heads, encoder.patch_size))
    arguments: dict[str, Any] = {"img_size": size}
    if architecture is None or hidden != 4 * encoder.embed_dim:
        architecture = "vit_base_patch16_224"
        arguments |= {
            "patch_size": encoder.patch_size,
            "embed_dim": encoder.embed_dim,
            "depth": len(encoder.blocks),
            "num_heads": heads,
            "mlp_ratio": hidden / encoder.embed_dim,
        }
    pooling = encoder.pooling if model.pooling in (None, "mean_std") else model.pooling
    if pooling == "mean":  # of the patches, after the norm as with us, not before it
        arguments |= {"global_pool": "avg", "fc_norm": False}
    left = [f"other sizes than {size} x {size} pixels"]
    if encoder.scale_aware:
        stated = "" if choices.gsd is None else f" of {choices.gsd:g}"
        left.append(f"scale: positions are a table for one GSD{stated}")
    return architecture, arguments, state, left


def _swin(encoder: Swin, sensor: str, choices: ExportOptions) -> Found:
    if encoder.scale_aware:
        raise ContractError(
            "this Swin adds positions by GSD, and timm's has nothing to put them in; it cannot be exported"
        )
    if choices.gsd is not None:
        raise ContractError("gsd: this Swin takes no notice of it; leave it out")
    size = _size(choices, encoder.strides[-1])
    _check_padding(encoder, size)
    state = _of_sensor(encoder, "patch_embed", sensor)
    stages = [cast(Any, stage) for stage in encoder.layers]
    heads = tuple(stage.blocks[0].attn.heads for stage in stages)
    depths = tuple(len(stage.blocks) for stage in stages)
    first = stages[0].blocks[0]
    for number, stride in enumerate(encoder.strides):
        for index in range(depths[number]):
            key = f"layers.{number}.blocks.{index}.attn.relative_position_bias_table"
            state[key] = _cut_table(state[key], first.window, min(first.window, size // stride))
    ratio = first.mlp.fc1.out_features / encoder.channels[0]
    architecture = _SWINS.get((encoder.channels[0], depths, heads))
    arguments: dict[str, Any] = {"img_size": size}
    if architecture is None or (encoder.patch_size, first.window, ratio) != (4, 7, 4.0):
        architecture = "swin_tiny_patch4_window7_224"
        arguments |= {
            "patch_size": encoder.patch_size,
            "window_size": first.window,
            "embed_dim": encoder.channels[0],
            "depths": depths,
            "num_heads": heads,
            "mlp_ratio": ratio,
        }
    return architecture, arguments, state, [f"other sizes than {size} x {size} pixels"]


def _cnn(encoder: CNN, sensor: str, choices: ExportOptions) -> Found:
    for name in ("gsd", "size"):
        if getattr(choices, name) is not None:
            raise ContractError(f"{name}: a CNN takes images of any; leave it out")
    state = dict(encoder.state_dict())
    if isinstance(encoder.bands, Mapping):
        own = f"stems.{resolve_sensor(list(encoder.bands), sensor)}."
        state = {k.removeprefix(own): v for k, v in state.items() if k.startswith(own) or k[:6] != "stems."}
    theirs = _keys(encoder.architecture, {"num_classes": 0, **encoder.options})
    # timm's chain of stages names a part "stages_0" that its whole network calls "stages.0".
    whole = {key.replace(".", "_"): key for key in theirs}
    state = {whole.get(key.replace(".", "_"), key): value for key, value in state.items()}
    return encoder.architecture, dict(encoder.options), state, []


def _size(choices: ExportOptions, step: int) -> int:
    if choices.size is None:
        raise ContractError(
            "size: timm's network is for images of one size: say their side in pixels (--size)"
        )
    if choices.size < step or choices.size % step:
        fits = max(step, round(choices.size / step) * step)
        raise ContractError(f"size: {choices.size} pixels are no multiple of {step}; {fits} are")
    return choices.size


def _check_padding(encoder: Swin, size: int) -> None:
    """Refuse sizes at which padding mixes with shifting: we pad first (as detection codes do), timm shifts.

    Where there is as much padding as shift, both part the cells of the last window from the padding alike.
    """
    block = cast(Any, encoder.layers[0]).blocks[0]

    def fits(size: int) -> bool:
        sides = [
            size // stride
            for stride, stage in zip(encoder.strides, encoder.layers, strict=True)
            if len(cast(Any, stage).blocks) > 1  # the first is not shifted
        ]
        return all(side <= block.window or -side % block.window in (0, block.window // 2) for side in sides)

    if not fits(size):
        step = encoder.strides[-1]
        near = min(filter(fits, range(step, 2 * size + 1, step)), key=lambda other: abs(other - size))
        raise ContractError(
            f"size: at {size} pixels shifted windows of {block.window} cells are padded, which timm does in "
            f"another order; at {near} it does not matter"
        )


def _of_sensor(encoder: nn.Module, part: str, sensor: str) -> dict[str, Tensor]:
    """The state dict with only this sensor's patch embedding, under the name of the only one."""
    state = dict(encoder.state_dict())
    embed = getattr(encoder, part)
    if not isinstance(embed, nn.ModuleDict):
        return state
    own = f"{part}.{resolve_sensor(list(embed), sensor)}."
    return {
        key.replace(own, f"{part}."): value
        for key, value in state.items()
        if key.startswith(own) or not key.startswith(f"{part}.")
    }


def _cut_table(table: Tensor, window: int, side: int) -> Tensor:
    """Biases of relative positions, [(2 window - 1)^2, heads], for windows of only `side` cells."""
    square = table.view(2 * window - 1, 2 * window - 1, -1)
    kept = slice(window - side, window + side - 1)
    return square[kept, kept].flatten(0, 1)


def _keys(architecture: str, arguments: Mapping[str, Any]) -> dict[str, torch.Size]:
    import timm  # takes seconds to import

    with torch.device("meta"):
        network = timm.create_model(architecture, pretrained=False, **arguments)
    return {key: value.shape for key, value in network.state_dict().items()}


def _check(architecture: str, arguments: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Refuse what would not load in timm."""
    theirs = _keys(architecture, arguments)
    missing = sorted(set(theirs) - set(state))
    other = sorted(key for key in state if theirs.get(key) != state[key].shape)
    if missing or other:
        which = f"it has {missing[0]}" if missing else f"{other[0]} is {list(state[other[0]].shape)} here"
        raise ContractError(
            f"timm's {architecture} is another network than this encoder: {which} ({len(missing)} tensors "
            f"more, {len(other)} other ones). Layers behind the last map, which timm puts there for "
            "classification, are nothing that Swath trains."
        )

"""The released CMID checkpoints' names, and ours; and what their tensors tell of the encoder.

A released state dict holds a student (``online_encoder.mask_token``, ``online_encoder.model.*``), its teacher
(``branch_encoder.*``) and heads; a "backbone only" file holds an encoder alone, without prefix. ResNets have
the field's names. Swin's differ from the field's (timm's, and ours), and the input of its patch merging is
ordered otherwise: theirs runs over channels first and the four cells within, row by row; the field's over the
cells first, column by column, and channels within. `cmid_encoder_state` puts names and order right, so that
its result loads into our encoders and into timm's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from swath.errors import CheckpointError

Part = Literal["student", "teacher", "backbone"]
Layout = Callable[[Tensor], Tensor]
_PREFIX: dict[Part, str] = {"student": "online_encoder.model.", "teacher": "branch_encoder.", "backbone": ""}
MASK_TOKEN = "online_encoder.mask_token"  # of the student; ours belongs to the objective, same shape

# Swin's, theirs -> ours, where that is more than a prefix.
_SWIN = (
    (r"patch_embed\.projection\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"patch_embed\.norm\.(weight|bias)", r"patch_embed.norm.\1"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.(norm[12])\.(weight|bias)", r"layers.\1.blocks.\2.\3.\4"),
    (
        r"stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.(relative_position_bias_table|qkv\.\w+|proj\.\w+)",
        r"layers.\1.blocks.\2.attn.\3",
    ),
    (r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.(weight|bias)", r"layers.\1.blocks.\2.mlp.fc1.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.(weight|bias)", r"layers.\1.blocks.\2.mlp.fc2.\3"),
    (r"norm3?\.(weight|bias)", r"norm.\1"),
)
# Tables that are a function of the window, and norms of earlier maps that segmentation adds.
_SWIN_UNUSED = re.compile(r"(.*\.(relative_position_index|attn_mask)|norm[012]\.(weight|bias))")
_MERGE = re.compile(r"stages\.(\d+)\.downsample\.(norm|reduction)\.(weight|bias)")
_RESNET = re.compile(
    r"(conv1|bn1|layer\d\.\d+\.(conv\d|bn\d|downsample\.[01]))"
    r"\.(weight|bias|running_mean|running_var|num_batches_tracked)"
)
_RESNET_UNUSED = re.compile(r"fc\.(weight|bias)")


def is_cmid(keys: Collection[str]) -> bool:
    """Whether a state dict is of a whole CMID model, or of its Swin alone (a ResNet alone is anyone's)."""
    return any(key.startswith(_PREFIX["student"]) for key in keys) or (
        "patch_embed.projection.weight" in keys and any(".attn.w_msa." in key for key in keys)
    )


def cmid_part(keys: Collection[str]) -> Part:
    """Which part of a checkpoint is the encoder to use: the student of a whole one, else the backbone."""
    return "student" if any(key.startswith(_PREFIX["student"]) for key in keys) else "backbone"


def cmid_encoder_layout(keys: Collection[str], part: Part = "student") -> dict[str, str]:
    """Where each tensor of an encoder goes.

    Args:
        keys: Names of the checkpoint's tensors.
        part: Which of its encoders: the student, its teacher, or the only one of a "backbone only" file.

    Returns:
        Their key -> key of our encoder (`Swin` or `CNN` of one sensor), without what is derived from others.

    Raises:
        CheckpointError: There is no such part, or a tensor that no CMID encoder has.
    """
    prefix = _PREFIX[part]
    names = [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]
    if not names:
        raise CheckpointError(f"the checkpoint has no {part} encoder (no tensor {prefix}...)")
    swin = any(name.startswith("patch_embed.") for name in names)
    layout = {}
    for name in names:
        if (_SWIN_UNUSED if swin else _RESNET_UNUSED).fullmatch(name):
            continue
        ours = _swin_name(name) if swin else (name if _RESNET.fullmatch(name) else None)
        if ours is None:
            raise CheckpointError(f"{prefix + name!r} is not a tensor of a CMID encoder")
        layout[prefix + name] = ours
    return layout


def _swin_name(name: str) -> str | None:
    if match := _MERGE.fullmatch(name):  # at the end of a stage with them, at the start of the next with us
        return f"layers.{int(match[1]) + 1}.downsample.{match[2]}.{match[3]}"
    for pattern, ours in _SWIN:
        if re.fullmatch(pattern, name):
            return re.sub(pattern, ours, name)
    return None


def cmid_encoder_state(weights: Mapping[str, Tensor], part: Part = "student") -> dict[str, Tensor]:
    """One encoder of a released state dict as a state dict of ours, which is also timm's."""
    return {
        ours: to_timm_order(ours, weights[theirs])
        for theirs, ours in cmid_encoder_layout(weights, part).items()
    }


def cmid_layout(keys: Collection[str], sensor: str = "pixels") -> dict[str, tuple[str, Layout]]:
    """Where each tensor of a whole released checkpoint goes in the objective `CMID`, and how it is laid out.

    Args:
        keys: Names of the checkpoint's tensors.
        sensor: Name of the output layer: the sensor's, or "pixels" for an encoder that has only one.

    Returns:
        Their key -> (our key, function of the tensor), without what is derived from others.

    Raises:
        CheckpointError: A tensor that no CMID checkpoint has.
    """
    layout: dict[str, tuple[str, Layout]] = {}
    rooms: tuple[tuple[Part, str], ...] = (("student", "encoder"), ("teacher", "teacher.encoder"))
    for part, room in rooms:
        for key, ours in cmid_encoder_layout(keys, part).items():
            layout[key] = (f"{room}.{ours}", partial(to_timm_order, ours))
    for key in keys:
        if key in layout or key.startswith((_PREFIX["student"], _PREFIX["teacher"])):
            continue
        if key.endswith("last_layer.weight_g"):  # lengths of the prototypes: all one, and frozen
            continue
        place = _head(key, sensor)
        if place is None:
            raise CheckpointError(f"{key!r} is not a tensor of a CMID checkpoint")
        layout[key] = place
    return layout


def cmid_options(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """Options of the objective `cmid`, as far as shapes tell; None where only an encoder is there.

    Args:
        weights: The state dict (shapes are enough: meta tensors do).
    """
    if cmid_part(weights) == "backbone" or "queue" not in weights:
        return None
    head = "class_projector"
    return {
        "hidden_dim": weights["online_projector.layer.0.0.weight"].shape[0],
        "out_dim": weights["queue"].shape[0],
        "queue_size": weights["queue"].shape[1],
        "prototypes": weights[f"{head}.last_layer.weight_v"].shape[0],
        "bottleneck_dim": weights[f"{head}.last_layer.weight_v"].shape[1],
        "local_batch_norm": f"{head}.mlp.1.running_mean" in weights,
        "matching": "released",
        "photometric": "paper",
        "frequency_over": "process",
    }


def _head(key: str, sensor: str) -> tuple[str, Layout] | None:
    if key == MASK_TOKEN:
        return "mask_token", _same
    if key == "queue":
        return "queue.keys", _transposed  # theirs are columns
    if key == "queue_ptr":
        return "queue.place", _scalar
    if key == "class_loss.center":
        return "agreement.centre", _flat
    if match := re.fullmatch(r"mim2org\.decoder_pred\.0\.(weight|bias)", key):
        return f"pixels.{sensor}.proj.{match[1]}", _same
    if match := re.fullmatch(r"(online|branch)_projector\.layer\.0\.([03])\.(weight|bias)", key):
        room = "projector" if match[1] == "online" else "teacher.projector"
        return f"{room}.{'fc1' if match[2] == '0' else 'fc2'}.{match[3]}", _same
    if match := re.fullmatch(r"(branch_)?class_projector\.(mlp\.\d+|last_layer)\.(\w+)", key):
        room = "teacher.prototypes" if match[1] else "prototypes"
        if match[2] == "last_layer":
            return (f"{room}.prototypes", _squeezed) if match[3] == "weight_v" else None
        return f"{room}.{match[2]}.{match[3]}", _squeezed
    return None


def _same(x: Tensor) -> Tensor:
    return x


def _squeezed(x: Tensor) -> Tensor:
    """1 x 1 convolution over a sequence [out, in, 1] -> matrix; others as they are."""
    return x.squeeze(-1) if x.ndim == 3 else x


def _transposed(x: Tensor) -> Tensor:
    return x.T.contiguous()


def _flat(x: Tensor) -> Tensor:
    return x.flatten()


def _scalar(x: Tensor) -> Tensor:
    return x.reshape(())


def to_timm_order(key: str, tensor: Tensor) -> Tensor:
    """A tensor under our key from the released order of patch merging to the field's; others as they are.

    Theirs has cell (row, column) of channel c at 4 c + 2 row + column, the field's at
    (2 column + row) C + c.
    """
    if ".downsample." not in key or not key.startswith("layers."):
        return tensor
    cells = tensor.reshape(*tensor.shape[:-1], -1, 2, 2)
    return cells.transpose(-3, -1).flatten(-3).contiguous()


def cmid_encoder_options(weights: Mapping[str, Tensor], part: Part = "student") -> tuple[str, dict[str, Any]]:
    """What to build: name and options for `create_model`, read off the tensors' shapes.

    Args:
        weights: The state dict (shapes are enough: meta tensors do).
        part: As for `cmid_encoder_layout`.
    """
    shapes = {ours: weights[theirs].shape for theirs, ours in cmid_encoder_layout(weights, part).items()}
    try:
        return _swin_options(shapes) if "patch_embed.proj.weight" in shapes else _resnet_options(shapes)
    except KeyError as error:
        raise CheckpointError(f"the checkpoint's {part} encoder lacks {error}") from None


def _count(shapes: Mapping[str, torch.Size], pattern: str) -> int:
    found = {match[1] for key in shapes if (match := re.match(pattern, key))}
    return len(found)


def _swin_options(shapes: Mapping[str, torch.Size]) -> tuple[str, dict[str, Any]]:
    dim, bands, patch_size, _ = shapes["patch_embed.proj.weight"]
    stages = range(_count(shapes, r"layers\.(\d+)\."))
    table = "layers.{}.blocks.0.attn.relative_position_bias_table"
    return "swin", {
        "bands": bands,
        "patch_size": patch_size,
        "embed_dim": dim,
        "depths": [_count(shapes, rf"layers\.{stage}\.blocks\.(\d+)\.") for stage in stages],
        "heads": [shapes[table.format(stage)][1] for stage in stages],
        "window": (math.isqrt(shapes[table.format(0)][0]) + 1) // 2,
        "mlp_ratio": shapes["layers.0.blocks.0.mlp.fc1.weight"][0] / dim,
    }


def _resnet_options(shapes: Mapping[str, torch.Size]) -> tuple[str, dict[str, Any]]:
    stages = range(1, 5)
    bottleneck = "layer1.0.conv3.weight" in shapes
    layers = [_count(shapes, rf"layer{stage}\.(\d+)\.") for stage in stages]
    channels = [shapes[f"layer{stage}.0.conv1.weight"][0] for stage in stages]
    named: dict[tuple[int, ...], int] = {
        (True, 3, 4, 6, 3): 50,
        (True, 3, 4, 23, 3): 101,
        (True, 3, 8, 36, 3): 152,
        (False, 2, 2, 2, 2): 18,
        (False, 3, 4, 6, 3): 34,
    }
    bands = shapes["conv1.weight"][1]
    depth = named.get((bottleneck, *layers))
    if depth and channels == [64, 128, 256, 512]:
        return f"resnet{depth}", {"bands": bands}
    return "cnn", {
        "bands": bands,
        "architecture": "resnet50" if bottleneck else "resnet18",
        "options": {"layers": layers, "channels": channels},
    }

"""The released CSMAE checkpoints' names, and ours; and what their tensors tell of the model.

A released state dict calls Sentinel-1's parts by plain names and Sentinel-2's by names with `_s2`
(`cls_token`, `cls_token_s2`), and a decoder by the way it was meant to go (`decoder_s2_to_s1` is used for
every reconstruction *of* S1, from S1 too). Shapes agree: only names change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from swath.errors import CheckpointError

# Tables of positions, which are a function of the grid and not learned.
UNUSED = ("pos_embed", "decoder_pos_embed")


def is_csmae(keys: Mapping[str, Any]) -> bool:
    """Whether a state dict is of a CSMAE model, whole or the backbone alone."""
    return any(key.removeprefix("backbone.").startswith("patch_embed_s2.") for key in keys)


def csmae_layout(keys: Mapping[str, Any], s1: str, s2: str) -> dict[str, str]:
    """Where each tensor of a released checkpoint goes in `CSMAE`.

    Args:
        keys: The checkpoint's state dict (only its keys are read), whole or the backbone alone, with or
            without the prefix ``backbone.``.
        s1: Our name of Sentinel-1's sensor.
        s2: Our name of Sentinel-2's.

    Returns:
        Their key -> our key; without the tables of positions.

    Raises:
        CheckpointError: A key that no CSMAE checkpoint has.
    """
    depth = 1 + max(
        (int(match[1]) for key in keys if (match := re.search(r"\bblocks_s1\.(\d+)\.", key))), default=-1
    )
    layout = {}
    for key in keys:
        if key.rpartition(".")[2] in UNUSED:
            continue
        place = _decoder(key, s1, s2) or _backbone(key.removeprefix("backbone."), s1, s2, depth)
        if place is None:
            raise CheckpointError(f"{key!r} is not a tensor of a CSMAE checkpoint")
        layout[key] = place
    return layout


def _backbone(key: str, s1: str, s2: str, depth: int) -> str | None:
    sensors = {"": s1, "_s1": s1, "_s2": s2}
    if match := re.fullmatch(r"cls_token(|_s2)", key):
        return f"encoder.cls_token.{sensors[match[1]]}"
    if match := re.fullmatch(r"patch_embed(|_s2)\.(proj\.\w+)", key):
        return f"encoder.patch_embed.{sensors[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"blocks(_s1|_s2)\.(.+)", key):
        return f"encoder.specific.{sensors[match[1]]}.{match[2]}"
    if match := re.fullmatch(r"norm(_s1|_s2)\.(\w+)", key):
        return f"encoder.specific.{sensors[match[1]]}.{depth}.{match[2]}"
    if re.fullmatch(r"(blocks\..+|norm\.\w+|fc_norm\.\w+)", key):
        return f"encoder.{key}"
    return None


def _decoder(key: str, s1: str, s2: str) -> str | None:
    match = re.fullmatch(r"(decoder|decoder_s2_to_s1|decoder_s1_to_s2)\.(.+)", key)
    if match is None:
        return None
    targets = {"s2_to_s1": s1, "s1_to_s2": s2}
    own = targets.get(match[1].removeprefix("decoder_"))
    room = "decoder" if own is None else f"decoders.{own}"
    rest = match[2]
    if rest == "mask_token":
        return f"{room}.mask_token"
    if part := re.fullmatch(r"decoder_(embed|blocks|norm)\.(.+)", rest):
        return f"{room}.{part[1]}.{part[2]}"
    if part := re.fullmatch(r"decoder_pred(?:_(s2_to_s1|s1_to_s2))?\.(\w+)", rest):
        target = own if part[1] is None else targets[part[1]]
        return None if target is None else f"{room}.pred.{target}.{part[2]}"
    return None


def csmae_options(
    weights: Mapping[str, Tensor],
    s1: str,
    s2: str,
    *,
    heads: int | None = None,
    decoder_heads: int = 16,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What to build for a released state dict, as far as names and shapes tell.

    Args:
        weights: The state dict (shapes are enough: meta tensors do).
        s1: Our name of Sentinel-1's sensor.
        s2: Our name of Sentinel-2's.
        heads: Attention heads of the encoder, which shapes do not tell. Default: 64 channels a head, the 12
            of the released weights (their README loads them with 16, which fits and is wrong).
        decoder_heads: The same for the decoder.

    Returns:
        Options of the encoder (for `create_model("vit_multi_sensor", ...)`) and of the objective `csmae`;
        None for the latter where there is no decoder (a backbone alone cannot tell common from specific).
    """
    bare = {key.removeprefix("backbone."): value for key, value in weights.items()}

    def blocks(prefix: str) -> int:
        found = {key[len(prefix) :].split(".")[0] for key in bare if key.startswith(prefix)}
        return len(found)

    first, second = bare["patch_embed.proj.weight"], bare["patch_embed_s2.proj.weight"]
    dim, _, patch_size, _ = first.shape
    hidden = next(value for key, value in bare.items() if key.endswith("mlp.fc1.weight"))
    encoder = {
        "bands": {s1: first.shape[1], s2: second.shape[1]},
        "patch_size": patch_size,
        "embed_dim": dim,
        "specific_depth": blocks("blocks_s1."),
        "common_depth": blocks("blocks."),
        "heads": heads or max(1, dim // 64),
        "mlp_ratio": hidden.shape[0] / dim,
        "pooling": "mean" if "fc_norm.weight" in bare else "cls",
    }
    specific = "decoder_s2_to_s1.mask_token" in bare
    name = "decoder_s2_to_s1" if specific else "decoder"
    if f"{name}.mask_token" not in bare:
        return encoder, None
    return encoder, {
        "decoder": "specific" if specific else "common",
        "decoder_dim": bare[f"{name}.decoder_embed.weight"].shape[0],
        "decoder_depth": blocks(f"{name}.decoder_blocks."),
        "decoder_heads": decoder_heads,
    }

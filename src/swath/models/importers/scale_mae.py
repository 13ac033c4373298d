"""The released Scale-MAE checkpoints' names and layouts, and ours.

Two things differ besides names. A transposed convolution is stored by us as the matrix that it is
(`Upsample`). And the channels that a 3 x 3 convolution with two inputs a group takes are in another order:
theirs are neighbors (2j, 2j + 1), ours half the width apart (j, j + H/2), see `GroupedPairConv`; so the
layers before and after have their rows and columns in that order too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from torch import Tensor

from swath.errors import CheckpointError

Layout = Callable[[Tensor], Tensor]

# In every checkpoint and used by none of its computations: tables that its forward pass recomputes, and a
# token of a variant that cannot run.
UNUSED = ("pos_embed", "decoder_pos_embed", "mask_token_decoder")


def deinterleave(x: Tensor, dim: int = 0) -> Tensor:
    """Reorder channels along `dim` from neighboring pairs to pairs half the width apart."""
    x = x.movedim(dim, 0)
    x = x.reshape(x.shape[0] // 2, 2, *x.shape[1:]).transpose(0, 1).reshape(x.shape)
    return x.movedim(0, dim)


def _same(x: Tensor) -> Tensor:
    return x


def _matrix(x: Tensor) -> Tensor:
    """1 x 1 convolution [out, in, 1, 1] -> matrix."""
    return x.flatten(1)


def _pair(x: Tensor) -> Tensor:
    """Grouped convolution [H / 2, 2, 3, 3] -> depthwise [H, 1, 3, 3]."""
    return x.transpose(0, 1).reshape(-1, 1, *x.shape[2:])


def _deconvolution(x: Tensor) -> Tensor:
    """Transposed convolution [in, out, f, f] -> matrix [f * f * out, in]."""
    return x.permute(2, 3, 1, 0).reshape(-1, x.shape[0])


def scale_mae_layout(keys: Mapping[str, Tensor], sensor: str = "pixels") -> dict[str, tuple[str, Layout]]:
    """Where each tensor of a released checkpoint goes in `ScaleMAE`, and how it is laid out there.

    Args:
        keys: The checkpoint's state dict (only its keys are read).
        sensor: Name of the output layer: the sensor's, or "pixels" for an encoder that has only one.

    Returns:
        Their key -> (our key, function of the tensor); without the `UNUSED` ones.

    Raises:
        CheckpointError: A key that no Scale-MAE checkpoint has.
    """
    layout: dict[str, tuple[str, Layout]] = {}
    for key in keys:
        if key in UNUSED:
            continue
        place = _encoder(key) or _decoder(key, keys, sensor)
        if place is None:
            raise CheckpointError(f"{key!r} is not a tensor of a Scale-MAE checkpoint")
        layout[key] = place
    return layout


def _encoder(key: str) -> tuple[str, Layout] | None:
    if key == "cls_token" or key.startswith(("patch_embed.proj.", "blocks.", "norm.")):
        return f"encoder.{key}", _same
    return None


def _decoder(key: str, keys: Mapping[str, Tensor], sensor: str) -> tuple[str, Layout] | None:
    if key == "mask_token":
        return "decoder.mask_token", _same
    if match := re.fullmatch(r"decoder_(embed|blocks|norm)\.(.+)", key):
        return f"decoder.{match[1]}.{match[2]}", _same
    if key.startswith("fpn."):
        progressive = "fpn.fpn1.0.ln.weight" in keys
        stages = {"fpn.fpn2.0": "low_up"}
        if progressive:
            stages |= {"fpn.fpn1.0.ln": "high_norm", "fpn.fpn1.2": "high_up"}
        else:
            stages |= {
                "fpn.fpn1.0": "high_up_first",
                "fpn.fpn1.1.ln": "high_norm",
                "fpn.fpn1.3": "high_up",
            }
        stage, _, kind = key.rpartition(".")
        if stage not in stages:
            return None
        layout = _deconvolution if kind == "weight" and not stage.endswith("ln") else _same
        return f"decoder.pixels.{stages[stage]}.{kind}", layout
    if match := re.fullmatch(r"fcn(?:_(high|low))?\.(.+)\.(weight|bias)", key):
        prefix = f"fcn_{match[1]}." if match[1] else "fcn."
        count = len({k.split(".")[2] for k in keys if k.startswith(prefix + "conv_blocks.")})
        place = _head(match[2], match[3], count, sensor)
        return place and (f"decoder.pixels.head_{match[1] or 'high'}.{place[0]}", place[1])
    return None


def _head(layer: str, kind: str, blocks: int, sensor: str) -> tuple[str, Layout] | None:
    """A layer of one band's head: our name and layout."""
    weight = kind == "weight"

    def rows(reorder: bool) -> Layout:  # a 1 x 1 convolution whose outputs a PairConv takes, or not
        flat = _matrix if weight else _same
        return (lambda x: deinterleave(flat(x))) if reorder else flat

    if layer == "proj":
        return f"proj.{kind}", rows(blocks > 0)
    if match := re.fullmatch(r"conv_blocks\.(\d+)\.(convs\.1|convs\.3|residual)", layer):
        more = int(match[1]) + 1 < blocks
        here = f"blocks.{match[1]}"
        if match[2] == "convs.1":
            return f"{here}.pair.{kind}", _pair if weight else _same
        if match[2] == "convs.3":
            return f"{here}.mix.{kind}", rows(more)
        inner = rows(more)
        return f"{here}.skip.{kind}", (lambda x: deinterleave(inner(x), 1)) if weight else inner
    if layer == "pred.0.ln":
        return f"norm.{kind}", _same
    if layer == "pred.1":
        return f"up.{kind}", (lambda x: _deconvolution(deinterleave(x, 1))) if weight else deinterleave
    if layer == "pred.3":
        return f"pair.{kind}", _pair if weight else _same
    if layer == "pred.5":
        return f"mix.{kind}", _matrix if weight else _same
    if layer == "pred.7":
        return f"pixels.{sensor}.{kind}", _deconvolution if weight else _same
    return None

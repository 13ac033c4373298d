"""The loss of a memory-hungry head, a few samples at a time, with the gradient taken on the way.

A head that ends in pixels holds far more activations than the encoder before it. Because its output is only
ever reduced to one number, nothing of it need outlive its own chunk of samples: each chunk runs forward and
backward at once, leaving behind its loss, the gradient of its (small) input and of the head's parameters.
The later backward pass only scales these. No recomputation, and memory for one chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

LossFunction = Callable[..., Tensor]  # (x[i:j], *extras[i:j]) -> [parts], sums over the chunk's samples


def chunked_loss(
    head: nn.Module, loss: LossFunction, x: Tensor, extras: Sequence[Tensor | None], chunk: int
) -> Tensor:
    """Sum of `loss` over chunks of samples.

    Args:
        head: Module whose parameters `loss` uses.
        loss: ``loss(x, *extras) -> [parts]``: several losses of one chunk, each a sum over its samples, so
            that chunks can be added. Only their sum is differentiable; the parts are for reading.
        x: [B, ...] the head's differentiable input.
        extras: Tensors [B, ...] without gradient (targets, indices), or None, cut like x.
        chunk: Samples at a time.

    Returns:
        [1 + parts] float32: the differentiable total first, then each part, detached.
    """
    parameters = [p for p in head.parameters() if p.requires_grad]
    if not torch.is_grad_enabled() or not (x.requires_grad or parameters):
        parts = sum(loss(*piece) for piece in _pieces(x, extras, chunk))
        assert isinstance(parts, Tensor)
        return torch.cat([parts.sum(0, keepdim=True), parts])
    if torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type) == torch.float16:
        # Gradients taken here have not been multiplied by the gradient scaler yet and could underflow in
        # half precision: recompute in the backward pass instead, as plain checkpointing does.
        parts = sum(checkpoint(loss, *piece, use_reentrant=False) for piece in _pieces(x, extras, chunk))
        assert isinstance(parts, Tensor)
        return torch.cat([parts.sum(0, keepdim=True), parts.detach()])
    result: Tensor = _ChunkedLoss.apply(loss, list(extras), chunk, x, *parameters)
    return result


def _pieces(x: Tensor, extras: Sequence[Tensor | None], chunk: int) -> list[tuple[Tensor | None, ...]]:
    return [
        (x[i : i + chunk], *(None if e is None else e[i : i + chunk] for e in extras))
        for i in range(0, len(x), chunk)
    ]


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        loss: LossFunction,
        extras: list[Tensor | None],
        chunk: int,
        x: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        to_x = ctx.needs_input_grad[3]
        grad_x = torch.empty_like(x, dtype=torch.float32) if to_x else None
        sums: list[Tensor | None] = [None] * len(parameters)
        totals = []
        for start, (piece, *rest) in zip(
            range(0, len(x), chunk), _pieces(x.detach(), extras, chunk), strict=True
        ):
            assert piece is not None
            with torch.enable_grad():
                parts = loss(piece.requires_grad_(to_x), *rest)
                wanted = [piece, *parameters] if to_x else list(parameters)
                grads = list(torch.autograd.grad(parts.sum(), wanted, allow_unused=True))
            totals.append(parts.detach())
            if grad_x is not None:
                grad_x[start : start + chunk] = grads.pop(0)
            for i, grad in enumerate(grads):
                if grad is not None:
                    sums[i] = grad if (held := sums[i]) is None else held + grad
        ctx.x_dtype = x.dtype
        ctx.save_for_backward(grad_x, *sums)
        total = torch.stack(totals).sum(0)
        return torch.cat([total.sum(0, keepdim=True), total])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scale = grads[0][0]  # of the total; the parts are only read
        grad_x, *sums = ctx.saved_tensors
        return (
            None,
            None,
            None,
            None if grad_x is None else (grad_x * scale).to(ctx.x_dtype),
            *(None if held is None else held * scale for held in sums),
        )

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

LossFunction = Callable[..., Tensor]  # (x[i:j], *extras[i:j]) -> scalar or [P], sums over the chunk's samples


def chunked_loss(
    head: nn.Module,
    losses: Sequence[LossFunction],
    x: Tensor,
    extras: Sequence[Tensor | None],
    chunk: int,
) -> Tensor:
    """Sum of losses over chunks of samples.

    Args:
        head: Module whose parameters the losses use.
        losses: Each ``loss(x, *extras)`` gives a sum over the samples given, so that chunks can be added: a
            scalar, or [P] of parts that share their computation. They run one after the other, so that only
            one holds memory at a time. The sum of all alone is differentiable; the parts are for reading.
        x: [B, ...] the head's differentiable input.
        extras: Tensors [B, ...] without gradient (targets, indices), or None, cut like x.
        chunk: Samples at a time.

    Returns:
        [1 + parts] float32: the differentiable total first, then each part, detached.
    """
    parameters = [p for p in head.parameters() if p.requires_grad]
    if not torch.is_grad_enabled() or not (x.requires_grad or parameters):
        return _with_total([[loss(*piece) for loss in losses] for piece in _pieces(x, extras, chunk)])
    if torch.is_autocast_enabled(x.device.type) and torch.get_autocast_dtype(x.device.type) == torch.float16:
        # Gradients taken here have not been multiplied by the gradient scaler yet and could underflow in
        # half precision: recompute in the backward pass instead, as plain checkpointing does.
        return _with_total(
            [
                [checkpoint(loss, *piece, use_reentrant=False) for loss in losses]
                for piece in _pieces(x, extras, chunk)
            ]
        )
    result: Tensor = _ChunkedLoss.apply(losses, list(extras), chunk, x, *parameters)
    return result


def _with_total(parts: list[list[Tensor]]) -> Tensor:
    """[pieces][losses] scalars or vectors -> [1 + parts]: the total, then each part's sum, detached."""
    sums = torch.stack([torch.cat([value.reshape(-1) for value in one]) for one in parts]).sum(0)
    return torch.cat([sums.sum(0, keepdim=True), sums.detach()])


def _pieces(x: Tensor, extras: Sequence[Tensor | None], chunk: int) -> list[tuple[Tensor | None, ...]]:
    return [
        (x[i : i + chunk], *(None if e is None else e[i : i + chunk] for e in extras))
        for i in range(0, len(x), chunk)
    ]


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        losses: Sequence[LossFunction],
        extras: list[Tensor | None],
        chunk: int,
        x: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        to_x = ctx.needs_input_grad[3]
        grad_x = torch.zeros_like(x, dtype=torch.float32) if to_x else None
        sums: list[Tensor | None] = [None] * len(parameters)
        totals = []
        for start, piece in zip(range(0, len(x), chunk), _pieces(x.detach(), extras, chunk), strict=True):
            totals.append([_add_gradients(loss, piece, parameters, start, grad_x, sums) for loss in losses])
        ctx.x_dtype = x.dtype
        ctx.save_for_backward(grad_x, *sums)
        return _with_total(totals)

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


def _add_gradients(
    loss: LossFunction,
    piece: tuple[Tensor | None, ...],
    parameters: Sequence[Tensor],
    start: int,
    grad_x: Tensor | None,
    sums: list[Tensor | None],
) -> Tensor:
    """Run one loss on one piece forward and backward; add to the gradients held; return its value."""
    x, *extras = piece
    assert x is not None
    with torch.enable_grad():
        x = x.detach().requires_grad_(grad_x is not None)
        value = loss(x, *extras)
        wanted = [*parameters] if grad_x is None else [*parameters, x]
        grads = torch.autograd.grad(value.sum(), wanted, allow_unused=True)
    for i, (parameter, grad) in enumerate(zip(parameters, grads, strict=False)):
        if grad is None:
            continue
        held = sums[i]
        if held is None:  # a copy of our own: what autograd returns may share memory with something else
            sums[i] = torch.empty_like(parameter).copy_(grad)
        else:
            held.add_(grad)
    if grad_x is not None and (to_x := grads[-1]) is not None:
        grad_x[start : start + len(x)] += to_x
    return value.detach()

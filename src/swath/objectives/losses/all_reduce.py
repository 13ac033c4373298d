"""Means over the processes of a run, through which gradients flow."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable


class _Mean(torch.autograd.Function):
    """The mean over ranks; its gradient is the mean over ranks of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        mean = value.contiguous().clone()
        dist.all_reduce(mean)
        return mean / dist.get_world_size()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad / dist.get_world_size()


def all_reduce_mean(value: Tensor) -> Tensor:
    """Mean of a tensor over all ranks, which have it in the same shape; differentiable.

    A loss that is computed from it is the same on every rank. DDP then averages over ranks what each adds to
    the gradient, so the step is that of one process with the whole batch. Without a process group, the tensor
    as it is.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    mean: Tensor = _Mean.apply(value)
    return mean

"""Linear maps by the faster of the two matrix libraries that torch carries for the CPU.

torch multiplies float32 matrices on x86 with Intel's MKL, which takes its AVX-512 path on Intel processors
only. On other makes oneDNN, which torch uses for convolutions, does the same product at twice the rate or
more (AMD Zen 5, one core: 230 against 105 GFLOP/s). So there, and only there, `linear` calls oneDNN. Which
library serves depends on the processor alone, so that a resumed run repeats itself bit for bit; set the
environment variable SWATH_CPU_MATMUL to "torch" or "onednn" to decide yourself.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


@cache
def cpu_matmul() -> str:
    """Which library multiplies float32 matrices on this CPU: "torch" (its default) or "onednn".

    Raises:
        ValueError: SWATH_CPU_MATMUL is neither, or asks for oneDNN where torch has none.
    """
    # The operator is the one that torch's own compiler calls for linear layers on the CPU.
    available = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    wish = os.environ.get("SWATH_CPU_MATMUL", "auto")
    if wish not in ("auto", "torch", "onednn"):
        raise ValueError(f"SWATH_CPU_MATMUL is 'auto', 'torch' or 'onednn', not {wish!r}")
    if wish == "onednn" and not available:
        raise ValueError("SWATH_CPU_MATMUL is 'onednn', but this torch was built without oneDNN; unset it")
    if wish != "auto":
        return wish
    return "onednn" if available and torch._C.has_mkl and _is_foreign_x86() else "torch"


def _is_foreign_x86() -> bool:
    """Whether this is an x86 processor with AVX-512 that Intel did not make."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    head = text.split("\n\n", 1)[0]
    return "avx512f" in head and "GenuineIntel" not in head


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


class _OneDnnLinear(torch.autograd.Function):
    """x W^T + b with all three products of the pass (output, input and weight gradient) by oneDNN."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x.reshape(-1, x.shape[-1]), weight, bias).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad, rows = grads[0].reshape(-1, weight.shape[0]), x.reshape(-1, x.shape[-1])
        to_x, to_weight, to_bias = ctx.needs_input_grad
        grad_weight = None
        if to_weight:  # the operator copies a transposed first operand: let it be the smaller one
            wide = weight.shape[0] > weight.shape[1]
            grad_weight = _onednn(rows.t(), grad.t(), None).t() if wide else _onednn(grad.t(), rows.t(), None)
        return (
            _onednn(grad, weight.t(), None).view_as(x) if to_x else None,
            grad_weight,
            grad.sum(0) if to_bias else None,
        )


def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear`, by the library that `cpu_matmul` names where the operands are float32.

    Args:
        x: [..., in].
        weight: [out, in].
        bias: [out] or None.

    Returns:
        [..., out].
    """
    if (
        x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
        and cpu_matmul() == "onednn"
    ):
        product: Tensor = _OneDnnLinear.apply(x, weight, bias)
        return product
    return F.linear(x, weight, bias)


class OneDnnLinear(nn.Linear):
    """`torch.nn.Linear` that goes through `linear`."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: D102
        return onednn_linear(input, self.weight, self.bias)

"""Both matrix libraries give the same products."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from swath.cpu import linear as module


@pytest.fixture
def onednn(monkeypatch):
    if not torch._C._has_mkldnn:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(module, "cpu_matmul", lambda: "onednn")


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 7), (0, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_onednn_equals_torch(onednn, shape, bias):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=generator, requires_grad=True)
    weight = torch.randn(11, 7, generator=generator, requires_grad=True)
    b = torch.randn(11, generator=generator, requires_grad=True) if bias else None
    inputs = [t for t in (x, weight, b) if t is not None]
    ours, theirs = module.onednn_linear(x, weight, b), F.linear(x, weight, b)
    torch.testing.assert_close(ours, theirs)
    upstream = torch.randn(theirs.shape, generator=generator)
    for a, e in zip(
        torch.autograd.grad(ours, inputs, upstream),
        torch.autograd.grad(theirs, inputs, upstream),
        strict=True,
    ):
        torch.testing.assert_close(a, e)


def test_only_wanted_gradients(onednn):
    x, weight = torch.randn(3, 4), torch.randn(5, 4, requires_grad=True)
    module.onednn_linear(x, weight).sum().backward()
    assert x.grad is None
    torch.testing.assert_close(weight.grad, x.sum(0).expand(5, 4))


def test_other_precisions_take_torchs_way(onednn):
    x, weight = torch.randn(3, 4, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    assert torch.equal(module.onednn_linear(x, weight), F.linear(x, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert module.onednn_linear(x.float(), weight.float()).dtype == torch.bfloat16


def test_the_environment_decides(monkeypatch):
    for value in ("torch", "onednn"):
        if value == "onednn" and not torch._C._has_mkldnn:
            continue
        monkeypatch.setenv("SWATH_CPU_MATMUL", value)
        assert module.cpu_matmul.__wrapped__() == value
    monkeypatch.setenv("SWATH_CPU_MATMUL", "quick")
    with pytest.raises(ValueError, match="SWATH_CPU_MATMUL"):
        module.cpu_matmul.__wrapped__()

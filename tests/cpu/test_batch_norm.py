"""BatchNorm of maps with channels innermost: as exact as torch's of the other layout, and the same module."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from swath.cpu.batch_norm import ChannelsLastBatchNorm2d
from swath.encoders.cnn import CNN, PointwiseConv2d

SIZES = [(8, 16, 48, 48), (4, 7, 5, 3), (1, 3, 1, 2), (3, 64, 1, 1)]


def _far(ours, truth):
    return float((ours.detach() - truth.detach()).abs().max() / truth.detach().abs().max().clamp_min(1e-12))


def _problem(size):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(size, generator=generator) * 2 + torch.randn(size[1], generator=generator)[:, None, None]
    grad, weight = torch.randn(size, generator=generator), torch.rand(size[1], generator=generator) + 0.5
    return x, grad, weight, torch.randn(size[1], generator=generator)


@pytest.mark.parametrize("size", SIZES)
def test_statistics_and_gradients_keep_their_precision(size):
    x, grad, weight, bias = _problem(size)
    inputs = [t.double().requires_grad_() for t in (x, weight, bias)]
    truth = F.batch_norm(inputs[0], None, None, inputs[1], inputs[2], True)
    wanted = torch.autograd.grad(truth, inputs, grad.double())
    norm = ChannelsLastBatchNorm2d(size[1])
    norm.load_state_dict({**norm.state_dict(), "weight": weight, "bias": bias})
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    out = norm(x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert _far(out, truth) < 1e-6
    for ours, theirs in zip(torch.autograd.grad(out, [x, *norm.parameters()], grad), wanted, strict=True):
        # Of two samples the gradient is nothing but rounding.
        assert _far(ours, theirs) < 2e-6 or float(theirs.abs().max()) < 1e-3
    assert _far(norm.running_mean, 0.1 * inputs[0].mean(dim=(0, 2, 3))) < 1e-6
    assert _far(norm.running_var, 0.9 + 0.1 * inputs[0].var(dim=(0, 2, 3))) < 1e-6
    assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("options", [{"momentum": None}, {"affine": False}, {"track_running_stats": False}])
def test_rarer_kinds_are_torchs(options):
    x = _problem(SIZES[0])[0].contiguous(memory_format=torch.channels_last)
    ours, theirs = ChannelsLastBatchNorm2d(16, **options), nn.BatchNorm2d(16, **options)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_one_value_a_channel_is_refused_as_torch_does():
    with pytest.raises(ValueError, match="more than 1 value"):
        ChannelsLastBatchNorm2d(3)(torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_pointwise_convolution_is_a_convolution(batch, stride):
    x, weight = torch.randn(batch, 12, 9, 8), torch.randn(20, 12, 1, 1)
    layer = PointwiseConv2d(12, 20, 1, stride=stride)
    layer.load_state_dict({"weight": weight, "bias": torch.randn(20)})
    assert torch.allclose(layer(x), F.conv2d(x, weight, layer.bias, stride), atol=1e-5)


def test_a_network_is_timms_in_training_too():
    import timm

    torch.manual_seed(0)
    ours = CNN(3, architecture="resnet50", options={"layers": [1, 1, 1, 1]}).train()
    theirs = timm.create_model("resnet50", layers=[1, 1, 1, 1], num_classes=0, global_pool="").train()
    theirs.load_state_dict(ours.state_dict())
    assert any(isinstance(m, ChannelsLastBatchNorm2d) for m in ours.modules())
    assert any(isinstance(m, PointwiseConv2d) for m in ours.modules())
    image = torch.randn(4, 3, 64, 64)
    found, wanted = ours(image, torch.ones(4)).maps[-1], theirs(image)
    assert _far(found, wanted) < 1e-5
    found.square().mean().backward()
    wanted.square().mean().backward()
    theirs_by_name = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert _far(parameter.grad, theirs_by_name[name].grad) < 1e-3, name
    for name, buffer in ours.named_buffers():
        assert _far(buffer.double(), dict(theirs.named_buffers())[name].double()) < 1e-5, name

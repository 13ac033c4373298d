"""Swin: the protocol, equality with timm's, windows at the edge of a map, and what the mask token may do."""

from __future__ import annotations

import pytest
import torch
from timm.models.swin_transformer import SwinTransformer

from swath.encoders import create_model, list_models
from swath.encoders.check import check_encoder
from swath.encoders.protocol import MaskableEncoder
from swath.encoders.swin import Swin, biased_attention, partition_windows
from swath.errors import ContractError

SMALL = {"embed_dim": 8, "depths": (2, 2), "heads": (1, 2), "window": 4}


@pytest.mark.parametrize(
    "options",
    [{}, {"scale_aware": True}, {"window": 3, "patch_size": 2}, {"depths": (1, 2, 1), "heads": (1, 2, 2)}],
    ids=str,
)
def test_keeps_every_promise_of_an_encoder(options):
    check_encoder(lambda bands: Swin(bands, **(SMALL | options)), size=32)


def test_the_size_for_cpus_keeps_them_too():
    check_encoder(lambda bands: create_model("swin_nano", bands=bands), size=32)


def test_named_sizes():
    assert "swin" in list_models("swin*")
    expected = {  # of timm's models without classifier
        "swin_tiny_patch4_window7": 27_519_354,
        "swin_small_patch4_window7": 48_837_258,
        "swin_base_patch4_window7": 86_743_224,
        "swin_large_patch4_window7": 194_995_476,
    }
    for name, count in expected.items():
        with torch.device("meta"):
            model = create_model(name)
        assert sum(p.numel() for p in model.parameters()) == count
        assert model.strides == (4, 8, 16, 32)
        assert isinstance(model, MaskableEncoder)
        assert model.mask_token_shape == (1, 1, model.channels[0])


def pair(height, width, window=7, bands=5):
    """timm's model and ours with its weights, where a window larger than a map is cut to it in timm."""
    torch.manual_seed(0)
    shape = {"embed_dim": 8, "depths": (2, 2, 2, 2)}
    theirs = SwinTransformer(
        img_size=(height, width),
        in_chans=bands,
        num_heads=(1, 2, 2, 4),
        window_size=window,
        num_classes=0,
        **shape,
    ).eval()
    ours = Swin(bands, heads=(1, 2, 2, 4), window=window, **shape).eval()
    weights = ours.state_dict() | {
        key: value for key, value in theirs.state_dict().items() if "relative_position_bias_table" not in key
    }
    for (_, our_block), (_, their_block) in zip(
        ((name, part) for name, part in ours.named_modules() if name.endswith(".attn")),
        ((name, part) for name, part in theirs.named_modules() if name.endswith(".attn")),
        strict=True,
    ):
        # The middle of our table is the whole of theirs.
        rows, columns = (2 * side - 1 for side in their_block.window_size)
        whole = our_block.relative_position_bias_table.data.view(2 * window - 1, 2 * window - 1, -1)
        up, left = window - 1 - rows // 2, window - 1 - columns // 2
        middle = whole[up : up + rows, left : left + columns].reshape(rows * columns, -1)
        their_block.relative_position_bias_table.data.copy_(middle)
    ours.load_state_dict(
        {k: ours.state_dict()[k] if "relative_position_bias_table" in k else v for k, v in weights.items()}
    )
    return ours, theirs


# 64 pixels at window 4: maps of 16, 8, 4, 2 cells a side, the last a window of its own size.
@pytest.mark.parametrize(
    ("height", "width", "window"), [(224, 224, 7), (64, 64, 4), (64, 128, 4), (96, 32, 4)]
)
def test_equals_timm_where_windows_fit(height, width, window):
    ours, theirs = pair(height, width, window)
    image = torch.randn(2, 5, height, width)
    with torch.no_grad():
        last = theirs.forward_features(image).permute(0, 3, 1, 2)
        stages = theirs.forward_intermediates(image, norm=False, intermediates_only=True)
        features = ours(image, torch.ones(2))
    for mine, reference in zip(features.maps, [*stages[:3], last], strict=True):
        assert (mine - reference).abs().max() <= 1e-5 * reference.abs().max()
    assert torch.allclose(features.pooled, last.mean((2, 3)), atol=1e-5)


def test_gradients_equal_timms():
    ours, theirs = pair(64, 64, 4)
    image = torch.randn(2, 5, 64, 64)
    weight = torch.randn(2, 64, 2, 2)
    (ours(image, torch.ones(2)).maps[-1] * weight).sum().backward()
    (theirs.forward_features(image).permute(0, 3, 1, 2) * weight).sum().backward()
    reference = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.shape == reference[name].shape:
            difference = (parameter.grad - reference[name].grad).abs().max()
            assert difference <= 2e-5 * reference[name].grad.abs().max(), name


def test_weights_go_to_timm_and_come_back():
    torch.manual_seed(1)
    ours = create_model("swin_tiny_patch4_window7", bands=2)
    theirs = SwinTransformer(in_chans=2, num_classes=0)
    theirs.load_state_dict(ours.state_dict())
    again = create_model("swin_tiny_patch4_window7", bands=2)
    again.load_state_dict(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), again.parameters(), strict=True))


def slow_windows(x, attention, window, shift):
    """The definition, cell by cell: pad at the end, roll, look within windows, but not across the seam."""
    batch, height, width, dim = x.shape
    padded = torch.zeros(batch, -(-height // window) * window, -(-width // window) * window, dim)
    padded[:, :height, :width] = x
    rows, columns = padded.shape[1:3]
    q, k, v = (part.unflatten(-1, (attention.heads, -1)) for part in attention.qkv(padded).chunk(3, -1))
    out = torch.zeros_like(q)
    cells = [(row, column) for row in range(rows) for column in range(columns)]

    def place(cell):  # where a cell stands after the roll: its window, and on which side of the seam
        at = [(one - shift) % length for one, length in zip(cell, (rows, columns), strict=True)]
        seam = [one >= length - shift for one, length in zip(at, (rows, columns), strict=True)]
        return tuple(one // window for one in at), at, seam

    for one in cells:
        home, at, seam = place(one)
        near = [other for other in cells if place(other)[0] == home]
        scores = []
        for other in near:
            _, other_at, other_seam = place(other)
            offset = [a - b + window - 1 for a, b in zip(at, other_at, strict=True)]
            bias = attention.relative_position_bias_table[offset[0] * (2 * window - 1) + offset[1]]
            dot = (q[:, *one] * k[:, *other]).sum(-1) * q.shape[-1] ** -0.5 + bias
            scores.append(dot if seam == other_seam else dot - 100)
        weight = torch.stack(scores, -1).softmax(-1)
        out[:, *one] = torch.einsum("bhn,nbhd->bhd", weight, torch.stack([v[:, *other] for other in near]))
    return attention.proj(out.flatten(-2))[:, :height, :width]


@pytest.mark.parametrize(  # a side of one window is never shifted, and the definition shifts both
    ("height", "width", "shifted"),
    [(8, 4, False), (5, 7, False), (5, 7, True), (6, 5, False), (6, 5, True)],
)
def test_windows_are_what_the_definition_says(height, width, shifted):
    torch.manual_seed(0)
    model = Swin(3, **(SMALL | {"window": 4}))
    block = model.layers[0].blocks[int(shifted)]
    x = torch.randn(2, height * width, 8)
    with torch.no_grad():
        fast = block(x, height, width)
        looked = slow_windows(
            block.norm1(x).unflatten(1, (height, width)), block.attn, 4, 2 if shifted else 0
        ).flatten(1, 2)
        slow = x + looked
        slow = slow + block.mlp(block.norm2(slow))
    assert (fast - slow).abs().max() < 1e-5


def test_small_maps_are_one_window_without_shift():
    cpu = torch.device("cpu")
    for side in (3, 7):
        windows = partition_windows(side, side, 7, True, cpu)
        assert windows.mask is None
        assert windows.padded == (side, side)
        assert windows.order.tolist() == list(range(side * side))
    one_axis = partition_windows(7, 14, 7, True, cpu)
    assert one_axis.mask.shape == (2, 1, 49, 49)
    assert not one_axis.mask[0].any()  # the seam lies in the last window


def test_both_ways_to_attend_agree():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 6, 9, 4)
    bias = torch.randn(1, 6, 9, 9)
    assert torch.allclose(
        biased_attention(q, k, v, bias), biased_attention(q, k, v, bias.requires_grad_()), atol=1e-6
    )


def test_trains_after_use_under_inference_mode():
    """Windows are remembered between calls: the first call must not make them unfit for a backward pass."""
    model = Swin(3, **SMALL)
    image, gsd = torch.randn(1, 3, 40, 48), torch.ones(1)
    with torch.inference_mode():
        model(image, gsd)
    model(image, gsd).pooled.sum().backward()


def test_a_masked_patch_is_seen_only_through_its_token():
    """With `replace`, the pixels of hidden patches have no way into any map."""
    model = Swin(3, **SMALL).eval()
    image, token = torch.randn(2, 3, 32, 32), torch.randn(1, 1, 8)
    mask = torch.rand(2, 8, 8) < 0.5
    pixels = mask.repeat_interleave(4, 1).repeat_interleave(4, 2).unsqueeze(1)
    with torch.no_grad():
        one = model.masked(image, torch.ones(2), token=token, mask=mask, replace=True)
        other = model.masked(image + 5 * pixels, torch.ones(2), token=token, mask=mask, replace=True)
    assert all(torch.equal(a, b) for a, b in zip(one.maps, other.maps, strict=True))


def test_scale_awareness_is_an_option():
    image = torch.randn(2, 3, 32, 32)
    plain, aware = Swin(3, **SMALL).eval(), Swin(3, scale_aware=True, **SMALL).eval()
    aware.load_state_dict(plain.state_dict())
    with torch.no_grad():
        for model, matters in ((plain, False), (aware, True)):
            fine, coarse = (model(image, torch.full((2,), gsd)).pooled for gsd in (1.0, 2.0))
            assert torch.equal(fine, coarse) != matters
    with pytest.raises(ValueError, match="multiple of 4"):
        Swin(3, embed_dim=6, heads=(1, 2), depths=(1, 1), scale_aware=True)


def test_refuses_what_it_was_not_built_for():
    model = Swin(3, **SMALL)
    with pytest.raises(ContractError, match=r"takes 3 bands.*have 4"):
        model(torch.zeros(1, 4, 32, 32), torch.ones(1))
    with pytest.raises(ContractError, match=r"8 x 8 cells.*48 x 64"):
        model(torch.zeros(1, 3, 44, 64), torch.ones(1))
    both = Swin({"sentinel2_l2a": 12, "naip": 4}, **SMALL)
    with pytest.raises(ContractError, match="Did you mean 'sentinel2_l2a'"):
        both(torch.zeros(1, 12, 32, 32), torch.ones(1), "sentinel2_l1a")
    with pytest.raises(ValueError, match="needs its token"):
        model.encode(torch.zeros(1, 3, 32, 32), torch.ones(1), mask=torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="one number a stage"):
        Swin(3, depths=(2, 2), heads=(1,))

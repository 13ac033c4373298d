"""Our encoders equal the released CMID's to 1e-5 relative: student and teacher, Swin and ResNet."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer

from helpers.reference_files import close, names
from helpers.reference_options import to_released_order
from swath.encoders.cnn import CNN
from swath.encoders.swin import Swin
from swath.errors import CheckpointError
from swath.models.importers.cmid import (
    MASK_TOKEN,
    cmid_encoder_layout,
    cmid_encoder_options,
    cmid_encoder_state,
    cmid_part,
    is_cmid,
    to_timm_order,
)

FILES = [name for name in names("cmid_*.pt", ("cmid_swin_tiny", "cmid_resnet")) if name != "cmid_misc"]


@pytest.fixture(scope="module", params=FILES)
def reference(request, parity_dir):
    return torch.load(parity_dir / f"{request.param}.pt", weights_only=True)


def weights_of(reference):
    return {key.removeprefix("sd."): value for key, value in reference.items() if key.startswith("sd.")}


def build(name, options):
    """As `create_model`, without the registry: these tests are about weights."""
    return Swin(**options) if name == "swin" else CNN(**options)


def encoder_of(reference, part):
    weights = weights_of(reference)
    encoder = build(*cmid_encoder_options(weights, part))
    encoder.load_state_dict(cmid_encoder_state(weights, part))
    return encoder


def student_input(reference, view):
    """A view with its hidden pixels filled by the view's mean, and the mask."""
    image = reference[{"org": "in.img", "view": "in.view"}[view]].float()
    mask = reference[{"org": "in.mask", "view": "in.view_mask"}[view]]
    mean = reference[{"org": "in.img_mean", "view": "in.view_mean"}[view]][:, :, None, None]
    times = image.shape[-1] // mask.shape[-1]
    pixels = mask.repeat_interleave(times, 1).repeat_interleave(times, 2)[:, None].bool()
    return image.where(~pixels, mean), mask


def test_student_features_in_training(reference):
    encoder, ones = encoder_of(reference, "student").train(), torch.ones(len(reference["in.img"]))
    token = weights_of(reference)[MASK_TOKEN]
    assert tuple(token.shape) == encoder.mask_token_shape
    with torch.no_grad():
        for view in ("org", "view"):
            image, mask = student_input(reference, view)
            features = encoder.masked(image, ones, token=token, mask=mask)
            close(features.maps[-1], reference[f"out.student_feat_{view}"], view)
    check_buffers(encoder, reference, "online_encoder.model.")


def test_teacher_features_in_training(reference):
    encoder, ones = encoder_of(reference, "teacher").train(), torch.ones(len(reference["in.img"]))
    with torch.no_grad():
        for view in ("view", "org"):  # the released order, which running statistics show
            image = reference[{"org": "in.img", "view": "in.view"}[view]].float()
            close(encoder(image, ones).maps[-1], reference[f"out.teacher_feat_{view}"], view)
    check_buffers(encoder, reference, "branch_encoder.")


def check_buffers(encoder, reference, prefix):
    for name, buffer in encoder.named_buffers():
        close(buffer, reference[f"post_fwd.{prefix}{name}"], name)


def test_student_features_in_use(reference):
    encoder, ones = encoder_of(reference, "student").eval(), torch.ones(len(reference["in.img"]))
    token = weights_of(reference)[MASK_TOKEN]
    image, mask = student_input(reference, "org")
    with torch.no_grad():
        plain = encoder(reference["in.img"].float(), ones).maps[-1]
        close(plain, reference["eval.student_feat_nomask"], "without mask")
        masked = encoder.masked(image, ones, token=token, mask=mask).maps[-1]
        close(masked, reference["eval.student_feat_masked"], "masked")


def test_imported_encoder_is_one_of_timm(reference):
    weights, image = weights_of(reference), reference["in.img"].float()
    name, options = cmid_encoder_options(weights)
    common = {"in_chans": options["bands"], "num_classes": 0}
    if name == "swin":
        theirs = SwinTransformer(
            img_size=tuple(image.shape[-2:]),
            patch_size=options["patch_size"],
            embed_dim=options["embed_dim"],
            depths=options["depths"],
            num_heads=options["heads"],
            window_size=options["window"],
            mlp_ratio=options["mlp_ratio"],
            **common,
        )
    else:
        architecture = options.get("architecture", name)
        theirs = timm.create_model(architecture, **common, **options.get("options", {}))
    theirs.eval().load_state_dict(cmid_encoder_state(weights))
    with torch.no_grad():
        last = theirs.forward_features(image)
    last = last.permute(0, 3, 1, 2) if name == "swin" else last
    close(last, reference["eval.student_feat_nomask"], "timm's")


def test_order_of_patch_merging_goes_both_ways():
    key = "layers.1.downsample.reduction.weight"
    tensor = torch.arange(2 * 12.0).view(2, 12)  # 3 channels
    ours = to_timm_order(key, tensor)
    for channel in range(3):
        for row in range(2):
            for column in range(2):
                there, here = 4 * channel + 2 * row + column, (2 * column + row) * 3 + channel
                assert torch.equal(ours[:, here], tensor[:, there])
    assert torch.equal(to_released_order(key, ours), tensor)
    assert to_timm_order("layer1.0.downsample.0.weight", tensor) is tensor


@pytest.mark.parametrize(("file", "name"), [("swin_b", "swin"), ("resnet50", "resnet50")])
def test_full_size_checkpoints_fit(parity_dir, file, name):
    """By names and shapes alone: every tensor of both encoders finds its place, and none stays empty."""
    listing = json.loads((parity_dir / f"cmid_{file}_keys.json").read_text())
    weights = {
        key: torch.empty(shape, device="meta", dtype=getattr(torch, dtype.removeprefix("torch.")))
        for key, (shape, dtype) in listing.items()
    }
    assert is_cmid(weights)
    assert cmid_part(weights) == "student"
    derived = ("relative_position_index", "running_mean", "running_var", "num_batches_tracked")
    parameters = sum(
        weight.numel()
        for key, weight in weights.items()
        if key.startswith("branch_encoder.") and not key.endswith(derived)
    )
    alone = {k.removeprefix("branch_encoder."): v for k, v in weights.items() if k.startswith("branch_enc")}
    assert cmid_part(alone) == "backbone"
    for tensors, part in ((weights, "student"), (weights, "teacher"), (alone, "backbone")):
        found, options = cmid_encoder_options(tensors, part)
        assert found == name
        with torch.device("meta"):
            encoder = build(found, options)
        encoder.load_state_dict(cmid_encoder_state(tensors, part), assign=True)
        assert sum(p.numel() for p in encoder.parameters()) == parameters


def test_refuses_tensors_that_are_not_cmids():
    with pytest.raises(CheckpointError, match="not a tensor of a CMID encoder"):
        cmid_encoder_layout(["conv1.weight", "layer1.0.se.weight"], "backbone")
    with pytest.raises(CheckpointError, match="no teacher"):
        cmid_encoder_layout(["conv1.weight"], "teacher")
    assert not is_cmid(["conv1.weight"])

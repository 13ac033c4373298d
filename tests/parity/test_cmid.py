"""Equality with the released CMID code, to 1e-5 relative: outputs, losses, gradients, buffers, teacher."""

from __future__ import annotations

import json

import pytest
import torch

from swath.encoders.cnn import CNN
from swath.encoders.swin import Swin
from swath.models.cmid_weights import cmid_encoder_options, cmid_layout
from swath.objectives.cmid import CMID, VIEWS, CMIDConfig
from swath.objectives.matching import cell_locations, match_cells
from swath.objectives.momentum import follow, momentum_at

TOLERANCE = 1e-5
THEIRS = {"first": "org", "second": "view"}


@pytest.fixture(scope="module", params=["swin_tiny", "resnet"])
def reference(request, parity_dir):
    tensors = torch.load(parity_dir / f"cmid_{request.param}.pt", weights_only=True)
    settings = json.loads((parity_dir / f"cmid_{request.param}.json").read_text())
    return tensors, settings


def close(ours, theirs, what, tolerance=TOLERANCE, scale=None):
    theirs = torch.as_tensor(theirs).double()
    ours = torch.as_tensor(ours).detach().double().reshape(theirs.shape)
    size = scale or theirs.abs().max().clamp_min(1e-12)
    difference = float((ours - theirs).abs().max() / size)
    assert difference <= tolerance, f"{what} differs by {difference:.2e}"


def weights_of(tensors):
    return {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}


def build(reference, matching="released"):
    """Our model with their weights and settings, in the state before the one forward pass."""
    tensors, settings = reference
    cfg, weights = settings["cfg"], weights_of(tensors)
    name, options = cmid_encoder_options(weights)
    torch.manual_seed(0)
    config = CMIDConfig(
        view_size=cfg["size"][0],
        mask_block=cfg["mask_patch_size"],
        mask_ratio=cfg["mask_ratio"],
        frequency_weight=cfg["fft_weight"],
        hidden_dim=cfg["hidden_dim"],
        out_dim=cfg["out_dim"],
        temperature=cfg["temperature"],
        queue_size=cfg["queue_size"],
        prototypes=cfg["class_feat_size"],
        bottleneck_dim=cfg["bottleneck_dim"],
        matches=cfg["num_matches"],
        matching=matching,
        student_temperature=cfg["online_temp"],
        teacher_temperature=(cfg["warmup_branch_temp"], cfg["branch_temp"]),
        teacher_warmup=1.0,
        centre_momentum=cfg["center_momentum"],
        momentum=cfg["base_momentum"],
        local_batch_norm=cfg["use_bn"],
    )
    objective = CMID(Swin(**options) if name == "swin" else CNN(**options), config)
    layout = cmid_layout(weights)
    state = {ours: to(weights[key]) for key, (ours, to) in layout.items()}
    missing, unexpected = objective.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"progress"}
    # Their schedule counts epochs; ours the share of the budget.
    objective.progress.fill_(settings["epoch"] / (cfg["warmup_branch_temp_epochs"] - 1))
    return objective.train(), layout


def views(reference, boxes="fraction"):
    tensors, settings = reference
    shown = {key: {} for key in ("image", "shown", "gsd", "hidden", "valid", "sensor", "boxes", "flipped")}
    shown["upside_down"] = {}
    size, block = settings["cfg"]["size"][0], settings["cfg"]["mask_patch_size"]
    for name, theirs in THEIRS.items():
        image = tensors["in.img" if theirs == "org" else "in.view"].float()
        mask = tensors["in.mask" if theirs == "org" else "in.view_mask"].float()
        mean = tensors["in.img_mean" if theirs == "org" else "in.view_mean"][:, :, None, None]
        times = size // mask.shape[-1]
        pixels = mask.repeat_interleave(times, 1).repeat_interleave(times, 2)[:, None] > 0
        cells = size // block
        box = torch.tensor([entry[:4] for entry in settings["locs"][theirs]])
        height, width, top, left = box.unbind(1)
        if boxes == "pixel":
            top, left = top * (size - height), left * (size - width)
        shown["image"][name] = image
        shown["shown"][name] = torch.where(pixels, mean, image)
        shown["gsd"][name] = torch.ones(len(image))
        shown["hidden"][name] = torch.nn.functional.adaptive_max_pool2d(mask[:, None], cells)[:, 0] > 0
        shown["valid"][name] = None
        shown["sensor"][name] = None
        shown["boxes"][name] = torch.stack([top, left, height, width], 1)
        shown["flipped"][name] = torch.tensor([entry[4] for entry in settings["locs"][theirs]])
        shown["upside_down"][name] = torch.zeros(len(image), dtype=torch.bool)
    return shown


def places(shown, name, grid):
    return cell_locations(shown["boxes"][name], shown["flipped"][name], grid)


def test_matching(reference):
    tensors, _ = reference
    grid = tuple(tensors["in.loc_org"].shape[1:3])
    count = tensors["match.q1"].shape[1]
    for kind, prefix, known in (("fraction", "match", "in.loc"), ("pixel", "match_pixel", "match_pixel.loc")):
        shown = views(reference, kind)
        first, second = (places(shown, name, grid) for name in VIEWS)
        close(first, tensors[f"{known}_org"], "locations", 1e-6)
        close(second, tensors[f"{known}_view"], "locations", 1e-6)
        for number, pair in ((1, (first, second)), (2, (second, first))):
            # From their locations: two of ours may differ in the last digit, and so break ties otherwise.
            given = [tensors[f"{known}_{x}"] for x in (("org", "view") if number == 1 else ("view", "org"))]
            ours = match_cells(*given, count)
            assert torch.equal(ours.first, tensors[f"{prefix}.q{number}"])
            assert torch.equal(ours.second, tensors[f"{prefix}.k{number}"])
            close(ours.nearest, tensors[f"{prefix}.dist{number}"], "distances")
            close(match_cells(*pair, count).nearest, tensors[f"{prefix}.dist{number}"], "distances", 1e-4)


@pytest.fixture(scope="module")
def trained(reference):
    """One forward and backward pass."""
    objective, layout = build(reference)
    losses = objective(views(reference))
    losses["total"].backward()
    return objective, layout, losses


def test_losses(reference, trained):
    tensors, _ = reference
    losses = trained[2]
    fft = (tensors["out.fft_loss_org"] + tensors["out.fft_loss_view"]) / 2
    close(losses["frequency"], fft, "frequency")
    close(losses["spatial"] + losses["frequency"], tensors["out.loss_rec"], "reconstruction")
    close(losses["global"], tensors["out.global_loss"], "global")
    close(losses["local"], tensors["out.pixel_loss"], "local")
    close(losses["total"], tensors["out.total_loss"], "total")


def test_reconstructions_and_projections(reference):
    tensors, _ = reference
    objective, _ = build(reference)
    shown = views(reference)
    with torch.no_grad():
        student = objective._look(shown, "shown", objective.encoder, masked=True)
        teacher = objective._look(shown, "image", objective.teacher["encoder"], masked=False)
        for name, theirs in THEIRS.items():
            made = objective.reconstruct(student[name], None)
            close(made[:, :, ::4, ::4], tensors[f"out.rec_{theirs}"], "reconstruction")
            close(made.norm(), tensors[f"out.rec_{theirs}_norm"], "its norm")
            own = objective.projector(student[name].mean((2, 3)))
            close(own, tensors[f"out.student_proj_{theirs}"], "student's projection")
            key = objective.teacher["projector"](teacher[name].mean((2, 3)))
            close(key, tensors[f"out.teacher_proj_{theirs}"], "teacher's projection")


def test_gradients(reference, trained):
    tensors, _ = reference
    objective, layout, _ = trained
    ours = dict(objective.named_parameters())
    seen = 0
    largest = max(float(v) for k, v in tensors.items() if k.startswith("gradnorm."))
    for key, norm in tensors.items():
        if not key.startswith("gradnorm."):
            continue
        place, to = layout[key.removeprefix("gradnorm.")]
        grad = ours[place].grad
        seen += 1
        # Relative to itself, or where it vanishes (biases before a norm) to rounding of the largest.
        close(grad.double().norm(), norm, f"gradient of {place}", scale=max(float(norm), 1e-3 * largest))
        if (whole := tensors.get(f"grad.{key.removeprefix('gradnorm.')}")) is not None:
            wanted = to(whole)
            scale = max(float(wanted.abs().max()), 1e-3 * largest)
            close(grad, wanted, f"gradient of {place}", 2e-5, scale)
    trained_ones = [name for name, p in ours.items() if p.requires_grad]
    assert seen == len(trained_ones)


def test_buffers_after_the_forward_pass(reference, trained):
    tensors, _ = reference
    objective, layout, _ = trained
    ours = objective.state_dict()
    for key, value in tensors.items():
        name = key.removeprefix("post_fwd.")
        if key.startswith("post_fwd.") and name in layout:
            place, to = layout[name]
            close(ours[place].double(), to(value).double(), place)


def test_true_places(reference):
    tensors, _ = reference
    objective, _ = build(reference, matching="pixel")
    losses = objective(views(reference, "pixel"))
    close(losses["local"], tensors["pixel.pixel_loss"], "local")
    close(losses["global"], tensors["pixel.global_loss"], "global")
    close(losses["total"], tensors["pixel.total_loss"], "total")


def test_teacher_follows(reference):
    tensors, settings = reference
    objective, layout = build(reference)
    tau = momentum_at(30, 100, settings["cfg"]["base_momentum"])
    close(tau, tensors["ema.tau_30_of_100"], "momentum", 1e-7)  # theirs is kept in single precision
    follow(objective.teacher["encoder"], objective.encoder, tau)
    follow(objective.teacher["projector"], objective.projector, tau)
    follow(objective.teacher["prototypes"], objective.prototypes, tau)
    ours = objective.state_dict()
    for key, norm in tensors.items():
        name = key.removeprefix("emanorm.")
        if key.startswith("emanorm.") and name in layout:
            close(ours[layout[name][0]].norm(), norm, f"teacher's {name}")

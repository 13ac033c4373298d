"""Equality with the released CMID code, to 1e-5 relative: outputs, losses, gradients, buffers, teacher.

Encoders alone are in test_cmid_encoders.py, parts without a model in test_cmid_parts.py.
"""

from __future__ import annotations

import json
import re

import pytest
import torch

from helpers.reference_files import close, names, not_compared
from swath.encoders.cnn import CNN
from swath.encoders.swin import Swin
from swath.models.importers.cmid import cmid_encoder_options, cmid_layout
from swath.objectives.cmid import CMID, VIEWS
from swath.objectives.cmid_config import CMIDConfig
from swath.objectives.losses.contrastive import info_nce
from swath.objectives.losses.focal_frequency import focal_reconstruction
from swath.objectives.modules.cell_matching import cell_locations, match_cells, take_cells
from swath.objectives.modules.ema import cosine_momentum, ema_update
from swath.objectives.modules.masking import fill_with_mean

FILES = [name for name in names("cmid_*.pt", ("cmid_swin_tiny", "cmid_resnet")) if name != "cmid_misc"]
THEIRS = {"first": "org", "second": "view"}
# Options of the released code that it never changes and ours does not have.
FIXED = {
    "base_model": "moco", "mask_stage": 0, "mask_color": "mean", "fft_focal": True,
    "fft_unmask_replace": "mixed", "unmask_weight": 0.0, "residual": False, "activate": "sigmoid",
    "loss_weight": 1.0, "final_momentum": 1, "num_layers": 3,
}  # fmt: skip
COMPARED = [
    r"sd\..*", r"in\.(img|view|mask|view_mask|loc_org|loc_view|img_mean|view_mean)",
    r"out\.(student|teacher)_(feat|proj)_(org|view)", r"out\.rec_(org|view)(_norm)?",
    r"out\.(mim|fft)_loss_(org|view)", r"out\.nce_(org_to_view|view_to_org)",
    r"out\.(student|teacher)_local_logits_[12]", r"out\.local_loss_[12]",
    r"out\.(loss_rec|global_loss|pixel_loss|total_loss)", r"match(_pixel)?\.([qk]|dist)[12]",
    r"match_pixel\.loc_(org|view)", r"pixel\.(pixel_loss|total_loss|global_loss|loss_rec)", r"post_fwd\..*",
    r"grad(norm)?\..*", r"ema\.(tau_\d+_of_\d+|first_branch_param)", r"emanorm\..*",
    r"eval\.student_feat_(nomask|masked)",
]  # fmt: skip


@pytest.fixture(scope="module", params=FILES)
def reference(request, parity_dir):
    tensors = torch.load(parity_dir / f"{request.param}.pt", weights_only=True)
    settings = json.loads((parity_dir / f"{request.param}.json").read_text())
    return tensors, settings


def weights_of(tensors):
    return {key.removeprefix("sd."): value for key, value in tensors.items() if key.startswith("sd.")}


def build(reference, matching="released"):
    """Our model with their weights and settings, in the state before the one forward pass."""
    tensors, settings = reference
    cfg, weights = settings["cfg"], weights_of(tensors)
    assert {key: cfg[key] for key in FIXED} == FIXED
    name, options = cmid_encoder_options(weights)
    torch.manual_seed(0)
    config = CMIDConfig(
        view_size=cfg["size"][0],
        mask_block=cfg["mask_patch_size"],
        mask_ratio=cfg["mask_ratio"],
        frequency_weight=cfg["fft_weight"],
        focal_alpha=cfg["alpha"],
        focal_gamma=cfg["focal_gamma"],
        visible_weight=cfg["fft_unmask_weight"],
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
        center_momentum=cfg["center_momentum"],
        momentum=cfg["base_momentum"],
        local_batch_norm=cfg["use_bn"],
    )
    objective = CMID(Swin(**options) if name == "swin" else CNN(**options), config)
    layout = cmid_layout(weights)
    state = {ours: to(weights[key]) for key, (ours, to) in layout.items()}
    missing, unexpected = objective.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"progress", "queue.owners"}
    # Their schedule counts epochs; ours the share of the budget.
    objective.progress.fill_(settings["epoch"] / max(1, cfg["warmup_branch_temp_epochs"] - 1))
    return objective.train(), layout


def views(reference, places="in.loc"):
    """Their views as ours are; `places`: which of their two grids of locations."""
    tensors, settings = reference
    shown = {key: {} for key in ("image", "shown", "gsd", "hidden", "valid", "sensor", "places")}
    cells = settings["cfg"]["size"][0] // settings["cfg"]["mask_patch_size"]
    for name, theirs in THEIRS.items():
        prefix = "in." if theirs == "org" else "in.view_"
        image = tensors["in.img" if theirs == "org" else "in.view"].float()
        mask = tensors[f"{prefix}mask"].float()
        mean = tensors["in.img_mean" if theirs == "org" else "in.view_mean"][:, :, None, None]
        shown["image"][name] = image
        shown["shown"][name] = torch.where(pixels_of(mask, image), mean, image)
        shown["gsd"][name] = torch.ones(len(image))
        shown["hidden"][name] = torch.nn.functional.adaptive_max_pool2d(mask[:, None], cells)[:, 0] > 0
        shown["valid"][name] = None
        shown["sensor"][name] = None
        shown["places"][name] = tensors[f"{places}_{theirs}"]
    shown["apart"] = torch.zeros(len(image), dtype=torch.bool)
    return shown


def pixels_of(mask, image):
    times = image.shape[-1] // mask.shape[-1]
    return mask.repeat_interleave(times, 1).repeat_interleave(times, 2)[:, None] > 0


def test_every_tensor_of_the_file_is_compared(reference):
    assert not not_compared(reference[0], COMPARED)


def test_hidden_pixels_and_what_fills_them(reference):
    cfg, shown = reference[1]["cfg"], views(reference)
    for name in VIEWS:
        image, hidden = shown["image"][name], shown["hidden"][name]
        mask = torch.nn.functional.interpolate(hidden[:, None].float(), size=image.shape[-1])
        close(fill_with_mean(image, mask > 0), shown["shown"][name], "filled view", 1e-6)
        count = -int(-hidden[0].numel() * cfg["mask_ratio"] // 1)
        assert hidden.flatten(1).sum(1).tolist() == [count] * len(image)


def test_locations_and_matching(reference):
    tensors, settings = reference
    count, size = tensors["match.q1"].shape[1], settings["cfg"]["size"][0]
    assert count == settings["cfg"]["num_matches"]
    for prefix, known in (("match", "in.loc"), ("match_pixel", "match_pixel.loc")):
        given = {name: tensors[f"{known}_{theirs}"] for name, theirs in THEIRS.items()}
        for name, theirs in THEIRS.items():
            box = torch.tensor(
                [[float(number) for number in entry[:4]] for entry in settings["locs"][theirs]]
            )
            height, width, top, left = box.unbind(1)
            if prefix == "match_pixel":
                top, left = top * (size - height), left * (size - width)
            flipped = torch.tensor([bool(entry[4]) for entry in settings["locs"][theirs]])
            boxes = torch.stack([top, left, height, width], 1)
            grid = tuple(given[name].shape[1:3])
            close(cell_locations(boxes, flipped, grid), given[name], "locations", 1e-6)
        for number, pair in ((1, VIEWS), (2, VIEWS[::-1])):
            # From their locations: two of ours may differ in the last digit, and so break ties otherwise.
            ours = match_cells(*(given[name] for name in pair), count)
            assert torch.equal(ours.first, tensors[f"{prefix}.q{number}"])
            assert torch.equal(ours.second, tensors[f"{prefix}.k{number}"])
            close(ours.nearest, tensors[f"{prefix}.dist{number}"], "distances")


@pytest.fixture(scope="module")
def trained(reference):
    """One forward and backward pass, and the keys that it leaves."""
    objective, layout = build(reference)
    losses = objective(views(reference))
    losses["total"].backward()
    objective.queue.push_held()
    return objective, layout, losses


def test_losses(reference, trained):
    tensors, settings = reference
    losses = trained[2]
    weight = settings["cfg"]["fft_weight"]
    close(weight * losses["frequency"], mean_of(tensors, "out.fft_loss"), "frequency")
    close(losses["spatial"] + weight * losses["frequency"], tensors["out.loss_rec"], "reconstruction")
    close(losses["global"], tensors["out.global_loss"], "global")
    close(losses["local"], tensors["out.pixel_loss"], "local")
    close(losses["total"], tensors["out.total_loss"], "total")


def mean_of(tensors, name):
    return (tensors[f"{name}_org"] + tensors[f"{name}_view"]) / 2


def test_every_step_on_the_way(reference):
    """Reconstructions, projections, logits, and the loss of each view and each direction."""
    tensors, settings = reference
    cfg = settings["cfg"]
    objective, _ = build(reference)
    shown = views(reference)
    keys, queries = {}, {}
    with torch.no_grad():
        student = objective._look(shown, "shown", objective.encoder, masked=True)
        teacher = objective._look(shown, "image", objective.teacher["encoder"], masked=False)
        for name, theirs in THEIRS.items():
            close(student[name], tensors[f"out.student_feat_{theirs}"], "student's features")
            close(teacher[name], tensors[f"out.teacher_feat_{theirs}"], "teacher's features")
            made = objective.reconstruct(student[name], None)
            thinned = tensors[f"out.rec_{theirs}"]
            step = made.shape[-1] // thinned.shape[-1]
            close(made[:, :, ::step, ::step], thinned, "reconstruction")
            close(made.norm(), tensors[f"out.rec_{theirs}_norm"], "its norm")
            image, mask = shown["image"][name], tensors["in.mask" if theirs == "org" else "in.view_mask"]
            spatial, frequency = focal_reconstruction(
                made, image, pixels_of(mask, image).float(), alpha=cfg["alpha"], gamma=cfg["focal_gamma"],
                visible=cfg["fft_unmask_weight"],
            )  # fmt: skip
            frequency = cfg["fft_weight"] * frequency
            close(frequency, tensors[f"out.fft_loss_{theirs}"], "frequency")
            close(spatial + frequency, tensors[f"out.mim_loss_{theirs}"], "reconstruction loss")
            queries[theirs] = objective.projector(student[name].mean((2, 3)))
            keys[theirs] = objective.teacher["projector"](teacher[name].mean((2, 3)))
            close(queries[theirs], tensors[f"out.student_proj_{theirs}"], "student's projection")
            close(keys[theirs], tensors[f"out.teacher_proj_{theirs}"], "teacher's projection")
        for one, other in (("org", "view"), ("view", "org")):
            loss = info_nce(queries[one], keys[other], objective.queue.keys, cfg["temperature"])
            close(loss, tensors[f"out.nce_{one}_to_{other}"], "contrast")
        logits = []
        for number, (name, other) in enumerate((VIEWS, VIEWS[::-1]), 1):
            cells, partners = tensors[f"match.q{number}"], tensors[f"match.k{number}"]
            own = objective.prototypes(take_cells(student[name], cells))
            wanted = objective.teacher["prototypes"](take_cells(teacher[other], partners))
            close(own, tensors[f"out.student_local_logits_{number}"], "student's prototypes")
            close(wanted, tensors[f"out.teacher_local_logits_{number}"], "teacher's prototypes")
            logits.append((own, wanted))
        for number, (own, wanted) in enumerate(logits, 1):  # the second sees the center that the first moved
            loss = objective.agreement(own, wanted, objective._teacher_temperature())
            close(loss, tensors[f"out.local_loss_{number}"], f"local loss {number}")


def test_gradients(reference):
    """In float64: float32 lies up to 3e-4 from it, by the side of a ReLU on which rounding falls."""
    tensors, _ = reference
    objective, layout = build(reference)
    objective.double()(in_double(views(reference)))["total"].backward()
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
        scale = max(float(norm), 1e-3 * largest)
        close(grad.norm(), norm, f"gradient of {place}", scale=scale)
        if (whole := tensors.get(f"grad.{key.removeprefix('gradnorm.')}")) is not None:
            close((grad - to(whole)).norm(), 0, f"gradient of {place}", scale=scale)
    assert seen == len([name for name, p in ours.items() if p.requires_grad])


def in_double(given):
    if isinstance(given, dict):
        return {key: in_double(value) for key, value in given.items()}
    return given.double() if torch.is_tensor(given) and given.is_floating_point() else given


def test_buffers_after_the_forward_pass(reference, trained):
    tensors, _ = reference
    objective, layout, _ = trained
    ours = objective.state_dict()
    changed = {
        key.removeprefix("post_fwd."): value for key, value in tensors.items() if key.startswith("post_fwd.")
    }
    assert set(changed) <= set(layout)
    for name, value in changed.items():
        place, to = layout[name]
        close(ours[place], to(value), place)
    before = weights_of(tensors)
    for name in set(layout) - set(changed):  # and what they leave as it was we leave, too
        place, to = layout[name]
        assert torch.equal(ours[place], to(before[name])), place


def test_true_places(reference):
    tensors, _ = reference
    objective, _ = build(reference, matching="pixel")
    losses = objective(views(reference, "match_pixel.loc"))
    weight = objective.config.frequency_weight
    close(losses["spatial"] + weight * losses["frequency"], tensors["pixel.loss_rec"], "reconstruction")
    close(losses["local"], tensors["pixel.pixel_loss"], "local")
    close(losses["global"], tensors["pixel.global_loss"], "global")
    close(losses["total"], tensors["pixel.total_loss"], "total")


def test_teacher_follows(reference):
    tensors, settings = reference
    objective, layout = build(reference)
    (key,) = [key for key in tensors if key.startswith("ema.tau_")]
    step, total = (int(number) for number in re.fullmatch(r"ema\.tau_(\d+)_of_(\d+)", key).groups())
    tau = cosine_momentum(step, total, settings["cfg"]["base_momentum"])
    close(tau, tensors[key], "momentum", 1e-7)  # theirs is kept in single precision
    ema_update(objective.teacher["encoder"], objective.encoder, tau)
    ema_update(objective.teacher["projector"], objective.projector, tau)
    ema_update(objective.teacher["prototypes"], objective.prototypes, tau)
    ours = objective.state_dict()
    norms = {k.removeprefix("emanorm."): v for k, v in tensors.items() if k.startswith("emanorm.")}
    frozen = {name for name in norms if name.endswith("last_layer.weight_g")}  # lengths of prototypes, all 1
    assert set(norms) - set(layout) == frozen
    for name in set(norms) - frozen:
        close(ours[layout[name][0]].norm(), norms[name], f"teacher's {name}")
    place, to = layout[next(name for name in weights_of(tensors) if name.startswith("branch_encoder."))]
    close(ours[place], to(tensors["ema.first_branch_param"]), place)

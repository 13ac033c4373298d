"""CMID's parts, one by one, against the released code: losses, locations, schedules, optimizer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from helpers.reference_files import close, not_compared
from helpers.reference_options import teacher_temperature_at
from swath.objectives.losses.contrastive import info_nce
from swath.objectives.losses.focal_frequency import focal_frequency, focal_reconstruction
from swath.objectives.losses.prototypes import PrototypeLoss
from swath.objectives.modules.cell_matching import cell_locations
from swath.objectives.modules.ema import cosine_momentum
from swath.objectives.modules.masking import random_blocks
from swath.training.optim.adan import Adan
from swath.training.optim.schedules import cosine_with_scaled_warmup

COMPARED = [
    r"grid\.(loc|out)", r"mask\.seed\d+", r"mim\.(x|x_rec|mask|total|spatial_only|grad)", r"ffl\.pred_target",
    r"dino\.(student|teacher|loss_[12]|center_[12]|temp_schedule_400ep)", r"moco\.(q|k|queue|loss)",
    r"ema\.tau", r"lr\.(iters|values)", r"adan\.(grads|p\d+)",
]  # fmt: skip


@pytest.fixture(scope="module")
def reference(parity_dir):
    return torch.load(parity_dir / "cmid_misc.pt", weights_only=True)


def test_every_tensor_of_the_file_is_compared(reference):
    assert not not_compared(reference, COMPARED)


def test_hidden_blocks_are_those_of_their_permutation(reference):
    """Their mask is the first blocks of a permutation of numpy's; ours those with the smallest numbers."""
    masks = {key: value for key, value in reference.items() if key.startswith("mask.seed")}
    assert masks
    for key, mask in masks.items():
        mask = mask.bool()
        block = max(side for side in range(1, len(mask)) if len(mask) % side == 0 and _in_blocks(mask, side))
        cells = (len(mask) // block) ** 2
        permutation = np.random.RandomState(int(key.removeprefix("mask.seed"))).permutation(cells)
        noise = torch.empty(1, cells)
        noise[0, torch.from_numpy(permutation)] = torch.linspace(0, 1, cells)
        side = math.isqrt(cells)
        ours = random_blocks(noise, 0.6).view(side, side)
        assert torch.equal(ours.repeat_interleave(block, 0).repeat_interleave(block, 1), mask), key


def _in_blocks(mask, side):
    """Whether a mask is the same all over each block of `side` cells."""
    cut = mask.unflatten(0, (-1, side)).unflatten(2, (-1, side)).float()
    return bool((cut.amax((1, 3)) == cut.amin((1, 3))).all())


def test_locations_of_cells(reference):
    height, width, top, left, flip = reference["grid.loc"].unbind(1)
    boxes = torch.stack([top, left, height, width], 1)
    grid = tuple(reference["grid.out"].shape[1:3])
    close(cell_locations(boxes, flip > 0, grid), reference["grid.out"], "grid")


def test_reconstruction_losses(reference):
    target, mask = reference["mim.x"], reference["mim.mask"].float()
    made = reference["mim.x_rec"].clone().requires_grad_()
    times = target.shape[-1] // mask.shape[-1]
    hidden = mask.repeat_interleave(times, 1).repeat_interleave(times, 2)[:, None]
    spatial, frequency = focal_reconstruction(made, target, hidden)
    close(spatial, reference["mim.spatial_only"], "spatial")
    close(spatial + frequency, reference["mim.total"], "total")
    (spatial + frequency).backward()
    close(made.grad, reference["mim.grad"], "gradient")
    plain = focal_frequency(reference["mim.x_rec"], target)
    close(plain, reference["ffl.pred_target"], "frequency without replacement")


def test_prototypes_and_their_center(reference):
    student, teacher = reference["dino.student"], reference["dino.teacher"]
    loss = PrototypeLoss(student.shape[1])
    for turn in (1, 2):
        value = loss(student, teacher, teacher_temperature_at(10))
        close(value, reference[f"dino.loss_{turn}"], f"loss {turn}")
        close(loss.centre, reference[f"dino.center_{turn}"].flatten(), f"centre {turn}")


def test_contrast_with_a_queue(reference):
    loss = info_nce(reference["moco.q"], reference["moco.k"], reference["moco.queue"].T, 0.2)
    close(loss, reference["moco.loss"], "InfoNCE")


def test_schedules(reference):
    theirs = reference["dino.temp_schedule_400ep"]
    ours = [teacher_temperature_at(epoch) for epoch in range(len(theirs))]
    close(torch.tensor(ours, dtype=torch.float64), theirs, "teacher temperature")
    momenta = [cosine_momentum(step, 1000, 0.996) for step in (0, 1, 10, 500, 999, 1000)]
    close(torch.tensor(momenta, dtype=torch.float64), reference["ema.tau"], "momentum")
    rates = [
        0.004 * cosine_with_scaled_warmup(step, 200 * 100, 10 * 100, 0.01, 1e-6 / 0.004)
        for step in reference["lr.iters"].tolist()
    ]
    close(torch.tensor(rates, dtype=torch.float64), reference["lr.values"], "learning rate")


def test_adan(reference):
    weight = torch.nn.Parameter(reference["adan.p0"].clone())
    optimizer = Adan([weight], lr=4e-3, weight_decay=0.02)
    for turn, grad in enumerate(reference["adan.grads"], 1):
        weight.grad = grad.clone()
        optimizer.step()
        close(weight, reference[f"adan.p{turn}"], f"weights after step {turn}")

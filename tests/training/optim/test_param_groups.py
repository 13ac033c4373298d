from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from swath.encoders import create_model
from swath.training.budget import Budget
from swath.training.config.sections import TrainingConfig
from swath.training.optim.param_groups import gradient_norm, parameter_groups
from swath.training.optim.schedules import cosine_schedule


def names(module: nn.Module, **options: bool) -> dict[str, float]:
    groups = parameter_groups(module, 0.05, **options)
    return {name: group["weight_decay"] for group in groups for name in group["names"]}


def test_only_maps_are_decayed() -> None:
    decay = names(create_model("vit_micro_patch8", depth=1))
    assert decay["blocks.0.attn.qkv.weight"] == 0.05
    assert decay["patch_embed.proj.weight"] == 0.05
    assert decay["blocks.0.attn.qkv.bias"] == 0.0
    assert decay["blocks.0.norm1.weight"] == 0.0
    assert decay["norm.bias"] == 0.0
    assert decay["cls_token"] == 0.05  # as in MAE


def test_tokens_may_be_spared() -> None:
    decay = names(create_model("vit_micro_patch8", depth=1), decay_tokens=False)
    assert decay["cls_token"] == 0.0
    assert decay["patch_embed.proj.weight"] == 0.05


def test_every_trained_parameter_is_in_one_group_and_frozen_ones_in_none() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    model[1].weight = nn.Parameter(torch.ones(2, 2))
    model.append(nn.Linear(2, 2))
    model[2].weight = model[1].weight  # shared
    groups = parameter_groups(model, 0.05)
    members = [id(p) for group in groups for p in group["params"]]
    assert len(members) == len(set(members))
    assert set(members) == {id(p) for p in model.parameters() if p.requires_grad}


def test_the_schedule_warms_up_peaks_and_ends_where_it_should() -> None:
    assert cosine_schedule(0.05, 0.1) == pytest.approx(0.5)
    assert cosine_schedule(0.1, 0.1) == 1.0
    assert cosine_schedule(0.55, 0.1) == pytest.approx(0.5)
    assert cosine_schedule(1.0, 0.1) == pytest.approx(0.0)
    assert cosine_schedule(1.0, 0.1, final=0.2) == pytest.approx(0.2)
    assert cosine_schedule(0.0, 0.0) == 1.0
    assert cosine_schedule(0.5, 1.0) == 0.5  # nothing but warm-up


def test_no_step_has_rate_zero_and_the_cosine_is_that_of_mae() -> None:
    budget = Budget(TrainingConfig(steps=100, warmup_steps=10), steps_per_epoch=5)
    rates = [budget.rate(step, 0.0) for step in range(1, 101)]
    assert min(rates) > 0
    assert rates[:10] == pytest.approx([(k + 0.5) / 10 for k in range(10)])
    assert rates[54] == pytest.approx(0.5 * (1 + math.cos(math.pi * 44.5 / 90)))
    assert max(rates) <= 1


def test_budgets_in_epochs_count_their_steps() -> None:
    budget = Budget(TrainingConfig(epochs=4, warmup_epochs=1), steps_per_epoch=25)
    assert (budget.steps, budget.warmup) == (100, 0.25)
    assert not budget.finished(99)
    assert budget.finished(100)


def test_a_cpu_budget_continues_from_what_was_spent() -> None:
    budget = Budget(TrainingConfig(cpu_minutes=1.0), steps_per_epoch=5, spent=45.0)
    assert budget.progress(7) == pytest.approx(0.75, abs=0.01)
    assert budget.total_steps(30) == pytest.approx(40, abs=1)
    assert not budget.finished(7)
    assert Budget(TrainingConfig(cpu_minutes=1.0), 5, spent=61.0).finished(7)


def test_gradient_norm_is_that_before_clipping() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    assert gradient_norm([parameter], 1.0) == 5.0
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]), atol=1e-5, rtol=0)
    assert gradient_norm([parameter], None) == pytest.approx(1.0, abs=1e-5)

"""The penalty is chosen on held-out images of the bank: stratified, groups whole, queries never looked at."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from swath.errors import SwathError
from swath.evaluation.protocols.penalty_search import GRID, fit_with_selected_c, stratified_group_holdout


def test_fraction_of_each_class_and_groups_whole() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    held = stratified_group_holdout(labels)
    assert [int(held[labels == k].sum()) for k in range(3)] == [10, 6, 4]
    assert (stratified_group_holdout(labels) == held).all()
    assert (stratified_group_holdout(labels, seed=1) != held).any()
    groups = np.array([f"scene {i // 5}" for i in range(100)])
    by_group = stratified_group_holdout(labels, groups)
    assert 0 < by_group.sum() < 50
    for name in np.unique(groups):
        assert len(set(by_group[groups == name])) == 1


def test_only_image_of_a_class_stays_with_the_learners() -> None:
    held = stratified_group_holdout(np.array([0, 0, 0, 0, 0, 1]))
    assert not held[5]
    assert held.sum() == 1


def noisy(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weak direction and 200 that mean nothing: a strong penalty is right."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    x = torch.randn(count, 200, generator=generator)
    x[:, 0] += 1.5 * (2 * labels - 1)
    return x, labels


def test_chosen_strength_beats_a_bad_one_and_says_what_it_saw() -> None:
    (train, labels), (test, truth) = noisy(300, 0), noisy(2000, 1)
    probe, facts = fit_with_selected_c(train, labels, classes=2)
    assert facts["C"] in GRID
    assert facts["C"] < 1
    assert facts["validation_images"] == 60
    tried = list(facts["validation"])
    assert (
        tried == [f"{c:g}" for c in GRID][: len(tried)]
    )  # weaker penalties are left out after two worse ones
    assert len(tried) == min(len(GRID), tried.index(f"{facts['C']:g}") + 3)
    weak, _ = fit_with_selected_c(train, labels, classes=2, grid=(100.0,))
    chance = [p.probabilities(test).gather(1, truth[:, None]).log().mean() for p in (probe, weak)]
    assert chance[0] > chance[1] + 0.5


def test_copies_of_one_scene_do_not_fool_the_choice() -> None:
    """With its copies on the other side, whatever remembers images validates best; by groups it does not."""
    train, labels = noisy(60, 0)
    train, labels = train.repeat(6, 1) + 1e-3 * torch.randn(360, 200), labels.repeat(6)
    groups = np.array([f"{i % 60}" for i in range(360)])
    _, fooled = fit_with_selected_c(train, labels, classes=2)
    _, honest = fit_with_selected_c(train, labels, classes=2, groups=groups)
    assert fooled["C"] > honest["C"]
    assert max(fooled["validation"].values()) > max(honest["validation"].values()) + 0.1


def test_several_labels() -> None:
    x, labels = noisy(300, 0)
    several = torch.stack([labels, 1 - labels, torch.ones_like(labels)], dim=1).float()
    probe, facts = fit_with_selected_c(x, several, classes=3)
    assert facts["C"] < 1
    assert probe.probabilities(x).shape == (300, 3)


def test_too_few_images_to_validate_are_refused() -> None:
    with pytest.raises(SwathError, match="--c"):
        fit_with_selected_c(torch.randn(2, 4), torch.tensor([0, 1]), classes=2)

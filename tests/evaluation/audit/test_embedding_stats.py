"""Geometry: known shapes have known numbers, and a collapsed space is called one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.eval_scenes import Fake, color, constant
from swath.errors import SwathError
from swath.evaluation.audit.geometry import embedding_stats, evaluate_embedding_stats
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.measures.embedding import (
    alignment,
    class_alignment,
    effective_rank,
    participation_ratio,
    two_nn,
    uniformity,
)
from swath.training.monitoring.collapse import rankme

SEEDS = st.integers(0, 2**31 - 1)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotation(seed: int, size: int) -> torch.Tensor:
    return torch.linalg.qr(normal(seed, size, size)).Q


@given(SEEDS, st.integers(2, 24))
@settings(max_examples=15, deadline=None)
def test_orthonormal_features_use_every_direction(seed: int, size: int) -> None:
    features = torch.cat([rotation(seed, size), -rotation(seed, size)])  # mean 0, equal singular values
    for measure in (rankme, effective_rank, participation_ratio):
        assert measure(features) == pytest.approx(size, rel=1e-3)


@given(SEEDS, st.integers(1, 6), st.floats(0.01, 100))
@settings(max_examples=15, deadline=None)
def test_ranks_see_the_subspace_and_neither_rotation_nor_scale(seed: int, rank: int, scale: float) -> None:
    low = torch.cat([rotation(seed, rank), -rotation(seed, rank)])
    features = low @ rotation(seed + 1, 16)[:rank] * scale
    assert effective_rank(features) == pytest.approx(rank, rel=1e-3)
    assert participation_ratio(features) == pytest.approx(rank, rel=1e-6)


def test_mean_vector_hides_from_the_effective_rank_only() -> None:
    features = normal(0, 500, 16) + 50
    assert rankme(features) < 4
    assert effective_rank(features) > 15


@pytest.mark.parametrize("dimension", [1, 2, 4, 8])
def test_two_nn_finds_the_dimension_of_a_curved_manifold(dimension: int) -> None:
    angles = torch.rand(2500, dimension, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    circles = torch.cat([(2 * math.pi * angles).sin(), (2 * math.pi * angles).cos()], dim=1)  # a torus
    embedded = circles @ rotation(2, 40)[: 2 * dimension]
    found = two_nn(embedded)
    assert found == pytest.approx(dimension, rel=0.12)
    assert two_nn(embedded * 1000) == pytest.approx(found, rel=1e-6)


def test_two_nn_counts_copies_once_and_says_when_it_cannot_tell() -> None:
    points = normal(3, 600, 3)
    assert two_nn(torch.cat([points, points])) == pytest.approx(two_nn(points))
    assert two_nn(points[:10].repeat(50, 1)) is None


def test_uniformity_of_one_point_and_of_a_full_sphere() -> None:
    assert uniformity(torch.ones(50, 8)) == pytest.approx(0, abs=1e-9)
    assert uniformity(normal(0, 2000, 256)) == pytest.approx(-4, abs=0.05)
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert uniformity(opposite) == pytest.approx(-8), "exp(-2 * 4)"


def test_alignment_is_the_mean_squared_distance_on_the_sphere() -> None:
    first, second = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 3.0], [0.0, 5.0]])
    assert alignment(first, second) == pytest.approx(1.0)  # 2 and 0
    assert alignment(first, first * 7) == pytest.approx(0, abs=1e-12)


@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_class_alignment_agrees_with_all_pairs(seed: int) -> None:
    features, labels = normal(seed, 12, 5), torch.arange(12) % 3
    unit = torch.nn.functional.normalize(features, dim=1)
    distance = torch.cdist(unit, unit).square()
    same = (labels[:, None] == labels) & ~torch.eye(12, dtype=torch.bool)
    every = distance[~torch.eye(12, dtype=torch.bool)].mean()
    assert class_alignment(features, labels) == pytest.approx(float(distance[same].mean() / every))
    assert class_alignment(features, torch.arange(12)) is None, "no pair of one class"
    assert class_alignment(torch.ones(12, 5), labels) is None, "one point"


def test_collapse_is_called_so_and_health_is_not() -> None:
    assert embedding_stats("even", 32, normal(0, 300, 64)).warning is None
    line = normal(1, 300, 1) * torch.ones(1, 64)
    assert "one point or one line" in str(embedding_stats("line", 32, line).warning)
    dead = normal(2, 300, 64)
    dead[:, :20] = 0
    assert "20 of 64 dimensions do not vary" in str(embedding_stats("dead", 32, dead).warning)
    ruled = normal(3, 300, 64) + 60 * normal(4, 300, 1) * normal(5, 1, 64)
    assert "one direction carries" in str(embedding_stats("ruled", 32, ruled).warning)


def test_report_has_a_row_a_featurizer_and_side_and_warns(split: TrainTestSplit, tmp_path: Path) -> None:
    report = evaluate_embedding_stats(
        [Fake("color", color), Fake("constant", constant)], split.train, image_sizes=[16, 32]
    )
    assert [(row.features, row.image_size) for row in report.rows] == [
        ("color", 16), ("color", 32), ("constant", 16), ("constant", 32),
    ]  # fmt: skip
    first = report.rows[0]
    assert first.images == 48
    assert first.dimensions == 7
    assert first.class_alignment is not None
    assert first.class_alignment < 0.5, "colors tell these classes apart"
    assert first.scale_alignment is not None
    assert report.rows[1].scale_alignment is None, "nothing is larger"
    assert any("constant at 16 px" in note for note in report.notes)
    data = json.loads(report.write(tmp_path, model="m").read_text())
    assert data["geometry"][0]["rankme"] == pytest.approx(first.rankme, rel=1e-4)
    assert data["settings"]["id"] == "swath.geometry/1"


def test_what_has_no_geometry_is_refused() -> None:
    with pytest.raises(SwathError, match="three are the least"):
        embedding_stats("few", 32, normal(0, 2, 4))
    with pytest.raises(SwathError, match="NaN"):
        embedding_stats("nan", 32, torch.full((9, 4), float("nan")))

"""Retrieval scores against plain definitions; chance, intervals, exclusions; labels that do not do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from swath.errors import SwathError
from swath.evaluation.measures.label_overlap import as_multi_hot
from swath.evaluation.measures.retrieval import (
    METRICS,
    chance_scores,
    exact_neighbors,
    per_class_retrieval,
    retrieval_scores,
)


def brute_force(ids: list[int], query: set[int], gallery: dict[int, set[int]]) -> dict[str, float]:
    """All metrics of one query by their definitions; `archive` holds what may answer."""
    shared = [len(query & gallery[i]) for i in ids]
    k = len(ids)
    relevant = sum(bool(query & labels) for labels in gallery.values())
    ap = sum(
        sum(s > 0 for s in shared[: j + 1]) / (j + 1) for j in range(k) if shared[j] > 0
    ) / min(k, max(1, relevant))  # fmt: skip
    best = sorted((len(query & labels) for labels in gallery.values()), reverse=True)[:k]
    dcg, ideal = (sum(g / math.log2(j + 2) for j, g in enumerate(gains)) for gains in (shared, best))
    return {
        "precision": float(np.mean([s / len(gallery[i]) for s, i in zip(shared, ids, strict=True)])),
        "recall": float(np.mean([s / len(query) for s in shared])),
        "pair_f1": float(
            np.mean([2 * s / (len(gallery[i]) + len(query)) for s, i in zip(shared, ids, strict=True)])
        ),
        "average_precision": ap,
        "ndcg": dcg / ideal if ideal else 0.0,
        "hits": float(np.mean([s > 0 for s in shared])),
    }


@st.composite
def problems(draw: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, Any]:
    """Features and label sets of a few queries and archive items, and perhaps exclusions."""
    seed = draw(st.integers(0, 2**31))
    queries, gallery, classes = draw(st.integers(1, 5)), draw(st.integers(4, 12)), draw(st.integers(1, 5))
    random = np.random.default_rng(seed)
    labels = [(random.random((n, classes)) < 0.4).astype(np.float32) for n in (queries, gallery)]
    for rows in labels:
        rows[rows.sum(1) == 0, random.integers(classes)] = 1
    # Few distinct features: ties are common.
    features = [random.integers(-2, 3, (n, 3)).astype(np.float32) for n in (queries, gallery)]
    exclude = torch.from_numpy(random.integers(-1, gallery, (queries, 2))) if draw(st.booleans()) else None
    k = draw(st.integers(1, gallery - 2))
    return (*map(torch.from_numpy, features), *map(torch.from_numpy, labels), k, exclude)


@given(problems())
@settings(max_examples=80, deadline=None)
def test_neighbors_and_scores_are_the_plain_definitions(problem: Any) -> None:
    queries, gallery, query_labels, archive_labels, k, exclude = problem
    found = exact_neighbors(queries, gallery, k, exclude=exclude, chunk=2)
    scores = retrieval_scores(found.ids, query_labels, archive_labels, exclude=exclude)
    lengths = np.linalg.norm(gallery.double().numpy(), axis=1)
    for q in range(len(queries)):
        hidden = set(exclude[q].tolist()) if exclude is not None else set()
        own = queries[q].double().numpy()
        norm = np.linalg.norm(own)
        cosine = [
            round(float(own @ gallery[i].double().numpy() / (norm * lengths[i])), 9)
            if norm and lengths[i]
            else 0.0
            for i in range(len(gallery))
        ]
        order = sorted((i for i in range(len(gallery)) if i not in hidden), key=lambda i: (-cosine[i], i))
        assert found.ids[q].tolist() == order[:k]
        assert found.cosines[q].tolist() == pytest.approx([cosine[i] for i in order[:k]], abs=1e-8)
        sets = {i: set(archive_labels[i].nonzero()[:, 0].tolist()) for i in order}
        truth = brute_force(order[:k], set(query_labels[q].nonzero()[:, 0].tolist()), sets)
        for name, value in truth.items():
            assert float(getattr(scores, name)[q]) == pytest.approx(value, abs=1e-9), name


def random_labels(random: np.random.Generator, count: int, classes: int = 6) -> np.ndarray:
    labels = (random.random((count, classes)) < 0.3).astype(np.float32)
    labels[np.arange(count), random.integers(classes, size=count)] = 1
    return labels


def test_chance_is_the_mean_over_random_rankings() -> None:
    random = np.random.default_rng(0)
    queries, gallery, k = random_labels(random, 4), random_labels(random, 15), 5
    exclude = torch.tensor([[3], [-1], [0], [14]])
    total: dict[str, Any] = {}
    for _ in range(4000):
        ids = torch.stack(
            [
                torch.from_numpy(random.permutation([i for i in range(15) if i != int(hidden)])[:k])
                for hidden in exclude[:, 0]
            ]
        )
        scores = retrieval_scores(ids, queries, gallery, exclude=exclude)
        for name in METRICS:
            if name != "f1":
                total[name] = total.get(name, 0) + getattr(scores, name) / 4000
    expected = chance_scores(queries, gallery, k, exclude=exclude)
    for name, mean in total.items():
        assert torch.allclose(getattr(expected, name), mean, atol=0.015), name


def test_shuffled_labels_score_at_chance() -> None:
    random = np.random.default_rng(1)
    features = torch.from_numpy(random.standard_normal((1200, 8)))
    labels = random_labels(random, 1200)
    labels = labels[random.permutation(1200)]
    found = exact_neighbors(features[:400], features[400:], 10)
    scores = retrieval_scores(found.ids, labels[:400], labels[400:])
    chance = chance_scores(labels[:400], labels[400:], 10).means()
    for name, (low, high) in scores.intervals(level=0.999).items():
        assert low <= chance[name] <= high, name


def test_one_label_each_makes_p_r_f1_and_precision_one_number() -> None:
    random = np.random.default_rng(2)
    queries, gallery = random.integers(0, 4, 30), random.integers(0, 4, 60)
    ids = torch.from_numpy(random.integers(0, 60, (30, 7)))
    means = retrieval_scores(ids, queries, gallery).means()
    fraction = float((gallery[ids.numpy()] == queries[:, None]).mean())
    for name in ("f1", "precision", "recall", "pair_f1", "hits"):
        assert means[name] == pytest.approx(fraction)


def test_ndcg_and_map_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(3)
    queries, gallery = random_labels(random, 5), random_labels(random, 40)
    features = torch.from_numpy(random.standard_normal((45, 4)))
    found = exact_neighbors(features[:5], features[5:], 40)
    scores = retrieval_scores(found.ids, queries, gallery)
    cosines = np.empty((5, 40))
    np.put_along_axis(cosines, found.ids.numpy(), found.cosines.numpy(), axis=1)
    gains = queries @ gallery.T
    for q in range(5):
        assert float(scores.ndcg[q]) == pytest.approx(
            metrics.ndcg_score(gains[q : q + 1], cosines[q : q + 1])
        )
        truth = metrics.average_precision_score(gains[q] > 0, cosines[q])
        assert float(scores.average_precision[q]) == pytest.approx(truth)  # with k = N they are one thing
    ten = retrieval_scores(found.ids[:, :10], queries, gallery)
    assert ten.means()["ndcg"] == pytest.approx(metrics.ndcg_score(gains, cosines, k=10))


def test_f1_is_of_the_averages() -> None:
    queries, gallery = torch.eye(2, 4), torch.tensor([[1.0, 1, 1, 1], [0, 0, 1, 0]])
    means = retrieval_scores(torch.tensor([[0], [1]]), queries, gallery).means()
    assert (means["precision"], means["recall"]) == (0.125, 0.5)
    assert means["f1"] == pytest.approx(2 * 0.125 * 0.5 / 0.625)
    assert means["pair_f1"] == pytest.approx(0.2)  # (2 / 5 + 0) / 2
    nothing = retrieval_scores(torch.tensor([[1], [1]]), queries, gallery).means()
    assert nothing["f1"] == 0


def test_a_query_without_a_relevant_item_scores_nothing() -> None:
    scores = retrieval_scores(torch.tensor([[0, 1]]), torch.tensor([2]), torch.tensor([0, 1]))
    assert scores.without_relevant == 1
    assert all(value == 0 for value in scores.means().values())


def test_class_rows() -> None:
    queries = torch.tensor([[1.0, 0, 0], [1, 1, 0]])
    gallery = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 0, 0]])
    ids = torch.tensor([[0, 1], [2, 0]])
    scores = retrieval_scores(ids, queries, gallery)
    first, second, third = per_class_retrieval(ids, scores, queries, gallery, ["a", "b", "c"])
    assert (first.name, first.queries, first.gallery, first.chance) == ("a", 2, 3, 0.75)
    assert first.class_precision == pytest.approx(0.75)  # 1 of 2, 2 of 2
    assert second.precision == pytest.approx(1.0)
    assert second.recall == pytest.approx(0.75)
    assert second.f1 == pytest.approx(2 * 0.75 / 1.75)
    assert (third.queries, third.gallery) == (0, 0)
    assert math.isnan(third.f1)


def test_intervals_hold_the_mean_and_widen_when_scenes_are_drawn_whole() -> None:
    random = np.random.default_rng(4)
    groups = np.repeat(np.arange(20), 10)
    # Queries of one scene all do well or all do badly.
    ids = torch.from_numpy(np.where(np.isin(groups, random.permutation(20)[:10])[:, None], 0, 1)).expand(
        -1, 3
    )
    scores = retrieval_scores(ids, torch.zeros(200, dtype=torch.int64), torch.tensor([0, 1]))
    alone, whole = scores.intervals(), scores.intervals(groups)
    mean = scores.means()["f1"]
    assert alone["f1"][0] < mean < alone["f1"][1]
    assert whole["f1"][1] - whole["f1"][0] > 2 * (alone["f1"][1] - alone["f1"][0])
    assert scores.intervals() == alone  # repeatable
    with pytest.raises(SwathError, match="19 groups for 200 queries"):
        scores.intervals(np.arange(19))


def test_paired_difference_is_sharper_than_two_intervals() -> None:
    random = np.random.default_rng(5)
    labels = random.integers(0, 2, 300)
    ids = torch.from_numpy((random.random((300, 4)) < 0.7).astype(np.int64))
    better = ids.clone()
    better[:20] = torch.from_numpy(labels[:20, None])
    gallery = torch.tensor([0, 1])
    one, other = (retrieval_scores(i, labels, gallery) for i in (better, ids))
    gap, low, high = one.difference(other)["f1"]
    assert gap == pytest.approx(one.means()["f1"] - other.means()["f1"])
    assert 0 < low < gap < high
    assert one.difference(one)["f1"] == (0, 0, 0)
    assert len(one.select([0, 5]).precision) == 2


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, -1, 2, -1]), r"2 of 4 items have no label \(first: number 1\)"),
        (torch.tensor([[1.0, 0], [0, 0]]), "1 of 2 items have no label"),
        (torch.tensor([[1.0, 0.5]]), "zeros and ones"),
        (torch.tensor([[1.0, float("nan")]]), "zeros and ones"),
        (torch.tensor([0.0, 1.0]), "class indices"),
    ],
)
def test_labels_that_cannot_be_scored_are_refused(labels: torch.Tensor, words: str) -> None:
    with pytest.raises(SwathError, match=words):
        as_multi_hot(labels)


def test_label_pairs_must_be_of_one_nomenclature() -> None:
    ids = torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(SwathError, match="one nomenclature"):
        retrieval_scores(ids, torch.ones(1, 19), torch.ones(1, 43))
    with pytest.raises(SwathError, match="class 3 among the items, but there are 2"):
        as_multi_hot(torch.tensor([0, 3]), classes=2)


def test_too_large_a_k_and_bad_features_are_refused() -> None:
    few = torch.eye(4)
    with pytest.raises(SwathError, match="k = 5 answers cannot be had of an archive of 4 items"):
        exact_neighbors(few, few, 5)
    with pytest.raises(SwathError, match=r"archive of 4 items \(1 of them excluded\)"):
        exact_neighbors(few, few, 4, exclude=torch.arange(4))
    with pytest.raises(SwathError, match="cannot be compared"):
        exact_neighbors(few, torch.eye(5), 1)
    with pytest.raises(SwathError, match="NaN or infinity"):
        exact_neighbors(few, few * torch.nan, 1)
    with pytest.raises(SwathError, match="exclusions are positions"):
        exact_neighbors(few, few, 1, exclude=torch.tensor([9, 0, 0, 0]))
    assert exact_neighbors(few[:0], few, 2).ids.shape == (0, 2)


@pytest.mark.parametrize("k", [1, 3, 9])
def test_equal_cosines_come_in_the_order_of_the_archive(k: int) -> None:
    gallery = torch.tensor([[3.0, 4]] * 9) * torch.arange(1, 10)[:, None]
    assert exact_neighbors(gallery[:2], gallery, k).ids.tolist() == [list(range(k))] * 2

"""Figures of classification against torchmetrics, scikit-learn and by hand; bootstrap by its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multilabel_average_precision,
)

from swath.evaluation.measures import classification as metrics
from swath.evaluation.measures.intervals import bootstrap_counts, paired_permutation_p, student_interval


def several(count: int = 400, labels: int = 7, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = random.random((count, labels)) < np.linspace(0.02, 0.6, labels)
    scores = np.clip(0.4 * truth + 0.6 * random.random((count, labels)), 0, 1)
    return (np.round(scores, 2) if ties else scores), truth


@pytest.mark.parametrize("ties", [True, False])
@pytest.mark.parametrize("average", ["micro", "macro"])
def test_map_agrees_with_torchmetrics(average: str, ties: bool) -> None:
    scores, truth = several(ties=ties)
    expected = multilabel_average_precision(
        torch.from_numpy(scores), torch.from_numpy(truth).long(), 7, average=average, thresholds=None
    )
    found = (metrics.micro_average_precision if average == "micro" else metrics.macro_average_precision)(
        scores, truth
    )
    assert found[0] == pytest.approx(float(expected), abs=1e-6)


def test_label_that_no_image_has_stays_out_of_the_mean() -> None:
    scores, truth = several()
    truth[:, 2] = False
    by_label = metrics.per_label_average_precision(scores, truth)
    assert np.isnan(by_label[2])
    assert metrics.macro_average_precision(scores, truth)[0] == pytest.approx(np.nanmean(by_label))


def test_f1_agrees_with_scikit_learn() -> None:
    scores, truth = several()
    micro, macro = metrics.f1_scores(scores > 0.5, truth)
    assert micro[0] == pytest.approx(f1_score(truth, scores > 0.5, average="micro"), abs=1e-6)
    assert macro[0] == pytest.approx(f1_score(truth, scores > 0.5, average="macro"), abs=1e-6)


def test_calibration_error_agrees_with_torchmetrics() -> None:
    random = np.random.default_rng(1)
    probabilities = random.dirichlet(np.full(4, 0.7), 500)
    labels = random.integers(0, 4, 500)
    expected = multiclass_calibration_error(
        torch.from_numpy(probabilities), torch.from_numpy(labels), 4, n_bins=15, norm="l1"
    )
    confidence, hits = probabilities.max(1), probabilities.argmax(1) == labels
    assert metrics.calibration_error(confidence, hits)[0] == pytest.approx(float(expected), abs=1e-6)


def test_calibration_error_by_hand() -> None:
    confidence, hits = np.array([0.9, 0.9, 0.6, 0.6]), np.array([1, 1, 0, 1])
    assert metrics.calibration_error(confidence, hits)[0] == pytest.approx((2 * 0.1 + 2 * 0.1) / 4)
    two = metrics.reliability_curve(confidence, hits, bins=2, kind="mass")
    assert [b["images"] for b in two] == [2, 2]
    assert [b["accuracy"] for b in two] == [0.5, 1.0]
    assert (two[0]["low"], two[1]["high"]) == (0.6, 0.9)


def test_equal_confidence_is_one_bin_of_mass() -> None:
    assert len(metrics.reliability_curve(np.full(50, 0.4), np.ones(50), kind="mass")) == 1


def test_figures_of_resamples_are_those_of_the_repeated_images() -> None:
    scores, truth = several(60, 4)
    hits, labels = truth[:, 3], np.arange(60) % 4
    counts = bootstrap_counts(60)[:5]
    for row, drawn in enumerate(np.repeat(np.arange(60), count.astype(int)) for count in counts):
        again = scores[drawn], truth[drawn]
        assert metrics.micro_average_precision(scores, truth, counts)[row] == pytest.approx(
            metrics.micro_average_precision(*again)[0]
        )
        assert metrics.macro_average_precision(scores, truth, counts)[row] == pytest.approx(
            metrics.macro_average_precision(*again)[0]
        )
        f1 = metrics.f1_scores(scores > 0.5, truth, counts), metrics.f1_scores(again[0] > 0.5, again[1])
        assert [f[row] for f in f1[0]] == pytest.approx([f[0] for f in f1[1]])
        recall = metrics.balanced_accuracy(hits[drawn], labels[drawn], 4)[0]
        assert metrics.balanced_accuracy(hits, labels, 4, counts)[row] == pytest.approx(recall)
        error = metrics.calibration_error(scores[:, 0][drawn], hits[drawn])[0]
        assert metrics.calibration_error(scores[:, 0], hits, counts=counts)[row] == pytest.approx(
            error, abs=1e-6
        )


def test_paired_permutation_test_is_mcnemar() -> None:
    from scipy.stats import binomtest

    first, second = np.ones(100), np.ones(100)
    second[:14], first[14:18] = 0, 0  # 14 wins, 4 losses
    assert paired_permutation_p(first, second) == pytest.approx(binomtest(14, 18).pvalue, abs=0.01)
    assert paired_permutation_p(first, first) == 1.0


def test_interval_of_seeds_is_students() -> None:
    from scipy.stats import t

    values = np.array([0.70, 0.74, 0.75, 0.71])
    expected = t.interval(0.95, 3, loc=values.mean(), scale=values.std(ddof=1) / 2)
    assert student_interval(values) == pytest.approx(expected, abs=1e-5)
    many = np.linspace(0, 1, 40)
    scale = many.std(ddof=1) / np.sqrt(40)
    assert student_interval(many) == pytest.approx(t.interval(0.95, 39, loc=0.5, scale=scale), abs=1e-4)

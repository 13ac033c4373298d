"""Bootstrap intervals: right on average, repeatable, sharper when paired."""

from __future__ import annotations

import numpy as np
import pytest

from swath.evaluation.measures.intervals import bootstrap_interval, paired_difference


def test_matches_the_binomial_spread() -> None:
    hits = np.arange(400) < 240
    low, high = bootstrap_interval(hits, resamples=20_000)
    half = 1.96 * np.sqrt(0.6 * 0.4 / 400)
    assert low == pytest.approx(0.6 - half, abs=0.004)
    assert high == pytest.approx(0.6 + half, abs=0.004)


def test_covers_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    inside = 0
    for _ in range(300):
        low, high = bootstrap_interval(random.random(200) < 0.7, resamples=500)
        inside += low <= 0.7 <= high
    assert 0.91 <= inside / 300 <= 0.985


def test_repeats_itself() -> None:
    hits = np.random.default_rng(0).random(100) < 0.5
    assert bootstrap_interval(hits) == bootstrap_interval(hits)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_no_doubt_where_all_are_alike(value: float) -> None:
    assert bootstrap_interval(np.full(50, value)) == (value, value)


def test_images_are_drawn_whole_over_scales() -> None:
    """Four copies of one score carry no more information than one."""
    hits = (np.random.default_rng(0).random(200) < 0.5).astype(float)
    assert bootstrap_interval(np.stack([hits] * 4, axis=1)) == pytest.approx(bootstrap_interval(hits))


def test_pairing_sees_what_two_intervals_do_not() -> None:
    random = np.random.default_rng(0)
    first = random.random(500) < 0.6
    second = first.copy()
    second[np.flatnonzero(first)[:15]] = False  # the same images right, but for 15
    difference, low, high = paired_difference(first, second)
    assert difference == pytest.approx(0.03)
    assert 0 < low < 0.03 < high
    assert bootstrap_interval(first)[0] < bootstrap_interval(second)[1], "the intervals themselves overlap"


def test_nothing_is_no_sample() -> None:
    with pytest.raises(ValueError, match="no images"):
        bootstrap_interval([])

"""Simulated pairs are a paired data set like any other; change pairs know what has changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from swath.datasets.collation import collate
from swath.datasets.protocol import ImageDataset, PairedDataset
from swath.errors import ImageryError
from swath.simulated import (
    CHANGES,
    CLASSES,
    SENSORS,
    SimulatedPairs,
    simulate_change,
    simulate_landscape,
    simulate_pair,
)

S1, S2 = SENSORS


@pytest.fixture(scope="module")
def pairs() -> SimulatedPairs:
    return SimulatedPairs(splits={"train": 8, "test": 4}, seed=3, size=48)


def test_they_keep_the_promise_of_paired_data_sets(pairs: SimulatedPairs) -> None:
    assert isinstance(pairs, PairedDataset)
    assert isinstance(pairs.only(S1), ImageDataset)
    assert len(pairs) == 12
    assert pairs.classes == list(CLASSES)
    assert isinstance(pairs.labels, np.ndarray)
    assert pairs.labels.shape == (12, len(CLASSES))
    assert pairs.labels.dtype == np.float32
    assert len(set(pairs.groups or [])) == 12
    batch = pairs.get_batch([3, 1])
    alone = collate([pairs[3], pairs[1]])
    for name in SENSORS:
        assert torch.equal(batch["sensors"][name]["image"], alone["sensors"][name]["image"])
    assert torch.equal(batch["label"], alone["label"])
    assert torch.equal(batch["key"], batch["sensors"][S1]["key"])
    assert len(pairs.select(split="test")) == 4
    assert torch.equal(
        pairs.select(split="test")[0]["sensors"][S2]["image"], pairs[8]["sensors"][S2]["image"]
    )


def test_cached_recomputed_and_single_places_are_the_same(pairs: SimulatedPairs) -> None:
    again = SimulatedPairs(12, seed=3, size=48, cache="none")
    assert np.array_equal(again.labels, pairs.labels)  # type: ignore[arg-type]
    for index in (0, 7, 11):
        chips = simulate_pair(3, index, size=48)
        for name in SENSORS:
            image = pairs[index]["sensors"][name]["image"]
            assert torch.equal(image, again[index]["sensors"][name]["image"])
            assert np.array_equal(image.numpy(), chips[name].image)
    assert np.array_equal(pairs.labels[5], simulate_landscape(3, 5, size=48).labels)  # type: ignore[index]


def test_ranges_of_a_series_continue_each_other(pairs: SimulatedPairs) -> None:
    later = SimulatedPairs(2, seed=3, size=48, first=8)
    assert later.paths == pairs.paths[8:10]
    assert torch.equal(later[1]["sensors"][S1]["image"], pairs[9]["sensors"][S1]["image"])
    assert later.landscape(1).index == 9


def test_sensors_may_have_their_own_gsd() -> None:
    gsd = {"sentinel1_grd": 10.0, "rgb_aerial": 2.5}
    pairs = SimulatedPairs(3, sensors=list(gsd), gsd=gsd, size=30)
    inner = pairs[0]["sensors"]
    assert inner["sentinel1_grd"]["image"].shape == (2, 30, 30)
    assert inner["rgb_aerial"]["image"].shape == (3, 120, 120)
    assert inner["rgb_aerial"]["image"].dtype == torch.uint8
    assert inner["rgb_aerial"]["gsd"] == 2.5
    assert inner["rgb_aerial"]["key"] == inner["sentinel1_grd"]["key"]


def test_progress_is_told() -> None:
    summary: list[tuple[int, int]] = []
    SimulatedPairs(3, size=8, progress=lambda done, total: summary.append((done, total)))
    assert summary == [(1, 3), (2, 3), (3, 3)]


def test_wrong_counts_are_refused() -> None:
    with pytest.raises(ImageryError, match="say how many places"):
        SimulatedPairs()
    with pytest.raises(ImageryError, match="are 3 places"):
        SimulatedPairs(4, splits={"train": 3})
    with pytest.raises(ImageryError, match="Did you mean 'memory'"):
        SimulatedPairs(1, cache="memry")  # type: ignore[arg-type]


def test_means_alone_do_not_give_the_labels_away() -> None:
    """Nearest neighbors by the mean of each band find far fewer of the labels than there are to find."""
    pairs = SimulatedPairs(300, seed=9, size=60)
    labels = np.asarray(pairs.labels) > 0
    for name, most in ((S1, 0.66), (S2, 0.74)):
        image = pairs.get_batch(range(300))["sensors"][name]["image"]
        means = image.mean(dim=(2, 3)).numpy()
        means = (means - means.mean(0)) / means.std(0)
        distance = np.linalg.norm(means[240:, None] - means[None, :240], axis=2)
        score = labels[:240][np.argsort(distance, axis=1)[:, :15]].mean(axis=1)
        precision = []
        for k in range(len(CLASSES)):
            hits = labels[240:, k][np.argsort(-score[:, k], kind="stable")]
            precision.append((np.cumsum(hits) / np.arange(1, 61))[hits].mean())
        assert np.mean(precision) < most, name
        assert np.mean(precision) > labels.mean() + 0.05, name  # it does see something


# ---- change


def test_change_is_reproducible_and_begins_with_the_plain_landscape() -> None:
    first, again = simulate_change(2, 1), simulate_change(2, 1)
    assert np.array_equal(first.mask, again.mask)
    for name in SENSORS:
        assert np.array_equal(first.after[name].image, again.after[name].image)
    assert np.array_equal(first.before[S2].image, simulate_pair(2, 1)[S2].image)


def test_masks_are_where_the_land_cover_differs() -> None:
    found = np.zeros(len(CHANGES))
    unchanged = 0
    for index in range(30):
        change = simulate_change(6, index, size=80)
        before, after = change.before_landscape.mask, change.after_landscape.mask
        assert change.mask.shape == before.shape
        assert not change.mask[before == after].any()
        became = {1: {"settlement", "industry"}, 2: {"bare ground"}, 3: {"water"}}
        for kind, classes in became.items():
            assert {CLASSES[k] for k in np.unique(after[change.mask == kind])} <= classes
        # All that differs is one of the stated kinds, but for pixels where three classes meet.
        assert ((before != after) == (change.mask > 0)).mean() > 0.99
        found += [(change.mask == kind).any() for kind in range(len(CHANGES))]
        unchanged += not change.mask.any()
    assert found[1:].min() >= 3, found
    assert 3 <= unchanged <= 15


def test_crops_and_weather_change_without_being_change() -> None:
    for index in range(20):
        change = simulate_change(6, index)
        if not change.mask.any():
            break
    fields = change.before_landscape.mask == CLASSES.index("arable land")
    other = np.abs(change.after[S2].image - change.before[S2].image).mean(axis=0)
    assert np.array_equal(change.before_landscape.cells, change.after_landscape.cells)
    assert other.mean() > 0.01
    assert fields.shape == other.shape
    assert not np.array_equal(change.before[S1].image, change.after[S1].image)

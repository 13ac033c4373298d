"""Retrieval in every direction: scores that are known beforehand, centering, splits, and bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.drawn_pairs import CLASSES, S1, S2, ByFunction, DrawnPairs, draw_pairs
from swath.encoders.vit import ViT
from swath.errors import ContractError, ImageryError, SwathError
from swath.evaluation.measures.retrieval import exact_neighbors
from swath.evaluation.retrieval.features import RetrievalModel, retrieval_baselines, retrieval_model
from swath.evaluation.retrieval.protocol import evaluate_retrieval, modality_gaps
from swath.evaluation.retrieval.results import MIXED
from swath.evaluation.retrieval.splits import split_retrieval
from swath.models import Contract, Model


def level(batch: Any) -> Tensor:
    """[B, 6]: the class of a place as a direction that both sensors agree on, and a little noise."""
    image = batch["image"].mean(dim=(1, 2, 3))
    fraction = (image + 22) / 14 if batch["sensor"] == S1 else (image - 0.05) / 0.4
    bumps = torch.exp(-(((fraction[:, None] - torch.linspace(0, 1, 6)) / 0.15) ** 2))
    return bumps + 0.1 * batch["image"][:, 0, 0, :6] / batch["image"][:, 0, 0, :6].norm(dim=1, keepdim=True)


def with_offset(batch: Any) -> Tensor:
    """The same, moved far away in one sensor: same-sensor images are always nearest."""
    return level(batch) + (torch.tensor([0.0, 40, 70, 0, 0, 10]) if batch["sensor"] == S1 else 0)


def candidate(name: str, function: Any, sensors: tuple[str, ...] = (S1, S2)) -> RetrievalModel:
    return RetrievalModel(name, {sensor: ByFunction(name, function) for sensor in sensors})


@pytest.fixture(scope="module")
def pairs() -> DrawnPairs:
    return draw_pairs(150)


@pytest.fixture(scope="module")
def tiny() -> Model:
    torch.manual_seed(0)
    encoder = ViT({S1: 2, S2: 12}, patch_size=8, embed_dim=24, depth=1, heads=2)
    return Model(encoder, Contract.of(S1, S2), name="tiny")


def test_a_shared_space_is_found_in_every_direction(pairs: DrawnPairs) -> None:
    found = evaluate_retrieval([candidate("level", level)], split_retrieval(pairs), k=5, resamples=200)
    assert found.protocol["queries"] == {"name": "val", "places": 50}
    assert found.protocol["gallery"] == {"name": "test", "places": 50}
    for query_sensor in (S1, S2):
        for gallery_sensor in (S1, S2, MIXED):
            score = found.get("level", query_sensor, gallery_sensor, False)
            assert score.values["f1"] == pytest.approx(1)
            assert score.intervals["f1"][0] <= 1.0 + 1e-12
            assert found.get("chance", query_sensor, gallery_sensor, True).values["f1"] < 0.5
    assert found.get("level", S1, S1, False).same_sensor is None
    assert 0.2 < (found.get("level", S1, MIXED, True).same_sensor or 0) < 0.8
    (raw, _) = found.gaps
    assert (raw.first, raw.second, raw.centered) == (S1, S2, False)
    assert raw.closed
    rows = found.classes[S1, S2, False]
    assert [row.name for row in rows] == list(CLASSES)
    assert all(row.class_precision > 0.99 > row.chance for row in rows)


def test_centering_makes_a_constant_offset_of_a_sensor_vanish(pairs: DrawnPairs) -> None:
    split = split_retrieval(pairs)
    plain = evaluate_retrieval([candidate("x", level)], split, k=5, resamples=10)
    moved = evaluate_retrieval([candidate("x", with_offset)], split, k=5, resamples=10)
    for query_sensor in (S1, S2):
        for gallery_sensor in (S1, S2, MIXED):
            one, other = (e.get("x", query_sensor, gallery_sensor, True) for e in (plain, moved))
            assert one.values == pytest.approx(other.values, abs=1e-4)
    # As they are, the offset parts the sensors: all answers are of the query's own.
    raw = moved.get("x", S1, MIXED, False)
    assert raw.same_sensor == 1.0
    assert moved.get("x", S1, MIXED, True).same_sensor < 0.9
    gaps = {gap.centered: gap for gap in moved.gaps}
    assert not gaps[False].closed
    assert gaps[True].closed
    assert gaps[True].distance < 0.3 < gaps[False].distance


def test_shuffled_labels_score_at_chance() -> None:
    pairs = draw_pairs(900)
    pairs.labels = np.random.default_rng(0).permutation(pairs.labels)
    pairs.groups = None
    found = evaluate_retrieval([candidate("level", level)], split_retrieval(pairs), k=10)
    for score in found.scores:
        if score.features == "level" and score.gallery_sensor != MIXED:
            expected = found.get("chance", score.query_sensor, score.gallery_sensor, False).values["f1"]
            assert abs(score.values["f1"] - expected) < 0.06


def test_features_of_different_dimensions_are_not_compared(pairs: DrawnPairs) -> None:
    split = split_retrieval(pairs)
    found = evaluate_retrieval(
        [candidate("level", level), *retrieval_baselines([S1, S2])], split, k=5, resamples=50
    )
    assert found.candidates == ["level", "image statistics", "RCF"]
    statistics = found.get("image statistics", S1, S2, False)
    assert statistics.values == {}
    assert statistics.reason == (
        "not comparable: features of different dimensions (sentinel1_grd 4, sentinel2_l2a 24)"
    )
    assert found.get("image statistics", S1, MIXED, True).scores is None
    assert found.get("image statistics", S2, S2, False).values["f1"] > 0.8
    assert found.get("RCF", S1, S2, False).values["f1"] > 0  # one dimension: computed, whatever it means
    assert found.compare("level", "image statistics", S1, S2) is None
    gap = found.compare("level", "RCF", S1, S2)
    assert gap is not None
    assert gap["ci95_low"] <= gap["f1_difference"] <= gap["ci95_high"]
    assert {gap.features for gap in found.gaps} == {"level", "RCF"}


def test_every_image_is_embedded_once_and_baselines_see_the_archive_only(pairs: DrawnPairs) -> None:
    one = candidate("level", level)
    done: list[tuple[int, int]] = []
    evaluate_retrieval([one], split_retrieval(pairs), k=3, resamples=5, progress=lambda *at: done.append(at))
    for extractor in one.by_sensor.values():
        assert isinstance(extractor, ByFunction)
        assert extractor.images == 100  # val and test, not train
        assert extractor.fitted == ["gallery 50 16"]
    assert done[-1] == (200, 200)


def test_several_labels_a_place() -> None:
    split = split_retrieval(draw_pairs(120, several=True))
    found = evaluate_retrieval([candidate("level", level)], split, k=5, resamples=20)
    values = found.get("level", S2, S1, False).values
    assert values["hits"] > 0.95
    assert 0.6 < values["f1"] < 1
    assert values["pair_f1"] != pytest.approx(values["f1"], abs=1e-6)


def test_a_model_of_two_sensors(tiny: Model, pairs: DrawnPairs) -> None:
    found = evaluate_retrieval(
        [retrieval_model(tiny, [S1, S2]), *retrieval_baselines([S1, S2], tiny)],
        split_retrieval(pairs),
        k=5,
        resamples=20,
    )
    assert found.candidates[0] == "tiny"
    assert "random init" not in found.candidates  # a model that was never saved does not know its encoder
    assert found.get("tiny", S2, S2, True).values["f1"] > 0.5
    assert found.features[S1].shape == (50, 24)
    assert found.config_hash == found.config_hash


def test_images_that_are_no_multiple_of_the_patch_are_resized_with_a_note(tiny: Model) -> None:
    found = evaluate_retrieval(
        [retrieval_model(tiny, [S1, S2])], split_retrieval(draw_pairs(60, image_size=20)), k=2, resamples=5
    )
    assert any("20 x 20 px area-resized to 16 x 16 (patches of 8 px)" in note for note in found.notes)


def test_a_place_that_cannot_be_read_in_one_sensor_is_left_out_in_all() -> None:
    pairs = draw_pairs(90, unreadable=[1, 2])  # a query and a place of the archive
    found = evaluate_retrieval([candidate("level", level)], split_retrieval(pairs), k=5, resamples=5)
    assert (len(found.queries), len(found.gallery)) == (29, 29)
    assert 1 not in found.queries
    assert any("2 of 60 places are left out" in note for note in found.notes)
    assert found.get("level", S1, S2, False).values["f1"] == pytest.approx(1)


def test_queries_that_are_in_the_archive_do_not_see_their_own_group(pairs: DrawnPairs) -> None:
    split = split_retrieval(pairs, query_split="all", gallery_split="all")
    found = evaluate_retrieval([candidate("level", level)], split, k=5, resamples=5)
    groups = np.array(pairs.groups)
    for gallery_sensor in (S1, MIXED):
        neighbors = found.get("level", S1, gallery_sensor, False).neighbors
        assert neighbors is not None
        answered = groups[neighbors.numpy() % len(pairs)]
        assert not (answered == groups[:, None]).any()


def test_three_sensors_make_nine_directions_and_three_gaps() -> None:
    pairs = draw_pairs(60)
    third = "sentinel2_l1c"
    pairs = DrawnPairs(
        {**pairs.images, third: pairs.images[S2][:, [*range(12), 11]]},
        pairs.labels,
        splits=pairs.splits,
        groups=pairs.groups,
    )
    found = evaluate_retrieval(
        [candidate("level", level, (S1, S2, third))], split_retrieval(pairs), k=4, resamples=5
    )
    own = [score for score in found.scores if score.features == "level" and not score.centered]
    assert len(own) == 3 * (3 + 1)
    assert len(found.gaps) == 2 * 3
    for score in own:
        assert score.values["f1"] > 0.9
        if score.gallery_sensor == MIXED:
            assert score.neighbors is not None
            assert int(score.neighbors.max()) < 3 * len(found.gallery)


def test_the_mixed_archive_is_searched_as_one(pairs: DrawnPairs) -> None:
    split = split_retrieval(pairs)
    found = evaluate_retrieval([candidate("level", level)], split, k=6, resamples=5)
    views = [level(pairs.only(sensor).get_batch(found.gallery)) for sensor in (S1, S2)]
    queries = level(pairs.only(S2).get_batch(found.queries))
    together = exact_neighbors(queries, torch.cat(views), 6)
    assert torch.equal(found.get("level", S2, MIXED, False).neighbors, together.ids)  # type: ignore[arg-type]


def test_gaps_are_exact_means_over_all_pairs() -> None:
    random = torch.Generator().manual_seed(0)
    a, b = (torch.randn(7, 5, generator=random, dtype=torch.float64) for _ in range(2))
    (gap,) = modality_gaps("x", False, {"a": a, "b": b})
    u, v = (t / t.norm(dim=1, keepdim=True) for t in (a, b))
    off = ~torch.eye(7, dtype=torch.bool)
    assert gap.pairs == pytest.approx(float((u @ v.T).diagonal().mean()))
    assert gap.across == pytest.approx(float((u @ v.T)[off].mean()))
    assert gap.within_first == pytest.approx(float((u @ u.T)[off].mean()))
    assert gap.within_second == pytest.approx(float((v @ v.T)[off].mean()))


# --- who asks whom ----------------------------------------------------------------------------------------


def test_groups_are_divided_whole_where_there_are_no_folds() -> None:
    pairs = draw_pairs(100, splits=None)
    split = split_retrieval(pairs, fraction=0.3, seed=1)
    query_sensor, gallery_sensor = set(split.groups(split.queries)), set(split.groups(split.gallery))
    assert not query_sensor & gallery_sensor
    assert len(split.queries) + len(split.gallery) == 100
    assert split.hash == split_retrieval(pairs, fraction=0.3, seed=1).hash
    assert split.hash != split_retrieval(pairs, fraction=0.3, seed=2).hash


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (
            {},
            {"query_split": "vall"},
            r"no place is of split 'vall' \(queries\); the splits are test \(20\), train",
        ),
        ({}, {"gallery_split": "holdout"}, r"split 'holdout' \(gallery\)"),
        ({}, {"query_split": "all"}, "share places"),
        ({"splits": None}, {"query_split": "val"}, "there are no splits, so no queries 'val'"),
        ({"splits": None, "groups": None}, {}, "neither splits nor groups"),
        ({"splits": None, "groups": ["one"] * 60}, {}, "all places are of one group"),
        ({"groups": ["one"] * 60}, {}, r"1 groups .* stand on both sides .*--allow-overlap"),
        (
            {"groups": ["one"] * 60},
            {"query_split": "all", "gallery_split": "all"},
            "nothing is left to answer",
        ),
    ],
)
def test_folds_that_do_not_do(make: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageryError, match=words):
        split_retrieval(draw_pairs(60, **make), **options)


def test_overlap_is_allowed_with_a_note() -> None:
    split = split_retrieval(draw_pairs(60, groups=["one"] * 60), allow_overlap=True)
    assert any(note.startswith("leak: 1 groups") for note in split.notes)
    bare = split_retrieval(draw_pairs(60, splits=None, groups=None), allow_overlap=True)
    assert any("no groups are known" in note for note in bare.notes)


def test_data_without_labels_or_with_one_sensor_is_refused() -> None:
    pairs = draw_pairs(60)
    with pytest.raises(ImageryError, match="these pairs have no labels"):
        split_retrieval(DrawnPairs(pairs.images))
    with pytest.raises(ImageryError, match="seen by sentinel1_grd only"):
        split_retrieval(DrawnPairs({S1: pairs.images[S1]}, pairs.labels))
    labels = np.eye(4, dtype=np.float32)[pairs.labels]
    labels[7] = 0
    with pytest.raises(SwathError, match=r"1 of 60 places have no label \(first: number 7\)"):
        split_retrieval(DrawnPairs(pairs.images, labels))


def test_what_cannot_be_scored_is_refused(tiny: Model, pairs: DrawnPairs) -> None:
    split = split_retrieval(pairs)
    with pytest.raises(SwathError, match="k = 51 answers cannot be had of an archive of 50 places"):
        evaluate_retrieval([candidate("level", level)], split, k=51)
    with pytest.raises(SwathError, match="has no features of sensor sentinel2_l2a"):
        evaluate_retrieval([candidate("level", level, (S1,))], split)
    with pytest.raises(SwathError, match="names that differ"):
        evaluate_retrieval([candidate("x", level), candidate("x", level)], split)
    with pytest.raises(ContractError, match="landsat"):
        retrieval_model(tiny, [S1, "landsat89_l2"])

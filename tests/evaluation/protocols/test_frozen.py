"""The protocols: scores known beforehand, fakes that are caught, and all that a figure depends on."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.eval_scenes import Fake, color, constant, many, rich_noise
from swath.encoders import create_model
from swath.errors import SwathError
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.features.baselines import ImageStatistics
from swath.evaluation.features.model import ModelFeatureExtractor
from swath.evaluation.protocols.frozen import (
    default_image_sizes,
    evaluate_knn,
    evaluate_linear,
    extract_split_features,
)
from swath.models import Contract, Model


def test_easy_classes_are_told_apart(split: TrainTestSplit) -> None:
    evaluation = evaluate_knn([Fake("color", color)], split, image_sizes=[16, 32], k=5)
    assert evaluation.mean("color", "knn-standardized").accuracy > 0.9
    assert evaluate_linear([Fake("color", color)], split, c=1.0).scores[0].accuracy > 0.9


@pytest.mark.parametrize("evaluate", [evaluate_knn, evaluate_linear])
def test_constant_encoder_is_at_chance(evaluate: object) -> None:
    evaluation = evaluate([Fake("constant", constant)], many(), image_sizes=[8])  # type: ignore[operator]
    for score in evaluation.scores:
        assert score.accuracy == pytest.approx(0.2, abs=1e-9), "one class for all"


@pytest.mark.parametrize("evaluate", [evaluate_knn, evaluate_linear])
def test_features_that_know_no_class_are_at_chance(evaluate: object) -> None:
    evaluation = evaluate([Fake("noise", rich_noise)], many(), image_sizes=[8])  # type: ignore[operator]
    for score in evaluation.scores:
        assert score.accuracy == pytest.approx(0.2, abs=0.05)
        assert score.low < 0.2 < score.high


def test_shuffled_labels_are_at_chance_and_leaks_are_not(split: TrainTestSplit) -> None:
    """Labels without meaning cannot be learned; but a query that is in the bank too is recognized by them."""
    honest = many(1200, 600)
    shuffled = np.random.default_rng(0).permutation(honest.train.dataset.labels)
    honest.train.dataset.labels = shuffled  # type: ignore[misc]
    leaky = replace(honest, train=EvalSubset(honest.train.dataset, np.arange(1800), "train"))
    fake = Fake("noise", rich_noise)
    assert evaluate_knn([fake], honest, image_sizes=[8]).scores[0].accuracy == pytest.approx(0.2, abs=0.06)
    assert evaluate_knn([fake], leaky, image_sizes=[8]).scores[0].accuracy > 0.9


def test_bank_of_asymmetric_scores_is_at_the_largest_side(split: TrainTestSplit) -> None:
    def side_only(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """The class at full side, the opposite class when reduced."""
        sign = 1.0 if batch["image"].shape[-1] == 32 else -1.0
        return sign * (batch["image"].float().flatten(1).mean(1, keepdim=True) - 110)

    evaluation = evaluate_knn([Fake("sign", side_only)], split, image_sizes=[16, 32], k=3, standardize=False)
    pairs = [(s.test_image_size, s.train_image_size) for s in evaluation.scores]
    assert pairs == [(16, 16), (32, 32), (16, 32)]
    same, full, reduced = (s.accuracy for s in evaluation.scores)
    assert same == full
    assert reduced < full


def test_more_neighbors_than_images_are_refused_before_anything_is_computed(split: TrainTestSplit) -> None:
    fake = Fake("color", color)
    with pytest.raises(SwathError, match="k = 49 neighbors cannot be had of a bank of 48 images"):
        evaluate_knn([fake], split, image_sizes=[16], k=49)
    assert fake.image_sizes == set()


def test_symmetric_only(split: TrainTestSplit) -> None:
    evaluation = evaluate_knn([Fake("c", color)], split, image_sizes=[16, 32], k=3, asymmetric=False)
    assert {(s.test_image_size, s.train_image_size) for s in evaluation.scores} == {(16, 16), (32, 32)}


def test_baselines_are_fitted_on_the_bank_at_the_largest_side(split: TrainTestSplit) -> None:
    fake = Fake("c", color)
    evaluate_knn([fake], split, image_sizes=[16, 32], k=3)
    assert fake.fitted_on == [("train", 32)]


# ---- sides


@pytest.mark.parametrize(
    ("native", "step", "expected"),
    [(256, 16, [32, 64, 128, 256]), (64, 16, [16, 32, 64]), (500, 16, [64, 128, 256, 496]), (8, 16, [16])],
)
def test_default_sides(native: int, step: int, expected: list[int]) -> None:
    assert default_image_sizes(native, step) == expected


def test_side_that_does_not_fit_is_refused_and_the_others_scored(split: TrainTestSplit) -> None:
    evaluation = evaluate_knn([Fake("vit", color, min_image_size=16)], split, image_sizes=[8, 16, 32], k=3)
    assert evaluation.protocol["image_sizes"] == [16, 32]
    assert evaluation.notes == ["scale refused: 8 px is less than one patch of vit (16 px)"]
    with pytest.raises(SwathError, match="no image scale is left: 8 px is less than one patch"):
        evaluate_knn([Fake("vit", color, min_image_size=16)], split, image_sizes=[8], k=3)


def test_enlarging_is_noted(split: TrainTestSplit) -> None:
    evaluation = evaluate_knn([Fake("c", color)], split, image_sizes=[32, 64], k=3)
    assert evaluation.notes == ["images of 32 px were enlarged (pixels repeated) to [64] px"]


def test_scale_that_training_never_saw_becomes_a_note(split: TrainTestSplit) -> None:
    torch.manual_seed(0)
    encoder = create_model("vit_micro_patch8", bands=3, embed_dim=24, depth=1, heads=2)
    model = Model(encoder, Contract.of("rgb_aerial", gsd_range=(0.4, 0.6)), name="tiny")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = evaluate_knn([ModelFeatureExtractor(model)], split, image_sizes=[16, 32], k=3)
    assert "GSD 1 m lie outside" in evaluation.notes[0]


# ---- what a figure depends on


def test_protocol_says_everything_and_is_plain_data(split: TrainTestSplit) -> None:
    evaluation = evaluate_knn([ImageStatistics()], split, image_sizes=[32], k=3)
    protocol = json.loads(json.dumps(evaluation.protocol))
    assert protocol["id"] == "swath.knn/1"
    assert protocol["split_hash"] == split.hash
    assert protocol["train"] == {"name": "train", "images": 48}
    assert protocol["test"] == {"name": "val", "images": 20}
    assert protocol["chance"] == 0.25
    assert protocol["feature_extractors"] == {"image statistics": {"baseline": "mean and std of each band"}}
    assert evaluation.native_image_size == 32
    assert evaluation.native_gsd == pytest.approx(0.5)


def test_config_hash_changes_with_the_settings_alone(split: TrainTestSplit) -> None:
    def digest(**settings: object) -> str:
        return evaluate_knn([ImageStatistics()], split, image_sizes=[32], **{"k": 3, **settings}).config_hash  # type: ignore[arg-type]

    assert digest() == digest() == digest(batch_size=7)
    assert len({digest(), digest(k=4), digest(temperature=0.1)}) == 3


def test_names_must_differ(split: TrainTestSplit) -> None:
    with pytest.raises(SwathError, match="names that differ"):
        evaluate_knn([Fake("c", color), Fake("c", constant)], split)


def test_means_and_comparisons_are_paired_over_symmetric_scales(split: TrainTestSplit) -> None:
    evaluation = evaluate_knn(
        [Fake("color", color), Fake("constant", constant)], split, image_sizes=[16, 32], k=3
    )
    mean = evaluation.mean("color", "knn")
    scores = evaluation.select("knn", "color", symmetric=True)
    assert mean.accuracy == pytest.approx(np.mean([s.accuracy for s in scores]))
    assert mean.low <= mean.accuracy <= mean.high
    gaps = evaluation.comparisons()
    assert [(g.baseline, g.classifier) for g in gaps] == [
        ("constant", "knn"),
        ("constant", "knn-standardized"),
    ]
    assert gaps[0].difference == pytest.approx(mean.accuracy - evaluation.mean("constant", "knn").accuracy)
    assert gaps[0].low > 0


def test_linear_default_is_the_native_side(split: TrainTestSplit) -> None:
    evaluation = evaluate_linear([Fake("vit", color, min_image_size=16)], split)
    assert [(s.test_image_size, s.classifier) for s in evaluation.scores] == [(32, "linear")]


def test_protocols_may_share_features(split: TrainTestSplit) -> None:
    extractors = [Fake("color", color), Fake("constant", constant)]
    extracted = extract_split_features(extractors, split, [8, 32])
    for extractor in extractors:
        extractor._function = None  # nothing is extracted again
    shared = evaluate_knn(extractors, split, image_sizes=[8, 32], k=3, extracted=extracted)
    linear = evaluate_linear(extractors, split, image_sizes=[32], extracted=extracted)
    afresh = [Fake("color", color), Fake("constant", constant)]
    alone = evaluate_knn(afresh, split, image_sizes=[8, 32], k=3)
    assert [s.accuracy for s in shared.scores] == [s.accuracy for s in alone.scores]
    assert shared.config_hash == alone.config_hash
    assert linear.scores[0].accuracy == evaluate_linear(afresh, split, image_sizes=[32]).scores[0].accuracy
    with pytest.raises(SwathError, match=r"lack color at 16 px"):
        evaluate_knn(extractors, split, image_sizes=[16], extracted=extracted)


def test_scale_mae_is_an_exact_special_case(split: TrainTestSplit) -> None:
    """Against the published protocol written down plainly: theirs step by step, none of our machinery."""
    torch.manual_seed(0)
    encoder = create_model("vit_micro_patch8", bands=3, embed_dim=24, depth=2, heads=2)
    model = Model(encoder, Contract.of("rgb_aerial", reference_gsd=10.0), name="tiny")
    evaluation = evaluate_knn(
        [ModelFeatureExtractor.scale_mae(model)],
        split,
        image_sizes=[16, 32],
        asymmetric=False,
        standardize=False,
        protocol="scale_mae",
    )
    images = {
        part.name: part.dataset.get_batch(part.indices)["image"].double()
        for part in (split.train, split.test)
    }
    mean = images["train"].mean(dim=(0, 2, 3), keepdim=True)
    std = images["train"].std(dim=(0, 2, 3), keepdim=True, correction=0)
    for score in evaluation.scores:
        image_size = score.test_image_size
        features = {}
        for name, image in images.items():
            small = torch.nn.functional.interpolate(
                (image - mean) / std, size=(image_size, image_size), mode="area"
            ).float()
            with torch.inference_mode():
                cls = encoder(small, torch.full((len(small),), 224 / image_size), "rgb_aerial").cls
            features[name] = torch.nn.functional.normalize(cls.double(), dim=1).numpy()
        votes = np.zeros((len(features["val"]), 4))
        for i, query in enumerate(features["val"]):
            similar = features["train"] @ query
            for j in np.argsort(-similar)[:20]:
                votes[i, split.train.labels[j]] += np.exp(similar[j] / 0.07)
        votes /= votes.sum(axis=1, keepdims=True)
        assert score.predictions is not None
        assert score.confidence is not None
        np.testing.assert_allclose(score.confidence, votes.max(axis=1), atol=1e-4)
        assert score.value == pytest.approx(float((votes.argmax(1) == split.test.labels).mean()))
    assert evaluation.protocol["id"] == "scale_mae"

"""Ways to fool oneself, each made on purpose: labels without meaning, features without content, leaks.

Each test would fail if the evaluation were fooled, and each has a control that shows that it can succeed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from helpers.eval_scenes import Fake, Labeled, constant, many, rich_noise
from swath.errors import ImageryError
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.data.subset import EvalSubset
from swath.evaluation.protocols.fewshot import evaluate_fewshot
from swath.evaluation.protocols.frozen import evaluate_knn, evaluate_linear
from swath.evaluation.protocols.results import EvaluationResult
from swath.evaluation.protocols.scoring import restrict_evaluation


def knows_class(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Features that tell classes apart (the label is the index modulo 5), with some noise."""
    return rich_noise(batch) + 3 * torch.nn.functional.one_hot(batch["index"] % 5, 32)


def few(extractors: Any, split: TrainTestSplit, **options: Any) -> EvaluationResult:
    return evaluate_fewshot(extractors, split, shots=[20], repeats=3, classifiers=["centroid"], **options)


def fixed(extractors: Any, split: TrainTestSplit, **options: Any) -> EvaluationResult:
    return evaluate_linear(extractors, split, c=0.1, **options)


PROTOCOLS = [evaluate_knn, fixed, few]


def shuffled(split: TrainTestSplit) -> TrainTestSplit:
    dataset: Any = split.train.dataset
    dataset.labels = np.random.default_rng(0).permutation(dataset.labels)
    return split


@pytest.mark.parametrize("evaluate", PROTOCOLS)
def test_shuffled_labels_are_at_chance(evaluate: Callable[..., EvaluationResult]) -> None:
    honest = evaluate([Fake("f", knows_class)], many(600, 500), image_sizes=[8])
    fake = evaluate([Fake("f", knows_class)], shuffled(many(600, 500)), image_sizes=[8])
    for score in honest.scores:
        assert score.value > 0.7, "the control: these features do tell classes apart"
    for score in fake.scores:
        assert score.value == pytest.approx(0.2, abs=0.06)
        assert score.low < fake.protocol["chance"] + 0.03


@pytest.mark.parametrize("evaluate", PROTOCOLS)
def test_constant_encoder_is_at_chance_and_says_so(evaluate: Callable[..., EvaluationResult]) -> None:
    evaluation = evaluate([Fake("constant", constant)], many(600, 500), image_sizes=[8])
    for score in evaluation.scores:
        assert score.value == pytest.approx(0.2, abs=1e-9), "one class for all"
        if score.figures:
            assert score.figures["balanced"].value == pytest.approx(0.2)


def test_penalty_chosen_on_shuffled_labels_finds_nothing() -> None:
    evaluation = evaluate_linear([Fake("f", knows_class)], shuffled(many(400, 500)), image_sizes=[8])
    assert evaluation.scores[0].value == pytest.approx(0.2, abs=0.06)


def test_training_images_among_the_queries_inflate_and_are_caught() -> None:
    """Of features that know no class, only images that were seen before can be recognized."""
    honest = shuffled(many(400, 400))
    dataset = honest.train.dataset
    leaky = replace(
        honest, train=EvalSubset(dataset, np.arange(600), "train")
    )  # half of the queries are in it
    clean = evaluate_knn([Fake("noise", rich_noise)], honest, image_sizes=[8])
    fooled = evaluate_knn([Fake("noise", rich_noise)], leaky, image_sizes=[8])
    assert not [note for note in clean.notes if note.startswith("leak")]
    assert [
        note for note in fooled.notes if note.startswith("leak: 200 of the 400 queries are in the bank too")
    ]
    assert fooled.scores[0].value > clean.scores[0].value + 0.25, "inflated"
    rest = restrict_evaluation(
        fooled, ~np.isin(leaky.test.indices, leaky.train.indices), "without images of the bank"
    )
    assert rest.scores[0].value == pytest.approx(0.2, abs=0.07), "without them: chance again"
    assert len(rest.labels) == len(rest.paths) == len(rest.scores[0].hits) == 200
    assert rest.config_hash != fooled.config_hash


def test_part_of_the_queries_is_scored_as_if_alone() -> None:
    split = many(400, 300)
    keep = np.arange(300) % 3 == 0
    part = TrainTestSplit(
        split.train, EvalSubset(split.test.dataset, split.test.indices[keep], "val"), "drawn"
    )
    whole, alone = (evaluate_knn([Fake("f", knows_class)], s, image_sizes=[8]) for s in (split, part))
    for found, expected in zip(restrict_evaluation(whole, keep, "a third").scores, alone.scores, strict=True):
        assert found.value == expected.value
        assert (found.low, found.high) == (expected.low, expected.high)
        assert found.figures == expected.figures


# ---- several labels


class SeveralLabels(Labeled):
    """Images of four labels, each with its own chance."""

    def __init__(self, count: int) -> None:
        super().__init__(count, 4)
        chance = np.array([0.1, 0.3, 0.5, 0.6])
        self.labels = (np.random.default_rng(0).random((count, 4)) < chance).astype(np.float32)  # type: ignore[assignment]


def several() -> tuple[TrainTestSplit, Callable[[Any], torch.Tensor]]:
    dataset: Any = SeveralLabels(700)
    split = TrainTestSplit(
        EvalSubset(dataset, np.arange(400), "train"), EvalSubset(dataset, np.arange(400, 700), "val"), "drawn"
    )

    def knows(batch: Any) -> torch.Tensor:
        labels = torch.from_numpy(dataset.labels)[batch["index"]]
        return torch.cat([labels * 3, rich_noise(batch)[:, :8]], dim=1)

    return split, knows


@pytest.mark.parametrize("evaluate", [evaluate_knn, evaluate_linear])
def test_several_labels_are_scored_by_map_and_fakes_are_at_chance(
    evaluate: Callable[..., EvaluationResult],
) -> None:
    split, knows = several()
    evaluation = evaluate([Fake("knows", knows), Fake("noise", rich_noise)], split, image_sizes=[8])
    assert evaluation.metric == "mAP micro"
    for score in evaluation.scores:
        assert score.low <= score.value <= score.high
        assert score.predictions is not None
        assert score.predictions.shape == (300, 4)
        assert {"map_macro", "f1_micro", "f1_macro", "exact"} <= set(score.figures)
        if score.features == "knows":
            assert score.value > 0.85
        else:
            # Labels of unequal frequency are ranked above chance by their frequency alone; macro is not.
            assert score.figures["map_macro"].value == pytest.approx(evaluation.labels.mean(), abs=0.08)
    gap = evaluation.compare("knows", "noise", evaluation.scores[0].classifier)
    assert gap.low > 0
    assert gap.p is None


# ---- input that means nothing


def broken(what: str) -> TrainTestSplit:
    split = many(40, 20)
    dataset: Any = split.train.dataset
    if what == "unlabeled":
        dataset.labels[3] = -1
    elif what == "single class":
        dataset.labels[:] = 2
    elif what == "twice":
        return replace(split, test=EvalSubset(dataset, np.r_[np.arange(40, 60), 45], "val"))
    elif what == "same path":
        dataset.paths[50] = dataset.paths[51]
    elif what == "empty":
        return replace(split, test=EvalSubset(dataset, np.arange(0), "val"))
    return split


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("unlabeled", "1 of the 40 train images have no label, such as class/3.png"),
        ("single class", "are of class 'class 2'; a score needs two"),
        ("twice", "1 val images are listed more than once, such as class/45.png"),
        ("same path", "1 val images are listed more than once, such as class/51.png"),
        ("empty", "there are no val images"),
    ],
)
@pytest.mark.parametrize("evaluate", PROTOCOLS)
def test_input_that_means_nothing_is_refused(
    evaluate: Callable[..., EvaluationResult], what: str, message: str
) -> None:
    with pytest.raises(ImageryError, match=message):
        evaluate([Fake("f", knows_class)], broken(what), image_sizes=[8])

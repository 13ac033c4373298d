"""Hashes of configurations are those of version 0.1, whatever keys and texts are called now."""

from __future__ import annotations

import hashlib
import json

from helpers.eval_scenes import Fake, color, many
from swath.evaluation.protocols.config_hash import config_hash
from swath.evaluation.protocols.fewshot import evaluate_fewshot
from swath.evaluation.protocols.frozen import evaluate_knn, evaluate_linear


def test_protocols_keep_their_hash() -> None:
    split, extractors = many(60, 20), [Fake("color", color)]
    assert evaluate_knn(extractors, split, image_sizes=[8, 16], k=3).config_hash == "4897dbcdd5fb"
    assert evaluate_linear(extractors, split, image_sizes=[8]).config_hash == "cdc229c7c0bc"
    assert evaluate_linear(extractors, split, image_sizes=[8], c=0.1).config_hash == "e7790d24beee"
    few = evaluate_fewshot(extractors, split, image_sizes=[8], shots=[1, 2], repeats=2)
    assert few.config_hash == "c513b3a95356"


def test_nested_names_and_settings_keep_their_hash() -> None:
    old = {
        "classifier": "knn-z",
        "side": 32,
        "degradations": {"noise": {"measure": "sigma", "strengths": [0.1]}},
        "featurizers": {"train": {"model": "random initialisation of vit", "pooling": "moments"}},
        "own_group_hidden": True,
        "archive": {"name": "test", "places": 3},
    }
    new = {
        "classifier": "knn-standardized",
        "image_size": 32,
        "corruptions": {"noise": {"measure": "sigma", "severities": [0.1]}},
        "feature_extractors": {"train": {"model": "random initialization of vit", "pooling": "mean_std"}},
        "exclude_same_group": True,
        "gallery": {"name": "test", "places": 3},
    }
    plain = hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()[:12]
    assert config_hash(new) == plain
    assert config_hash(new | {"image_size": 64}) != config_hash(new), "everything else counts"

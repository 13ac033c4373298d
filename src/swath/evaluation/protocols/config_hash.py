"""The hash of a protocol's configuration, taken over the spelling of version 0.1.

Scores are compared across runs by this hash, so a renamed key or a reworded text must not change it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_KEYS = {
    "applied_to": "of",
    "centering": "centring",
    "corruptions": "degradations",
    "exclude_same_group": "own_group_hidden",
    "feature_extractors": "featurizers",
    "gallery": "archive",
    "image_size": "side",
    "image_sizes": "sides",
    "repeats": "draws",
    "test": "queries",
    "train": "bank",
}
_TEXTS = {
    "mean_std": "moments",
    "knn-standardized": "knn-z",
    "standardized by the bank": "standardised by the bank",
    "L-BFGS to convergence (scikit-learn)": "Newton's method to convergence",  # figures equal to 1e-6
    "cosine to class means, centered by the mean of the draw": (
        "cosine to class means, centred by the mean of the draw"
    ),
    "logistic regression on features standardized by the draw": (
        "logistic regression on features standardised by the draw"
    ),
    "less the archive's mean of the embedding's own sensor, then normalized again": (
        "less the archive's mean of the embedding's own sensor, then normalised again"
    ),
}
_EXTRACTORS = ("feature_extractors", "candidates")  # extractor name -> settings, whose names stay as they are


def config_hash(protocol: Mapping[str, Any]) -> str:
    """12 hex digits over everything in the protocol."""
    stored = {_KEYS.get(key, key): _text(value) for key, value in protocol.items()}
    for key in _EXTRACTORS:
        if key in protocol:
            stored[_KEYS.get(key, key)] = _settings(protocol[key])
    if "corruptions" in protocol:
        stored["degradations"] = {
            name: {"strengths" if key == "severities" else key: value for key, value in one.items()}
            for name, one in protocol["corruptions"].items()
        }
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()[:12]


def _settings(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _settings(inner) for key, inner in value.items()}
    return _text(value)


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return _TEXTS.get(value, value.replace("random initialization of ", "random initialisation of "))
    return value

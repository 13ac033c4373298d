"""Every query's answer in one compact file, for confusion matrices, reliability plots and galleries.

A NumPy archive without pickles (``numpy.load`` reads it too):

- `paths` [Q], `labels` [Q] or [Q, K], `classes` [K];
- `about`: JSON of the report's origin and `scores`, a list of whose each score is (features, classifier,
  query_side, bank_side);
- for the i-th of them ``hits_i`` [Q], and where there is one answer a query ``predictions_i`` [Q] (several
  labels: [Q, K]) and ``confidence_i`` [Q] (several labels: [Q, K] probabilities).
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from swath.errors import SwathError
from swath.evaluation.protocols.results import Array, EvaluationResult
from swath.files import atomic_path


@dataclass(frozen=True, slots=True)
class ClassifierPredictions:
    """What one classifier said of every query; attributes as of `protocols.results.Score`."""

    features: str
    classifier: str
    test_image_size: int
    train_image_size: int
    hits: Array
    predictions: Array | None
    confidence: Array | None


@dataclass(frozen=True, slots=True)
class PredictionsFile:
    """A queries' file as read: the answers of each score to the same queries."""

    paths: list[str]
    labels: Array
    classes: list[str]
    origin: dict[str, Any]
    predictions: list[ClassifierPredictions]


def write_predictions(evaluation: EvaluationResult, path: str | Path, origin: Mapping[str, Any]) -> Path:
    """Write the answers behind all scores; `origin` (JSON-safe) says where they come from."""
    arrays: dict[str, Array] = {
        "paths": np.array(evaluation.paths, dtype=np.str_),
        "labels": evaluation.labels.astype(np.uint8 if evaluation.labels.ndim == 2 else np.int32),
        "classes": np.array(evaluation.protocol["classes"], dtype=np.str_),
        "about": np.array(json.dumps({**origin, "scores": [score.head for score in evaluation.scores]})),
    }
    for i, score in enumerate(evaluation.scores):
        arrays[f"hits_{i}"] = score.hits.astype(np.float32) if score.predictions is None else score.hits
        if score.predictions is not None:
            several = score.predictions.ndim == 2
            arrays[f"predictions_{i}"] = score.predictions.astype(np.bool_ if several else np.int32)
        if score.confidence is not None:
            arrays[f"confidence_{i}"] = score.confidence.astype(np.float32)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return Path(path)


def read_predictions(path: str | Path) -> PredictionsFile:
    """Read what `write_queries` wrote.

    Raises:
        SwathError: No such file, or not one of these.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            about = json.loads(str(stored["about"]))
            predictions = [
                ClassifierPredictions(
                    **head,
                    hits=stored[f"hits_{i}"],
                    predictions=stored.get(f"predictions_{i}"),
                    confidence=stored.get(f"confidence_{i}"),
                )
                for i, head in enumerate(about.pop("scores"))
            ]
            return PredictionsFile(
                stored["paths"].tolist(), stored["labels"], stored["classes"].tolist(), about, predictions
            )
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise SwathError(f"{path}: is not a queries' file of `swath evaluate` ({error})") from None

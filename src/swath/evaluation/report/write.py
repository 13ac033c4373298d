"""The files of a report."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from swath.evaluation.protocols.results import EvaluationResult
from swath.evaluation.report.data import ReportData
from swath.evaluation.report.tables import write_scores
from swath.files import atomic_path, write_json

# Of the result tables of torchgeo-bench (its README, "Output Format"), in that order.
BENCH_COLUMNS = (
    "dataset", "method", "metric_name", "metric_value", "ci_lower", "ci_upper", "feature_dim", "best_c",
    "n_train", "n_val", "n_test", "seed", "model", "name", "normalization", "image_size", "interpolation",
    "partition",
)  # fmt: skip


def write_html_report(report_data: ReportData, folder: str | Path, **about: Any) -> list[Path]:
    """``report.html`` and the figures behind it: JSON and CSV of each protocol, and ``bench.csv``."""
    from swath.evaluation.report.page import render_report

    folder = Path(folder)
    written = [render_report(report_data, folder / "report.html")]
    for evaluation in report_data.evaluations:
        written += write_scores(evaluation, folder, command=report_data.command, **about)
    knn = report_data.knn
    origin = report_data.origin(knn.protocol, knn.config_hash)
    clean = [_scores(one) for one in report_data.clean if one is not None]
    write_json(
        folder / "leakage.json", {**origin, **report_data.leakage.to_dict(), "scores_without_leaks": clean}
    )
    written += [folder / "leakage.json", report_data.geometry.write(folder, **origin)]
    if report_data.robustness is not None:
        written += report_data.robustness.write(folder, **origin)
    written.append(write_torchgeo_bench_csv(report_data, folder / "bench.csv"))
    return written


def write_torchgeo_bench_csv(report_data: ReportData, path: str | Path) -> Path:
    """A row a figure, in the columns of torchgeo-bench's result tables: rows of both can stand in one file.

    ``method`` is its ``knn5`` with our number of neighbors (``knn20``, ``knn20-z``) or ``linear``; ``n_val``
    the train images that chose ``best_c``; ``model`` the model's id and pooling, or the baseline; ``name``
    what the page calls it; ``normalization`` "contract" for models (what travels with the weights) and "none"
    for baselines; ``image_size`` the side of train and test split (scores at two sides are left out);
    ``seed`` that of the split where it was made here.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, BENCH_COLUMNS)
    writer.writeheader()
    wide = {row.features: row.dimensions for row in report_data.geometry.rows}
    for evaluation in report_data.evaluations:
        protocol = evaluation.protocol
        neighbors = f"knn{protocol.get('k', '')}"
        for score in evaluation.scores:
            if score.test_image_size != score.train_image_size:
                continue
            settings = protocol["feature_extractors"].get(score.features, {})
            named = [settings.get("model") or settings.get("baseline") or "", settings.get("pooling") or ""]
            seed = str(protocol["split"]).rpartition("seed ")[2] if "seed " in str(protocol["split"]) else ""
            common = {
                "dataset": report_data.title,
                "method": re.sub(r"^knn", neighbors, score.classifier).replace("-standardized", "-z"),
                "feature_dim": wide.get(score.features, ""),
                "best_c": score.details.get("C", ""),
                "n_train": protocol["train"]["images"],
                "n_val": score.details.get("validation_images", ""),
                "n_test": len(score.hits),
                "seed": seed,
                "model": ", ".join(part for part in named if part),
                "name": score.features,
                "normalization": "contract" if "model" in settings else "none",
                "image_size": score.test_image_size,
                "interpolation": "area",
                "partition": "default",
            }
            headline = "accuracy" if evaluation.metric == "top-1 accuracy" else evaluation.metric
            figures = {headline: (score.value, score.low, score.high), **score.figures}
            for metric, (value, low, high) in figures.items():
                numbers = {"metric_value": value, "ci_lower": low, "ci_upper": high}
                rounded = {name: "" if np.isnan(v) else round(float(v), 6) for name, v in numbers.items()}
                writer.writerow({**common, "metric_name": metric, **rounded})
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
    return Path(path)


def _scores(evaluation: EvaluationResult) -> dict[str, Any]:
    rows = [
        {
            **score.head,
            "value": round(score.value, 6),
            "ci95_low": round(score.low, 6),
            "ci95_high": round(score.high, 6),
        }
        for score in evaluation.scores
    ]
    return {"protocol": evaluation.protocol["id"], "test": len(evaluation.labels), "scores": rows}

"""Plots of scores: readable in print, by the color-blind, and in a hurry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from swath.evaluation.measures.classification import reliability_curve
from swath.evaluation.protocols.results import EvaluationResult, Score
from swath.files import atomic_path
from swath.reporting.charts import COLORS

MARKS = "osD^vP*X"
_INK = "#333333"


def plot_scale_curve(
    evaluation: EvaluationResult,
    path: str | Path,
    *,
    classifier: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Accuracy against image scale, with 95% intervals, one line a feature extractor; PNG at `path`.

    One panel for train and test split of the same scale, one for reduced queries against the full bank where
    that was scored; the axis on top says what a side means on the ground.

    Args:
        evaluation: With two scales or more.
        path: Of the picture.
        classifier: Which scores; default, for each feature extractor, the one that serves it best.
        metadata: Text chunks for the PNG (protocol, hashes, command).
    """
    curves = _curves(evaluation, classifier)
    pairings = [True] + (
        [False] if any(s.test_image_size != s.train_image_size for s in evaluation.scores) else []
    )
    figure, panels = _figure(len(pairings))
    for panel, symmetric in zip(panels, pairings, strict=True):
        _draw(panel, evaluation, curves, symmetric)
    panels[0].set_ylabel(f"{evaluation.metric}, %", color=_INK)
    protocol = evaluation.protocol
    how = "logistic regression"
    if "k" in protocol:
        how = f"k = {protocol['k']}, T = {protocol['temperature']:g}, cosine"
    title = (
        f"{protocol['name']} ({how}); {protocol['test']['images']:,} queries, bands: 95% intervals, "
        "dotted: always the most frequent class"
    )
    return _save(figure, panels, title, path, metadata)


def plot_fewshot_curve(
    evaluation: EvaluationResult, path: str | Path, *, metadata: Mapping[str, str] | None = None
) -> Path:
    """Accuracy against labeled images per class, with 95% intervals; PNG at `path`.

    One panel a classifier; images of the largest side.
    """
    shots, image_size = evaluation.protocol["shots"], max(evaluation.protocol["image_sizes"])
    kinds = list(dict.fromkeys(s.classifier.partition("@")[0] for s in evaluation.scores))
    names = list(dict.fromkeys(s.features for s in evaluation.scores))
    figure, panels = _figure(len(kinds))
    for panel, kind in zip(panels, kinds, strict=True):
        for i, features in reversed(list(enumerate(names))):
            scores = [evaluation.select(f"{kind}@{n}", features) for n in shots]
            _curve(
                panel,
                i,
                features,
                shots,
                [s for found in scores for s in found if s.test_image_size == image_size],
            )
        panel.axhline(100 * evaluation.protocol["chance"], color="#777777", linewidth=1, linestyle=":")
        panel.set_xscale("log")
        panel.set_xticks(shots, [str(n) for n in shots])
        panel.minorticks_off()
        panel.set_xlabel("labeled images a class", color=_INK)
        panel.set_title(kind, fontsize=10.5, color=_INK, pad=8)
        _plain_axes(panel)
    panels[0].set_ylabel(f"{evaluation.metric}, %", color=_INK)
    how = f"mean of {evaluation.protocol['draws']} draws, bands: 95% intervals over draws and queries"
    return _save(figure, panels, how, path, metadata)


def plot_reliability(
    evaluation: EvaluationResult,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    bins: int = 15,
) -> Path:
    """Accuracy against confidence in bins of equally many queries, a panel a classifier; PNG at `path`.

    Scores of the largest side. On the diagonal a classifier is right as often as it says; below it is too
    sure of itself. The legend has the expected calibration error of 15 bins of equal width.
    """
    image_size = max(s.test_image_size for s in evaluation.scores)
    found = [
        s
        for s in evaluation.scores
        if s.confidence is not None and s.test_image_size == s.train_image_size == image_size
    ]
    kinds = list(dict.fromkeys(s.classifier for s in found))
    figure, panels = _figure(len(kinds))
    for panel, kind in zip(panels, kinds, strict=True):
        panel.plot([0, 100], [0, 100], color="#777777", linewidth=1, linestyle=":")
        for i, score in enumerate(s for s in found if s.classifier == kind):
            assert score.confidence is not None
            points = reliability_curve(score.confidence, score.hits, bins, "mass")
            panel.plot(
                [100 * p["confidence"] for p in points], [100 * p["accuracy"] for p in points],
                label=f"{score.features} (ECE {100 * score.figures['ece'].value:.1f})",
                color=COLORS[i % len(COLORS)], marker=MARKS[i % len(MARKS)], markersize=5,
                linewidth=2.2 if i == 0 else 1.2, markeredgecolor="white", markeredgewidth=0.6,
            )  # fmt: skip
        panel.set_xlabel("confidence, %", color=_INK)
        panel.set_title(kind, fontsize=10.5, color=_INK, pad=8)
        panel.legend(frameon=False, fontsize=7.5, loc="upper left")
        _plain_axes(panel)
    panels[0].set_ylabel("accuracy, %", color=_INK)
    how = f"images of {image_size} px, {bins} bins of equally many queries; dotted: as often right as sure"
    return _save(figure, [], how, path, metadata)


def _figure(panels: int) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0 * panels + 2.2, 4.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, panels, sharey=True, squeeze=False)[0]


def _curve(panel: Any, i: int, label: str, across: Sequence[int], scores: list[Score]) -> None:
    """A line with its band of intervals; the first one stands out."""
    color, first = COLORS[i % len(COLORS)], i == 0
    panel.fill_between(
        across, [100 * s.low for s in scores], [100 * s.high for s in scores],
        color=color, alpha=0.16 if first else 0.05, linewidth=0,
    )  # fmt: skip
    panel.plot(
        across, [100 * s.value for s in scores], label=label,
        color=color, marker=MARKS[i % len(MARKS)], markersize=6.5 if first else 5,
        linewidth=2.6 if first else 1.4, markeredgecolor="white", markeredgewidth=0.6,
    )  # fmt: skip


def _plain_axes(panel: Any) -> None:
    panel.grid(color="#E5E5E5", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=_INK, length=3)
    panel.spines[["right", "top"]].set_visible(False)


def _save(figure: Any, panels: Any, how: str, path: str | Path, metadata: Mapping[str, str] | None) -> Path:
    if len(panels):
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    figure.suptitle(how, fontsize=9, color=_INK, x=0.01, ha="left")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=160, format="png", metadata=dict(metadata or {}))
    return Path(path)


def _curves(evaluation: EvaluationResult, classifier: str | None) -> list[tuple[str, str]]:
    """(feature extractor, classifier) that are drawn."""
    if classifier is not None:
        return [row for row in evaluation.rows if row[1] == classifier]
    best: dict[str, tuple[str, str]] = {}
    for row in evaluation.rows:
        if row[0] not in best or evaluation.mean(*row).accuracy > evaluation.mean(*best[row[0]]).accuracy:
            best[row[0]] = row
    return list(best.values())


def _draw(panel: Any, evaluation: EvaluationResult, curves: list[tuple[str, str]], symmetric: bool) -> None:
    ticks = sorted({s.test_image_size for s in evaluation.scores})
    # The first line last, so that it lies on top.
    for i, (features, classifier) in reversed(list(enumerate(curves))):
        scores = _line(evaluation, features, classifier, symmetric)
        label = f"{features} ({classifier})"
        _curve(panel, i, label, [s.test_image_size for s in scores], scores)
    panel.axhline(100 * evaluation.protocol["chance"], color="#777777", linewidth=1, linestyle=":")
    panel.set_xscale("log", base=2)
    panel.set_xticks(ticks, [str(t) for t in ticks])
    panel.minorticks_off()
    panel.set_xlabel("side of the images, px" if symmetric else "side of the queries, px", color=_INK)
    panel.set_title(
        "bank and queries at one scale" if symmetric else f"queries reduced, bank at {ticks[-1]} px",
        fontsize=10.5, color=_INK, pad=8,
    )  # fmt: skip
    _plain_axes(panel)
    if evaluation.native_gsd is not None:
        ground = panel.secondary_xaxis("top")
        metres = [evaluation.native_gsd * evaluation.native_image_size / t for t in ticks]
        ground.set_xticks(ticks, [f"{m:.3g}" for m in metres])
        ground.minorticks_off()
        ground.set_xlabel("ground sample distance (median), m", fontsize=9, color=_INK)
        ground.tick_params(colors=_INK, length=3, labelsize=9)


def _line(evaluation: EvaluationResult, features: str, classifier: str, symmetric: bool) -> list[Score]:
    scores = evaluation.select(classifier, features, symmetric)
    if not symmetric:  # the full side belongs to this curve too
        largest = max(s.train_image_size for s in scores)
        scores += [s for s in evaluation.select(classifier, features, True) if s.test_image_size == largest]
    return sorted(scores, key=lambda s: s.test_image_size)

"""Plots of scores: readable in print, by the colour-blind, and in a hurry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from swath.evaluation.protocols import Evaluation, Score
from swath.files import atomic_path

# Okabe and Ito's palette (2008): distinct for all common forms of colour blindness; the model comes first.
# Marks differ too, for print without colour.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKS = "osD^vP*X"
_INK = "#333333"


def plot_scale_curve(
    evaluation: Evaluation,
    path: str | Path,
    *,
    classifier: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Accuracy against image scale, with 95% intervals, one line a featurizer; PNG at `path`.

    One panel for bank and queries of the same scale, one for reduced queries against the full bank where
    that was scored; the axis on top says what a side means on the ground.

    Args:
        evaluation: With two scales or more.
        path: Of the picture.
        classifier: Which scores; default, for each featurizer, the one that serves it best.
        metadata: Text chunks for the PNG (protocol, hashes, command).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = _curves(evaluation, classifier)
    pairings = [True] + ([False] if any(s.query_side != s.bank_side for s in evaluation.scores) else [])
    figure = Figure(figsize=(5.0 * len(pairings) + 2.2, 4.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(pairings), sharey=True, squeeze=False)[0]
    for panel, symmetric in zip(panels, pairings, strict=True):
        _draw(panel, evaluation, curves, symmetric)
    panels[0].set_ylabel("top-1 accuracy, %", color=_INK)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    protocol = evaluation.protocol
    how = f"k = {protocol['k']}, T = {protocol['temperature']:g}, cosine" if "k" in protocol else (
        f"logistic regression, C = {protocol['C']:g}"
    )  # fmt: skip
    figure.suptitle(
        f"{protocol['name']} ({how}); {protocol['queries']['images']:,} queries, bands: 95% intervals, "
        "dotted: always the most frequent class",
        fontsize=9, color=_INK, x=0.01, ha="left",
    )  # fmt: skip
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=160, format="png", metadata=dict(metadata or {}))
    return Path(path)


def _curves(evaluation: Evaluation, classifier: str | None) -> list[tuple[str, str]]:
    """(featurizer, classifier) that are drawn."""
    if classifier is not None:
        return [row for row in evaluation.rows if row[1] == classifier]
    best: dict[str, tuple[str, str]] = {}
    for row in evaluation.rows:
        if row[0] not in best or evaluation.mean(*row).accuracy > evaluation.mean(*best[row[0]]).accuracy:
            best[row[0]] = row
    return list(best.values())


def _draw(panel: Any, evaluation: Evaluation, curves: list[tuple[str, str]], symmetric: bool) -> None:
    ticks = sorted({s.query_side for s in evaluation.scores})
    # The first line last, so that it lies on top.
    for i, (features, classifier) in reversed(list(enumerate(curves))):
        scores = _line(evaluation, features, classifier, symmetric)
        sides = [s.query_side for s in scores]
        colour, first = _COLOURS[i % len(_COLOURS)], i == 0
        panel.fill_between(
            sides, [100 * s.low for s in scores], [100 * s.high for s in scores],
            color=colour, alpha=0.16 if first else 0.05, linewidth=0,
        )  # fmt: skip
        panel.plot(
            sides, [100 * s.accuracy for s in scores], label=f"{features} ({classifier})",
            color=colour, marker=_MARKS[i % len(_MARKS)], markersize=6.5 if first else 5,
            linewidth=2.6 if first else 1.4, markeredgecolor="white", markeredgewidth=0.6,
        )  # fmt: skip
    panel.axhline(100 * evaluation.protocol["chance"], color="#777777", linewidth=1, linestyle=":")
    panel.set_xscale("log", base=2)
    panel.set_xticks(ticks, [str(t) for t in ticks])
    panel.minorticks_off()
    panel.set_xlabel("side of the images, px" if symmetric else "side of the queries, px", color=_INK)
    panel.set_title(
        "bank and queries at one scale" if symmetric else f"queries reduced, bank at {ticks[-1]} px",
        fontsize=10.5, color=_INK, pad=8,
    )  # fmt: skip
    panel.grid(color="#E5E5E5", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=_INK, length=3)
    panel.spines[["right", "top"]].set_visible(False)
    if evaluation.native_gsd is not None:
        ground = panel.secondary_xaxis("top")
        metres = [evaluation.native_gsd * evaluation.native_side / t for t in ticks]
        ground.set_xticks(ticks, [f"{m:.3g}" for m in metres])
        ground.minorticks_off()
        ground.set_xlabel("ground sample distance (median), m", fontsize=9, color=_INK)
        ground.tick_params(colors=_INK, length=3, labelsize=9)


def _line(evaluation: Evaluation, features: str, classifier: str, symmetric: bool) -> list[Score]:
    scores = evaluation.select(classifier, features, symmetric)
    if not symmetric:  # the full side belongs to this curve too
        largest = max(s.bank_side for s in scores)
        scores += [s for s in evaluation.select(classifier, features, True) if s.query_side == largest]
    return sorted(scores, key=lambda s: s.query_side)

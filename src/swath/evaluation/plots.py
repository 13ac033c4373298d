"""Plots of scores: readable in print, by the colour-blind, and in a hurry."""

from __future__ import annotations

from pathlib import Path

from swath.evaluation.protocols import Evaluation
from swath.files import atomic_path

# Okabe and Ito's palette (2008): distinct for all common forms of colour blindness; the model comes first.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_MARKS = "osD^vP*X"


def plot_scale_curve(evaluation: Evaluation, path: str | Path) -> Path:
    """Accuracy against image scale, with 95% intervals, one line a featurizer; PNG at `path`.

    One panel for images of one scale on both sides, one for reduced queries against the full bank; the axis
    on top says what the scale means on the ground.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    name = evaluation.protocol["name"]
    pairings = [True] + ([False] if any(s.query_side != s.bank_side for s in evaluation.scores) else [])
    figure = Figure(figsize=(5.4 * len(pairings) + 0.6, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(pairings), sharey=True, squeeze=False)[0]
    largest = max(s.bank_side for s in evaluation.scores)
    for panel, symmetric in zip(panels, pairings, strict=True):
        for i, featurizer in enumerate(evaluation.featurizers):
            scores = evaluation.select(name, featurizer, symmetric)
            if not symmetric:  # the full side belongs to this curve too
                scores = scores + [
                    s for s in evaluation.select(name, featurizer, True) if s.query_side == largest
                ]
            colour = _COLOURS[i % len(_COLOURS)]
            sides = [s.query_side for s in scores]
            panel.plot(
                sides, [100 * s.accuracy for s in scores], color=colour, marker=_MARKS[i % len(_MARKS)],
                linewidth=2.4 if i == 0 else 1.5, markersize=6, label=featurizer, zorder=10 - i,
            )  # fmt: skip
            panel.fill_between(
                sides, [100 * s.low for s in scores], [100 * s.high for s in scores],
                color=colour, alpha=0.12 if i == 0 else 0.05, linewidth=0,
            )  # fmt: skip
        ticks = sorted({s.query_side for s in evaluation.scores})
        panel.set_xscale("log", base=2)
        panel.set_xticks(ticks, [str(t) for t in ticks])
        panel.minorticks_off()
        panel.set_xlabel("side of the images, pixels" if symmetric else "side of the queries, pixels")
        panel.set_title(
            "bank and queries at the same scale" if symmetric else f"queries reduced, bank at {largest} px",
            fontsize=11,
        )
        panel.axhline(100 * evaluation.protocol["chance"], color="#777777", linewidth=1, linestyle=":")
        panel.grid(alpha=0.25)
        panel.spines[["right"] if evaluation.native_gsd else ["right", "top"]].set_visible(False)
        if evaluation.native_gsd is not None:
            ground = panel.secondary_xaxis("top")
            metres = [evaluation.native_gsd * evaluation.native_side / t for t in ticks]
            ground.set_xticks(ticks, [f"{m:.3g}" for m in metres])
            ground.set_xlabel("metres per pixel (median)")
    panels[0].set_ylabel(f"top-1 accuracy, % ({name})")
    panels[0].legend(frameon=False, fontsize=9)
    figure.text(
        0.995, 0.005, "dotted: always the most frequent class", ha="right", fontsize=7, color="#777777"
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    return Path(path)

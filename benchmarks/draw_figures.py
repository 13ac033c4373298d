"""Draw the figures of the page "how good is it" from the measured numbers in `benchmarks/figures`.

    python benchmarks/draw_figures.py          # writes PNGs beside them

Each JSON file there holds figures of RESULTS.md, with the command that made them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
COLORS = ("#0f766e", "#14b8a6", "#6b7280", "#9ca3af", "#b45309", "#d1d5db", "#1d4ed8")


def numbers(name: str) -> dict[str, Any]:
    """One file of measured figures."""
    found: dict[str, Any] = json.loads((HERE / "figures" / f"{name}.json").read_text(encoding="utf-8"))
    return found


def rsscn7(plt: Any) -> None:
    """Accuracy against image side, and against compute where that was measured."""
    data = numbers("rsscn7")
    compute = data.get("compute", {})
    figure, axes = plt.subplots(1, 2 if compute else 1, figsize=(11 if compute else 6.5, 4.4), squeeze=False)
    for (name, values), color in zip(data["scale"].items(), COLORS, strict=False):
        style = "--" if "untrained" in name or "published" in name else "-"
        axes[0, 0].plot(data["sides"], values, style, marker="o", ms=4, color=color, label=name)
    axes[0, 0].set(xscale="log", xlabel="side of bank and query images, pixels", ylabel="kNN top-1, %")
    axes[0, 0].set_xticks(data["sides"], [str(side) for side in data["sides"]])
    axes[0, 0].minorticks_off()
    axes[0, 0].set_ylim(10, None)  # room for the legend below the lines
    for (name, points), color in zip(compute.items(), COLORS, strict=False):
        axes[0, 1].plot(*zip(*points, strict=True), marker="o", ms=4, color=color, label=name)
    if compute:
        axes[0, 1].set(xlabel="CPU-minutes along one run (0: untrained)", ylabel="top-1, %")
    for axis in axes.flat:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(fontsize=7, frameon=False)
    figure.suptitle("Scale-MAE on RSSCN7 after little compute", fontsize=11)
    figure.tight_layout()
    figure.savefig(HERE / "figures" / "rsscn7.png", dpi=110)


def methods(plt: Any) -> None:
    """What each method makes of the same minutes: kNN against image side, and the linear probe."""
    data = numbers("rsscn7_methods")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 2))
    colors = dict(zip(data["scale"], COLORS, strict=False))
    for name, values in data["scale"].items():
        plain = name in ("untrained", "RCF 512", "image statistics")
        style, width = ("--", 1.2) if plain else ("-", 2)
        left.plot(data["sides"], values, style, lw=width, marker="o", ms=4, color=colors[name])
        left.annotate(name, (data["sides"][-1], values[-1]), (6, -3), textcoords="offset points", fontsize=8)
    left.set(
        xscale="log", xlabel="side of bank and query images, pixels", ylabel="kNN top-1, %", xlim=(14, 250)
    )
    left.set_xticks(data["sides"], [str(side) for side in data["sides"]])
    left.minorticks_off()
    names = list(data["linear"])[::-1]
    shades = [colors.get(name, COLORS[4]) for name in names]
    bars = right.barh(names, [data["linear"][name] for name in names], color=shades)
    right.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    right.set(xlabel="linear probe at 128 px, %", xlim=(0, 100))
    for axis in (left, right):
        axis.grid(alpha=0.25, axis="x" if axis is right else "both")
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle("RSSCN7 after 20 CPU-minutes of training", fontsize=11)
    figure.tight_layout()
    figure.savefig(HERE / "figures" / "rsscn7_methods.png", dpi=110)


def csmae(plt: Any) -> None:
    """F1 in the four directions, a group a direction."""
    data = numbers("csmae_simulated")
    figure, axis = plt.subplots(figsize=(9, 3.8))
    width = 0.8 / len(data["f1"])
    for turn, (name, values) in enumerate(data["f1"].items()):
        at = [place + (turn - len(data["f1"]) / 2 + 0.5) * width for place in range(len(values))]
        axis.bar(at, values, width, label=name, color=COLORS[turn])
    axis.axhline(data["chance"], color="black", lw=0.8, ls=":")
    axis.text(-0.48, data["chance"] + 0.5, "chance", fontsize=7)
    axis.set_xticks(range(len(data["directions"])), data["directions"])
    axis.set(ylabel="F1 at 10, %", ylim=(0, 85))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=7, frameon=False, ncols=4, loc="upper left")
    figure.suptitle("Who finds whom: CSMAE on simulated pairs", fontsize=11)
    figure.tight_layout()
    figure.savefig(HERE / "figures" / "csmae.png", dpi=110)


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rsscn7(plt)
    methods(plt)
    csmae(plt)


if __name__ == "__main__":
    main()

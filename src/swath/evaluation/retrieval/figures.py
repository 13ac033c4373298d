"""Retrieval to look at: best and worst queries with their answers, and where the two sensors lie.

Sentinel-2 and other optical imagery is shown in its red, green and blue; radar with VV and VH as red VV,
green VH and blue VV - VH (of decibels, or of linear power turned into them). Each band is stretched between
the 2nd and 98th percentile of all images of its sensor in one picture, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from swath.evaluation.retrieval.names import short_sensor_names
from swath.evaluation.retrieval.protocol import center_features
from swath.evaluation.retrieval.results import MIXED, RetrievalEvaluation, RetrievalScore
from swath.files import atomic_path
from swath.reporting.fonts import fit_text, font
from swath.reporting.rgb import composite

_TILE, _GAP, _MARGIN, _LEFT, _CAPTION, _HEAD = 104, 8, 20, 96, 20, 46
_PAPER, _INK, _QUIET = "#fbfaf7", "#1d232b", "#6b7480"
_SHARED, _NONE, _QUERY = "#0072B2", "#D55E00", "#1d232b"  # apart for all common forms of color blindness
_SHOWN_ANSWERS = 10
_POINTS, _LINES = 600, 60


def draw_retrieval(
    evaluation: RetrievalEvaluation,
    folder: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    count: int = 3,
) -> list[Path]:
    """Write ``retrieval_latent.png`` and ``retrieval_FROM_to_TO.png`` of the first candidate.

    Args:
        evaluation: The scores.
        folder: Where to.
        metadata: Text chunks for the PNGs.
        count: Best and worst queries each.

    Returns:
        The files written; a direction whose features cannot be compared has none.
    """
    names = short_sensor_names(evaluation.sensors)
    written = []
    if len({values.shape[1] for values in evaluation.features.values()}) == 1 and len(evaluation.gallery) > 2:
        written.append(draw_latent_space(evaluation, folder / "retrieval_latent.png", metadata=metadata))
    first = evaluation.candidates[0]
    for query_sensor in evaluation.sensors:
        for gallery_sensor in evaluation.sensors:
            both = [
                evaluation.get(first, query_sensor, gallery_sensor, centered) for centered in (False, True)
            ]
            scored = [score for score in both if score.scores is not None]
            if scored:
                best = max(scored, key=lambda score: score.values["f1"])
                path = (
                    folder / f"retrieval_{_file(names[query_sensor])}_to_{_file(names[gallery_sensor])}.png"
                )
                written.append(draw_queries(evaluation, best, path, count=count, metadata=metadata))
    return written


def draw_queries(
    evaluation: RetrievalEvaluation,
    score: RetrievalScore,
    path: Path,
    *,
    count: int = 3,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A row a query, first the query and then its answers, best queries above and worst below.

    Queries are ordered by their mean pair F1. Blue frames share at least one label with the query, orange
    ones none; beneath each answer stands how many of the query's labels it shares.
    """
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    assert score.scores is not None
    assert score.neighbors is not None
    assert score.gallery_sensor != MIXED
    rows = _extremes(score.scores.pair_f1, count)
    shown = min(_SHOWN_ANSWERS, score.scores.k)
    data, places = evaluation.split.dataset, evaluation.gallery
    asked = [int(evaluation.queries[row]) for row, _ in rows]
    predictions = [[int(places[i]) for i in score.neighbors[row, :shown].tolist()] for row, _ in rows]
    images: dict[tuple[str, int], NDArray[np.uint8]] = {}
    requested = {score.query_sensor: set(asked)}
    requested.setdefault(score.gallery_sensor, set()).update(i for row in predictions for i in row)
    for name, chosen in requested.items():
        view = data.only(name)
        batch = view.get_batch(sorted(chosen))
        tiles = composite(batch, view.sensor)
        images |= {(name, int(i)): tile for i, tile in zip(batch["index"].tolist(), tiles, strict=True)}
    sets = [_label_set(data.labels, i, data.classes) for i in range(len(data))]
    width = 2 * _MARGIN + _LEFT + (shown + 1) * (_TILE + _GAP) + _GAP
    cell = _TILE + 2 * _CAPTION
    sheet = Image.new("RGB", (width, _HEAD + len(rows) * cell + _MARGIN), _PAPER)
    pen = ImageDraw.Draw(sheet)
    state = "centered" if score.centered else "as they are"
    title = f"{score.features}: {score.query_sensor} asks, {score.gallery_sensor} answers ({state})"
    pen.text((_MARGIN, 12), title, font=font(15, bold=True), fill=_INK)
    for turn, ((row, kind), place, found) in enumerate(zip(rows, asked, predictions, strict=True)):
        top = _HEAD + turn * cell
        pen.text((_MARGIN, top + 4), kind, font=font(13, bold=True), fill=_INK)
        f1 = float(score.scores.pair_f1[row])
        pen.text((_MARGIN, top + 24), f"pair F1 {f1:.2f}", font=font(12), fill=_QUIET)
        left = _MARGIN + _LEFT
        _tile(sheet, pen, (left, top), images.get((score.query_sensor, place)), _QUERY)
        label = fit_text(pen, ", ".join(sorted(sets[place])), font(11), width - left - _MARGIN)
        pen.text((left, top + _TILE + 3), "query", font=font(11, bold=True), fill=_INK)
        pen.text((left, top + _TILE + 18), label, font=font(11), fill=_QUIET)
        for column, answer in enumerate(found):
            x = left + (column + 1) * (_TILE + _GAP) + _GAP
            shared = len(sets[place] & sets[answer])
            color = _SHARED if shared else _NONE
            _tile(sheet, pen, (x, top), images.get((score.gallery_sensor, answer)), color)
            text = f"shares {shared} of {len(sets[place])}" if shared else "shares none"
            pen.text((x, top + _TILE + 3), text, font=font(11), fill=color)
    info = PngInfo()
    for key, value in (metadata or {}).items():
        info.add_text(key, value)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG", pnginfo=info)
    return path


def draw_latent_space(
    evaluation: RetrievalEvaluation, path: Path, *, metadata: Mapping[str, str] | None = None
) -> Path:
    """The archive's embeddings by the first candidate in two principal components, as they are and centered.

    Points are unit vectors, a color and mark a sensor; thin lines join the two sensors' views of some
    places. The components are those of both sensors together.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = short_sensor_names(evaluation.sensors)
    figure = Figure(figsize=(10.4, 5.0), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2)
    count = len(evaluation.gallery)
    chosen = np.random.default_rng(0).permutation(count)[:_POINTS]
    for panel, centered in zip(panels, (False, True), strict=True):
        features = {
            sensor: center_features(values, values.double().mean(dim=0)) if centered else values.double()
            for sensor, values in evaluation.features.items()
        }
        units = {sensor: F.normalize(values, dim=1) for sensor, values in features.items()}
        flat, fractions = principal_components(torch.cat(list(units.values())))
        points = {sensor: part.numpy() for sensor, part in zip(units, torch.split(flat, count), strict=True)}
        first = points[evaluation.sensors[0]]
        for other in evaluation.sensors[1:]:
            for i in chosen[:_LINES]:
                ends = np.stack([first[i], points[other][i]])
                panel.plot(ends[:, 0], ends[:, 1], color="#999999", linewidth=0.5, alpha=0.7, zorder=1)
        for (sensor, place), color, mark in zip(
            points.items(), ("#D55E00", "#0072B2", "#009E73", "#CC79A7"), "s^oD", strict=False
        ):
            panel.scatter(
                place[chosen, 0], place[chosen, 1], s=11, color=color, marker=mark, alpha=0.6, linewidth=0,
                label=names[sensor], zorder=2,
            )  # fmt: skip
        gap = next(
            (g for g in evaluation.gaps if g.features == evaluation.candidates[0] and g.centered == centered),
            None,
        )
        prediction = (
            f"; true pairs {gap.pairs:.2f}, random across {gap.across:.2f}" if gap is not None else ""
        )
        state = "centered" if centered else "as they are"
        panel.set_title(f"{state}{prediction}", fontsize=10.5, color="#333333")
        for axis, fraction in zip((panel.xaxis, panel.yaxis), fractions.tolist(), strict=True):
            axis.set_label_text(f"{100 * fraction:.0f}% of the variance", color="#333333")
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[["right", "top"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=9)
    figure.suptitle(
        f"{evaluation.candidates[0]}: archive of {count:,} places, unit vectors in two principal components; "
        "lines join one place in two sensors",
        fontsize=9, color="#333333", x=0.01, ha="left",
    )  # fmt: skip
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png", metadata=dict(metadata or {}))
    return path


def principal_components(values: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 2] coordinates along the two largest principal components, and their shares of the variance [2].

    The sign of a component is chosen so that its largest weight is positive: images can be repeated.
    """
    centered = values.double() - values.double().mean(dim=0)
    spread, vectors = torch.linalg.eigh(centered.T @ centered)
    axes = vectors[:, -2:].flip(1)
    axes = axes * axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
    fractions = spread[-2:].flip(0).clamp_min(0) / spread.clamp_min(0).sum().clamp_min(1e-30)
    return centered @ axes, fractions


def _extremes(values: Tensor, count: int) -> list[tuple[int, str]]:
    """(query, "best" or "worst"): the `count` highest and lowest, each query once."""
    order = values.argsort(descending=True, stable=True).tolist()
    count = min(count, len(order) // 2) or len(order)
    worst = order[max(count, len(order) - count) :]
    return [(row, "best") for row in order[:count]] + [(row, "worst") for row in worst]


def _label_set(labels: Any, place: int, classes: Sequence[str] | None) -> frozenset[str]:
    found = np.asarray(labels[place])
    numbers = [int(found)] if found.ndim == 0 else np.flatnonzero(found).tolist()
    return frozenset(classes[i] if classes else str(i) for i in numbers)


def _tile(sheet: Any, pen: Any, corner: tuple[int, int], tile: NDArray[np.uint8] | None, frame: str) -> None:
    from PIL import Image

    x, y = corner
    pen.rectangle([x - 3, y - 3, x + _TILE + 2, y + _TILE + 2], fill=frame)
    if tile is None:
        pen.rectangle([x, y, x + _TILE - 1, y + _TILE - 1], fill="#e4e2dc")
        pen.text((x + _TILE // 2, y + _TILE // 2), "not readable", font=font(11), fill=_QUIET, anchor="mm")
        return
    image = Image.fromarray(tile)
    kernel = Image.Resampling.NEAREST if max(image.size) < _TILE else Image.Resampling.LANCZOS
    sheet.paste(image.resize((_TILE, _TILE), kernel), (x, y))


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)

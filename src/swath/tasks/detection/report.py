"""A detector's part of the report: precision over recall, whole images with their boxes, and its failures.

Colors tell right from wrong, line styles too: what was found rightly is drawn in full and green, what is
wrong in full and orange, what was missed dashed and yellow, what does not count dashed and gray.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.errors import ImageryError
from swath.reporting.charts import Line, line_chart, series_color
from swath.reporting.html import SafeHtml, figure, jpeg
from swath.reporting.rgb import to_rgb
from swath.tasks.detection.detectors.common import Detections
from swath.tasks.detection.drawing import IGNORED, MISSED, RIGHT, WRONG, draw_outlines
from swath.tasks.detection.rotated_boxes import to_xyxy
from swath.tasks.detection.scoring import MatchResult, match_detections
from swath.tasks.detection.tiled_inference import chosen, outlines
from swath.tasks.model import TaskModel
from swath.tasks.scores import TaskScores

_SHOWN = 3  # images, the worst and the best
_FAILURES = 12  # of each kind
_LARGEST, _TILE = 900, 128  # pixels of an image's longer side, and of a failure's square
_CLASSES = 8  # curves in a chart
_AROUND = 2.5  # side of a failure's square over the box's
Array = NDArray[Any]
KEY = (("found", RIGHT), ("wrong", WRONG), ("missed", MISSED), ("does not count", IGNORED))


def precision_curves(scores: TaskScores) -> str:
    """Precision over recall at IoU 0.5, of the classes with most boxes."""
    rows = sorted(scores.per_class, key=lambda row: -row["places"])
    named = [row["class"] for row in rows if scores.curves.get(row["class"])][:_CLASSES]
    if not named:
        return ""
    ticks = [f"{i}" if i % 20 == 0 else "" for i in range(101)]
    lines = [
        Line(name, [100 * v for v in scores.curves[name]], index=i, strong=len(named) == 1)
        for i, name in enumerate(named)
    ]
    title = "precision over recall, %, at IoU 0.5"
    drawn = line_chart(lines, ticks, title=title, x_label="recall, %", y_range=(0.0, 100.0), marks=False)
    key = "".join(
        f'<li><i style="background:{series_color(i)}"></i>{escape(name)}</li>' for i, name in enumerate(named)
    )
    return figure(
        SafeHtml(drawn), "Precision over recall, each class by itself", after=f'<ul class="key">{key}</ul>'
    )


def detection_gallery(model: TaskModel, split: Any, scores: TaskScores) -> str:
    """The worst and the best images, false detections with the highest scores, and what was missed.

    Args:
        model: The detector.
        split: What was scored.
        scores: With `found`, as `score_boxes` gives them.
    """
    threshold = float(scores.protocol["score"])
    numbers = scores.protocol.get("images_scored", list(range(len(split))))
    oriented = bool(model.task.oriented)
    truths = [split.truth(number) for number in numbers]
    outcomes = [
        match_detections(f, t, oriented=oriented) for f, t in zip(scores.detections, truths, strict=True)
    ]
    look = _BoxRenderer(model, split, numbers, scores.detections, truths, outcomes, threshold)
    key = "".join(f'<li><i style="background:rgb{shown}"></i>{escape(name)}</li>' for name, shown in KEY)
    known = [i for i in np.argsort(scores.images, kind="stable").tolist() if np.isfinite(scores.images[i])]
    worst, best = known[:_SHOWN], [i for i in known[::-1][:_SHOWN] if i not in known[:_SHOWN]]
    parts = [
        "<h2>What it finds</h2>",
        f"<p>Detections with a score of {threshold:.2f} and more, which gives the best F1 on these images; a "
        "true box is found where the IoU is 0.5 or more.</p>",
        f'<ul class="key">{key}</ul>',
        "<h3>Worst images</h3>" if worst else "",
        *(look.whole(i) for i in worst),
        "<h3>Best images</h3>" if best else "",
        *(look.whole(i) for i in best),
        "<h2>Failures</h2>",
        look.false(),
        look.missed(),
    ]
    return "".join(parts)


class _BoxRenderer:
    """Pictures of what became of boxes; images are read again as they are shown."""

    def __init__(
        self,
        model: TaskModel,
        split: Any,
        numbers: Sequence[int],
        found: Sequence[Detections],
        truths: Sequence[dict[str, Tensor]],
        outcomes: Sequence[MatchResult],
        threshold: float,
    ) -> None:
        self.model, self.split, self.numbers = model, split, numbers
        self.found, self.truths, self.outcomes, self.threshold = found, truths, outcomes, threshold
        self._last: tuple[int, Array] | None = None

    def whole(self, i: int) -> str:
        """Image i with everything on it."""
        picture = self._drawn(i)
        one, counts = self.outcomes[i], self._said(i)
        right = int((one.right & counts).sum())
        wrong = int((~one.right & ~one.ignored & counts).sum())
        missed = int(self._missed(i).sum())
        caption = f"{self._name(i)}: {right} found, {wrong} wrong, {missed} missed"
        return figure(_shrunk(picture), caption)

    def false(self) -> str:
        """Squares around the wrong detections with the highest scores."""
        wrong = [
            (float(self.found[i]["scores"][d]), i, d)
            for i, one in enumerate(self.outcomes)
            for d in np.flatnonzero(~one.right & ~one.ignored & self._said(i)).tolist()
        ]
        wrong.sort(key=lambda item: (-item[0], item[1:]))
        tiles = []
        for score, i, d in wrong[:_FAILURES]:
            name = self.model.classes[int(self.found[i]["labels"][d])]
            box = chosen(self.found[i], torch.tensor([d]))
            tiles.append((self._square(i, box), f"{name} {score:.2f}"))
        return _tiles("Wrong, with the highest scores", tiles, len(wrong), "no wrong detection")

    def missed(self) -> str:
        """Squares around true boxes that nothing has found, the largest first."""
        missed = []
        for i, truth in enumerate(self.truths):
            area = truth["obb"][:, 2:4].prod(1)
            missed += [(float(area[g]), i, g) for g in np.flatnonzero(self._missed(i)).tolist()]
        missed.sort(key=lambda item: (-item[0], item[1:]))
        tiles = []
        for _, i, g in missed[:_FAILURES]:
            by = float(self.outcomes[i].by[g])
            low = f", score {by:.2f}" if by else ""
            box: Detections = {"obb": self.truths[i]["obb"][g : g + 1]}
            name = self.model.classes[int(self.truths[i]["label"][g])]
            tiles.append((self._square(i, box), f"{name}{low}"))
        return _tiles("Missed, the largest", tiles, len(missed), "no object was missed")

    # ---- pieces

    def _said(self, i: int) -> NDArray[np.bool_]:
        return np.asarray(self.found[i]["scores"].double().numpy() >= self.threshold)

    def _missed(self, i: int) -> NDArray[np.bool_]:
        one = self.outcomes[i]
        return np.asarray(one.counted & (one.by < self.threshold))

    def _name(self, i: int) -> str:
        return "/".join(str(self.split.paths[self.numbers[i]]).split("/")[-2:])

    def _drawn(self, i: int) -> Array:
        if self._last is not None and self._last[0] == i:
            return self._last[1]
        try:
            picture = to_rgb(self.split.get_batch([self.numbers[i]]), self.split.sensor)
        except ImageryError:  # read a moment ago, gone now
            picture = np.zeros((_TILE, _TILE, 3), np.uint8)
        one, truth = self.outcomes[i], self._true(i)
        counts = self._said(i)
        for which, ink in ((~one.counted, IGNORED), (self._missed(i), MISSED)):
            picture = draw_outlines(picture, truth[torch.from_numpy(which)], ink, dashed=True)
        found = outlines(self.found[i])
        for which, ink in ((one.right & counts, RIGHT), (~one.right & ~one.ignored & counts, WRONG)):
            picture = draw_outlines(picture, found[torch.from_numpy(which)], ink)
        self._last = (i, picture)
        return picture

    def _true(self, i: int) -> Tensor:
        truth = self.truths[i]
        shown: Detections = {"obb": truth["obb"]} if "obb" in self.found[i] else {"boxes": truth["bbox_xyxy"]}
        return outlines(shown)

    def _square(self, i: int, box: Detections) -> Array:
        """A square of the drawn image around a box."""
        picture = self._drawn(i)
        edges = to_xyxy(box["obb"].double())[0] if "obb" in box else box["boxes"][0].double()
        left, top, right, bottom = edges.tolist()
        side = max(_AROUND * max(right - left, bottom - top), _TILE / 4)
        side = int(min(side, *picture.shape[:2]))
        x = int(min(max(0, (left + right - side) / 2), picture.shape[1] - side))
        y = int(min(max(0, (top + bottom - side) / 2), picture.shape[0] - side))
        return picture[y : y + side, x : x + side]


def _tiles(title: str, tiles: Sequence[tuple[Array, str]], count: int, nothing: str) -> str:
    if not tiles:
        return f'<h3>{escape(title)}</h3><p class="quiet">{escape(nothing)}</p>'
    shown = "".join(figure(_shrunk(picture, _TILE, grow=True), caption) for picture, caption in tiles)
    told = f"{len(tiles)} of {count}" if count > len(tiles) else f"all {count}"
    return f'<h3>{escape(title)} ({told})</h3><div class="panels">{shown}</div>'


def _shrunk(picture: Array, largest: int = _LARGEST, *, grow: bool = False) -> bytes:
    from PIL import Image

    drawn = Image.fromarray(picture)
    scale = largest / max(drawn.size)
    if scale < 1 or grow:
        size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
        drawn = drawn.resize(size, Image.Resampling.LANCZOS)
    return jpeg(drawn, quality=84)

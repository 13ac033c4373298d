"""How good detections are: COCO's average precision and DOTA's, for upright and for oriented boxes.

Both match the detections of a class to its true boxes by falling score and average the precision over recall.
They differ in how:

- **COCO** (`coco_ap`): ten IoU thresholds 0.50 ... 0.95; a detection takes the best true box that is still
  free; precision at 101 recalls; at most 100 detections a class and image; by size of the true box (small
  < 32^2 <= medium < 96^2 <= large, in square pixels). The same figures as pycocotools.
- **DOTA** (`voc_ap`), which is PASCAL VOC's with oriented boxes: one threshold, 0.5; a detection looks at its
  best true box only, and is wrong where that one is taken; precision at 11 recalls (VOC 2007) or the area
  under the curve.

*Difficult* true boxes count neither when they are found nor when they are missed. A *crowd* (COCO) moreover
swallows any number of detections, by the share of the detection that lies in it.

Intervals are bootstrap intervals over images (`swath.evaluation.measures.intervals` for means; a precision
is no mean, so here it is computed anew for each draw of images).

Legend: K classes, I images, D detections and G true boxes of one class, T thresholds, A ranges of area.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.tasks.detection.rotated_boxes import from_xyxy, rotated_iou

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """Figures between 0 and 1; NaN where there was nothing to find.

    Attributes:
        ap: COCO: mean over classes and thresholds; DOTA: mean over classes.
        per_class: The same, class by class.
        interval: Bootstrap interval of `ap` over images; None if not asked for.
        more: COCO: "ap50", "ap75", "small", "medium", "large".
        true_boxes: That were to be found, by class.
        more_intervals: Bootstrap intervals of COCO's "ap50" and "ap75".
        class_intervals: Bootstrap intervals of `per_class`.
        curves: By class the best precision at recalls of 0, 0.01, ..., 1 or more (`RECALLS`), at IoU 0.5
            (DOTA: at its threshold); empty where there was nothing to find.
    """

    ap: float
    per_class: dict[str, float]
    true_boxes: dict[str, int]
    interval: tuple[float, float] | None = None
    more: dict[str, float] = field(default_factory=dict)
    more_intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    class_intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    curves: dict[str, list[float]] = field(default_factory=dict)


@dataclass(slots=True)
class _Matches:
    """What became of a class's detections, by falling score, in A ranges of area at T thresholds."""

    scores: Array  # [D]
    image: NDArray[np.int64]  # [D]
    right: Bools  # [A, T, D]
    counts: Bools  # [A, T, D] False where neither right nor wrong
    wanted: NDArray[np.int64]  # [A, I] true boxes to be found in each image


def coco_ap(
    predictions: Sequence[Mapping[str, Any]],
    truths: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    *,
    oriented: bool = False,
    max_detections: int = 100,
    resamples: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> DetectionScores:
    """COCO's average precision.

    Args:
        predictions: One an image: `boxes` [N, 4] (left, top, right, bottom) or `obb` [N, 5]; `scores` [N],
            `labels` [N].
        truths: One an image, in the same order: `bbox_xyxy` [M, 4] or `obb` [M, 5], `label` [M]; optionally
            `difficult` [M], `crowd` [M], `area` [M] (square pixels, where it is not the box's).
        classes: Names; labels are their indices.
        oriented: Compare `obb` rather than upright boxes.
        max_detections: Best detections of a class that count in an image.
        resamples: Bootstrap samples for `interval`; 0 for none.
        level: Coverage of the interval.
        seed: Of the resampling.

    Raises:
        ValueError: Another number of predictions than of truths, or a label that is no class.
    """
    matches = [
        _coco_matches(one, max_detections) for one in _by_class(predictions, truths, classes, oriented)
    ]
    table = np.array([_coco_precision(match) for match in matches]).reshape(len(classes), len(AREAS), -1)
    ap: dict[str, float] = {name: _mean(table[:, a]) for a, name in enumerate(AREAS)}
    more = {"ap50": _mean(table[:, 0, 0]), "ap75": _mean(table[:, 0, 5])}
    draws = _replicates(matches, lambda m, w: _coco_precision(m, w, areas=1)[0], len(truths), resamples, seed)
    return DetectionScores(
        ap=ap.pop("all"),
        per_class={name: _mean(table[k, 0]) for k, name in enumerate(classes)},
        true_boxes={name: int(match.wanted[0].sum()) for name, match in zip(classes, matches, strict=True)},
        interval=_interval(draws, level),
        more=more | ap,
        more_intervals={} if draws is None else {
            name: _quantiles(draws[:, :, t : t + 1], level) for name, t in (("ap50", 0), ("ap75", 5))
        },
        class_intervals=_class_intervals(draws, classes, level),
        curves={name: _curve_at_recalls(match) for name, match in zip(classes, matches, strict=True)},
    )  # fmt: skip


def voc_ap(
    predictions: Sequence[Mapping[str, Any]],
    truths: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    *,
    oriented: bool = True,
    threshold: float = 0.5,
    method: Literal["11point", "area"] = "11point",
    resamples: int = 0,
    level: float = 0.95,
    seed: int = 0,
) -> DetectionScores:
    """DOTA's average precision (VOC's). Arguments as for `coco_ap`, and:

    Args:
        predictions: As there.
        truths: As there; a crowd counts as difficult.
        classes: As there.
        oriented: As there.
        threshold: IoU that a match has to exceed.
        method: "11point": mean of the best precision at recall 0, 0.1, ..., 1 or more (VOC 2007; DOTA's
            published figures); "area": area under the curve of best precisions (VOC 2010 on).
        resamples: As there.
        level: As there.
        seed: As there.
    """
    if method not in ("11point", "area"):
        raise ValueError(f"method is '11point' or 'area', not {method!r}")
    matches = [_voc_matches(one, threshold) for one in _by_class(predictions, truths, classes, oriented)]

    def precision(match: _Matches, weights: Array | None = None) -> Array:
        return _voc_precision(match, weights, method)

    each = [float(precision(match)[0, 0]) for match in matches]
    draws = _replicates(matches, lambda m, w: precision(m, w)[0], len(truths), resamples, seed)
    return DetectionScores(
        ap=_mean(np.array(each)),
        per_class=dict(zip(classes, each, strict=True)),
        true_boxes={name: int(match.wanted[0].sum()) for name, match in zip(classes, matches, strict=True)},
        interval=_interval(draws, level),
        class_intervals=_class_intervals(draws, classes, level),
        curves={name: _curve_at_recalls(match) for name, match in zip(classes, matches, strict=True)},
    )


# ------------------------------------------------------------------------------------------ one class's boxes


@dataclass(slots=True)
class _Image:
    """Boxes of one class in one image; detections by falling score."""

    scores: Array  # [D]
    iou: Array  # [D, G]
    area: Array  # [D]
    true_area: Array  # [G]
    difficult: Bools  # [G]
    crowd: Bools  # [G]


def _by_class(
    predictions: Sequence[Mapping[str, Any]],
    truths: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    oriented: bool,
) -> list[list[_Image]]:
    if len(predictions) != len(truths):
        raise ValueError(f"{len(predictions)} images were predicted, but {len(truths)} have truths")
    result: list[list[_Image]] = [[] for _ in classes]
    ours, theirs = ("obb", "obb") if oriented else ("boxes", "bbox_xyxy")
    for number, (prediction, truth) in enumerate(zip(predictions, truths, strict=True)):
        found, scores, labels = (_cpu(prediction[key]) for key in (ours, "scores", "labels"))
        true, true_labels = _cpu(truth[theirs]), _cpu(truth["label"])
        for what, all_labels in (("predicted", labels), ("true", true_labels)):
            if len(all_labels) and not 0 <= int(all_labels.min()) <= int(all_labels.max()) < len(classes):
                raise ValueError(f"image {number}: a {what} label is not among 0 ... {len(classes) - 1}")
        none = torch.zeros(len(true), dtype=torch.bool)
        difficult, crowd = (_cpu(truth.get(key, none)).bool() for key in ("difficult", "crowd"))
        true_area = _cpu(truth["area"]).double() if "area" in truth else _areas(true)
        for label, images in enumerate(result):
            d = (labels == label).nonzero().squeeze(1)
            d = d[scores[d].argsort(descending=True, stable=True)]
            g = (true_labels == label).nonzero().squeeze(1)
            images.append(
                _Image(
                    scores[d].double().numpy(),
                    _overlap(found[d], true[g], crowd[g]).numpy(),
                    _areas(found[d]).numpy(),
                    true_area[g].numpy(),
                    difficult[g].numpy(),
                    crowd[g].numpy(),
                )
            )
    return result


def _cpu(values: Any) -> Tensor:
    return torch.as_tensor(values).detach().cpu()


def _areas(boxes: Tensor) -> Tensor:
    boxes = boxes.double()
    return (boxes[:, 2:4] if boxes.shape[1] == 5 else boxes[:, 2:] - boxes[:, :2]).prod(1)


def _overlap(found: Tensor, true: Tensor, crowd: Tensor) -> Tensor:
    """[D, G] IoU; with a crowd the share of the detection that lies in it."""
    if found.shape[1] == 4:
        found, true = from_xyxy(found.double()), from_xyxy(true.double())
    iou = rotated_iou(found, true)
    return torch.where(crowd, rotated_iou(found, true, of="first"), iou) if bool(crowd.any()) else iou


# ------------------------------------------------------------------------------------------------------ COCO


def _coco_matches(images: Sequence[_Image], max_detections: int) -> _Matches:
    low, high = np.array(list(AREAS.values())).T[:, :, None]  # [A, 1]
    parts = []
    for image in images:
        count = min(len(image.scores), max_detections)
        outside = (image.true_area < low) | (image.true_area > high)
        ignore = (image.difficult | image.crowd | outside)[:, None]  # [A, 1, G]
        shape = (len(AREAS), len(THRESHOLDS))
        taken = np.zeros((*shape, len(image.true_area)), dtype=np.bool_)
        matched = np.zeros((*shape, count), dtype=np.bool_)
        # A detection that matches nothing counts as wrong only where its own size is in the range.
        ignored = np.broadcast_to(
            ((image.area[:count] < low) | (image.area[:count] > high))[:, None], (*shape, count)
        ).copy()
        thresholds = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
        for d in range(count if len(image.true_area) else 0):
            iou = image.iou[d]
            can = (~taken | image.crowd) & (iou >= thresholds)
            serious = can & ~ignore
            # A true box that counts goes first, however well one that does not would fit.
            use = np.where(serious.any(-1, keepdims=True), serious, can)
            hit = use.any(-1)
            # Of equal overlaps the last, as in pycocotools, which asks for "not less than the best so far".
            best = len(iou) - 1 - np.where(use, iou, -1.0)[..., ::-1].argmax(-1)
            a, t = np.nonzero(hit)
            taken[a, t, best[a, t]] = True
            matched[:, :, d] = hit
            ignored[a, t, d] = np.broadcast_to(ignore, taken.shape)[a, t, best[a, t]]
        parts.append((image.scores[:count], matched & ~ignored, ~ignored, (~ignore[:, 0]).sum(-1)))
    return _gathered(parts)


def _gathered(parts: Sequence[tuple[Array, Bools, Bools, NDArray[np.int64]]]) -> _Matches:
    """The images' (scores, right, counts, wanted) together, by falling score."""
    scores = np.concatenate([part[0] for part in parts])
    order = np.argsort(-scores, kind="stable")
    image = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    right, counts = (np.concatenate([part[i] for part in parts], axis=-1)[..., order] for i in (1, 2))
    return _Matches(scores[order], image[order], right, counts, np.stack([p[3] for p in parts], axis=1))


def _curve(match: _Matches, weights: Array | None, areas: int) -> tuple[Array, Array, Array]:
    """Recall and precision [A, T, D] after each detection, and true boxes [A]; images count `weights` [I]."""
    own = np.ones(match.wanted.shape[1]) if weights is None else weights
    total = match.wanted[:areas] @ own
    weight = own[match.image]
    right = np.cumsum(match.right[:areas] * weight, axis=-1)
    counted = np.cumsum(match.counts[:areas] * weight, axis=-1)
    recall = right / np.maximum(total, 1e-12)[:, None, None]
    return recall, right / np.maximum(counted, 1e-12), total


def _coco_precision(match: _Matches, weights: Array | None = None, areas: int = len(AREAS)) -> Array:
    """Mean precision [A, T] over the 101 recalls."""
    recall, precision, total = _curve(match, weights, areas)
    best = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    result = np.full(recall.shape[:2], np.nan)
    for a, t in np.ndindex(*result.shape):
        if total[a] > 0:
            at = np.searchsorted(recall[a, t], RECALLS, side="left")
            result[a, t] = np.append(best[a, t], 0.0)[at].mean()
    return result


# ------------------------------------------------------------------------------------------------- VOC, DOTA


def _voc_matches(images: Sequence[_Image], threshold: float) -> _Matches:
    parts = []
    for image in images:
        count = len(image.scores)
        easy = ~(image.difficult | image.crowd)
        right, counts = np.zeros(count, dtype=np.bool_), np.ones(count, dtype=np.bool_)
        taken = np.zeros(len(easy), dtype=np.bool_)
        for d in range(count if len(easy) else 0):
            best = int(image.iou[d].argmax())
            if image.iou[d, best] > threshold:
                counts[d] = easy[best]
                right[d] = easy[best] and not taken[best]
                taken[best] = True
        parts.append((image.scores, right[None, None], counts[None, None], np.array([easy.sum()])))
    return _gathered(parts)


def _voc_precision(match: _Matches, weights: Array | None, method: str) -> Array:
    recall, precision, total = (x[0] for x in _curve(match, weights, 1))
    if not total > 0:
        return np.full((1, 1), np.nan)
    best = np.append(np.maximum.accumulate(precision[0, ::-1])[::-1], 0.0)
    if method == "11point":
        # Tenths of recall are met exactly by some counts, so they are compared with a little tolerance.
        at = np.searchsorted(recall[0], np.linspace(0, 1, 11) - 1e-12, side="left")
        return np.array([[best[at].mean()]])
    return np.array([[(np.diff(recall[0], prepend=0.0) * best[:-1]).sum()]])


# --------------------------------------------------------------------------------------------------- together


def _mean(values: Array) -> float:
    """Of what there is; NaN where there is nothing."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")


def _curve_at_recalls(match: _Matches) -> list[float]:
    """Best precision at `RECALLS` or more, at the first threshold; empty where there is nothing to find."""
    recall, precision, total = (x[0] for x in _curve(match, None, 1))
    if not total > 0:
        return []
    best = np.append(np.maximum.accumulate(precision[0, ::-1])[::-1], 0.0)
    return [float(x) for x in best[np.searchsorted(recall[0], RECALLS - 1e-12, side="left")]]


def _replicates(
    matches: Sequence[_Matches], precision: Any, images: int, resamples: int, seed: int
) -> Array | None:
    """Precisions [R, K, T] of R draws of images: a draw weights every image by how often it was drawn."""
    if not resamples:
        return None
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(images, np.full(images, 1 / images), size=resamples).astype(np.float64)
    return np.array([[precision(match, draw) for match in matches] for draw in draws])


def _quantiles(draws: Array, level: float) -> tuple[float, float]:
    """Percentile interval of the mean over all but the first axis; (NaN, NaN) where it is never defined."""
    means = np.array([_mean(draw) for draw in draws])
    if np.isnan(means).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _interval(draws: Array | None, level: float) -> tuple[float, float] | None:
    return None if draws is None else _quantiles(draws, level)


def _class_intervals(
    draws: Array | None, classes: Sequence[str], level: float
) -> dict[str, tuple[float, float]]:
    if draws is None:
        return {}
    return {name: _quantiles(draws[:, k], level) for k, name in enumerate(classes)}

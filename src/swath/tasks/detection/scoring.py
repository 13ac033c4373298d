"""How well a detector does on a split: average precision, and what became of every detection and true box.

AP judges a ranking, whatever the scores are. To show people detections, and for precision and recall, a score
has to be chosen from which a detection counts: here it is the one with the best F1 on the split itself (all
classes together, IoU 0.5), which is stated; it is a description of the split, not a promise for the next one.

Legend: N images, D detections and G true boxes of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swath.datasets.collation import map_tensors
from swath.errors import ImageryError
from swath.evaluation.measures.intervals import Estimate
from swath.models.contract import Contract
from swath.tasks.dense.tiled_inference import rescale_batch
from swath.tasks.detection.average_precision import coco_ap, voc_ap
from swath.tasks.detection.data.dataset import BOXES
from swath.tasks.detection.detectors.common import Detections
from swath.tasks.detection.rotated_boxes import from_xyxy, rotated_iou
from swath.tasks.detection.tiled_inference import scale_boxes
from swath.tasks.detection.windows import detect_image
from swath.tasks.protocol import normalize_task_batch
from swath.tasks.scores import TaskScores

MATCH = 0.5  # IoU from which a detection has found a true box


@dataclass(frozen=True, slots=True)
class MatchResult:
    """What became of an image's detections and true boxes, each detection by falling score taking a box.

    Attributes:
        right: [D] has found a true box that nobody had found before.
        ignored: [D] has found a difficult one, or lies in a crowd: neither right nor wrong.
        by: [G] score of the detection that found each true box; 0 where it was missed.
        counted: [G] not difficult.
    """

    right: NDArray[np.bool_]
    ignored: NDArray[np.bool_]
    by: NDArray[np.float64]
    counted: NDArray[np.bool_]


def score_boxes(
    task: Any,
    contract: Contract,
    dataset: Any,
    device: torch.device,
    *,
    scale: float = 1.0,
    resamples: int = 500,
) -> TaskScores:
    """Scores of a detector on all images of a split.

    They are looked at as `swath predict` would: in the detector's windows, and at the scale nearest to their
    own that training has shown.

    Args:
        task: A `DetectionTask` in evaluation mode.
        contract: Of its images.
        dataset: A split, as `DetectionImages`.
        device: Where the task is.
        scale: Images are moreover reduced to this share of their sides before they are looked at (the GSD
            follows), and boxes enlarged again.
        resamples: Bootstrap samples of the intervals; 0: no intervals.

    Raises:
        ImageryError: No image of the split can be read.
    """
    found, truths, numbers, unreadable = [], [], [], []
    for number in range(len(dataset)):
        try:
            batch = dataset.get_batch([number])
        except ImageryError as error:
            unreadable.append(str(error))
            continue
        found.append(detect_at_scale(task, contract, batch, device, scale * dataset.zoom))
        truths.append({key: batch[key][0] for key in BOXES})
        numbers.append(number)
    if not found:
        raise ImageryError(f"no image of the split can be read; the first: {unreadable[0]}")
    scores = box_scores(
        found, truths, task.config.classes, oriented=task.oriented, by=task.config.by, resamples=resamples
    )
    if unreadable:
        scores.protocol |= {"unreadable": unreadable, "images_scored": numbers}
    return scores


def detect_at_scale(
    task: Any, contract: Contract, batch: Any, device: torch.device, zoom: float = 1.0
) -> Detections:
    """What is found in the one image of a batch at a zoom, in its own pixels, on the CPU."""
    height, width = batch["image"].shape[2:]
    ready = rescale_batch(normalize_task_batch(contract, map_tensors(batch, lambda x: x.to(device))), zoom)
    seen = ready["image"].shape[2:]
    return scale_boxes(detect_image(task, ready), width / seen[1], height / seen[0])


def box_scores(
    detections: Sequence[Detections],
    truths: Sequence[Mapping[str, Tensor]],
    classes: Sequence[str],
    *,
    oriented: bool,
    by: Literal["coco", "dota"],
    resamples: int = 500,
) -> TaskScores:
    """Scores of detections, image by image.

    Args:
        detections: Of N images.
        truths: Their true boxes.
        classes: Names.
        oriented: Whether `obb` are compared, or upright boxes.
        by: COCO's AP (ten IoUs from 0.5 to 0.95), or DOTA's (IoU 0.5, precision at 11 recalls).
        resamples: Bootstrap samples of the intervals; 0: no intervals (they are NaN).

    Returns:
        ``ap``, by COCO also ``ap50`` and ``ap75``; ``precision``, ``recall`` and ``f1`` at the score that the
        protocol states. Figures are NaN where there was nothing to find.
    """
    measure: Any = coco_ap if by == "coco" else voc_ap
    told = measure(detections, truths, classes, oriented=oriented, resamples=resamples)
    outcomes = [
        match_detections(one, truth, oriented=oriented) for one, truth in zip(detections, truths, strict=True)
    ]
    scores = [one["scores"].double().numpy() for one in detections]
    threshold = best_f1_threshold(outcomes, scores)
    counts = np.array([_counts(one, s, threshold) for one, s in zip(outcomes, scores, strict=True)])
    figures = {"ap": Estimate(told.ap, *(told.interval or ()))}
    figures |= {
        name: Estimate(told.more[name], *(told.more_intervals.get(name) or ()))
        for name in told.more_intervals
    }
    if by == "coco" and not resamples:
        figures |= {name: Estimate(told.more[name]) for name in ("ap50", "ap75")}
    figures |= _at_score(counts, resamples)
    rows = []
    for k, name in enumerate(classes):
        each = zip(outcomes, scores, detections, truths, strict=True)
        of_class = np.array(
            [
                _counts(one, s, threshold, said["labels"].numpy() == k, truth["label"].numpy() == k)
                for one, s, said, truth in each
            ]
        )
        rows.append(
            {
                "class": name,
                "places": told.true_boxes[name],
                "ap": Estimate(told.per_class[name], *(told.class_intervals.get(name) or ())),
                **_at_score(of_class, resamples),
            }
        )
    with np.errstate(invalid="ignore"):
        images = 2 * counts[:, 0] / (counts[:, 1] + counts[:, 2])
    result = TaskScores("ap", figures, rows, None, images, curves=told.curves, detections=list(detections))
    sizes = {name: told.more[name] for name in ("small", "medium", "large") if name in told.more}
    result.protocol = {"ap": "COCO" if by == "coco" else "DOTA", "score": threshold, "by_size": sizes}
    return result


def match_detections(detections: Detections, truth: Mapping[str, Tensor], *, oriented: bool) -> MatchResult:
    """What became of the detections and the true boxes of an image, at an IoU of `MATCH`.

    A detection takes the best true box of its class that is still free; one that counts before a difficult
    one. A crowd takes any number, by the share of the detection that lies in it.
    """
    if oriented:
        boxes, true = detections["obb"], truth["obb"]
    else:
        boxes, true = from_xyxy(detections["boxes"]), from_xyxy(truth["bbox_xyxy"])
    iou = rotated_iou(boxes, true)
    crowd, difficult = truth["crowd"].numpy(), truth["difficult"].numpy()
    if crowd.any():
        iou = torch.where(truth["crowd"], rotated_iou(boxes, true, of="first"), iou)
    overlap = torch.where(detections["labels"][:, None] == truth["label"], iou, 0.0).numpy()
    scores = detections["scores"].double().numpy()
    by = np.zeros(len(true))
    free = np.ones(len(true), dtype=np.bool_)
    right = np.zeros(len(scores), dtype=np.bool_)
    ignored = np.zeros(len(scores), dtype=np.bool_)
    for d in range(len(scores) if len(true) else 0):
        can = (overlap[d] >= MATCH) & (free | crowd)
        serious = can & ~difficult
        use = serious if serious.any() else can
        if use.any():
            best = int(np.where(use, overlap[d], -1).argmax())
            free[best] = False
            right[d], ignored[d] = not difficult[best], difficult[best]
            by[best] = max(by[best], scores[d])
    return MatchResult(right, ignored, by, ~difficult)


def best_f1_threshold(outcomes: Sequence[MatchResult], scores: Sequence[NDArray[np.float64]]) -> float:
    """The score from which detections are counted: that of the best F1 over all images; 0.5 without any."""
    wanted = sum(int(one.counted.sum()) for one in outcomes)
    every = np.concatenate([s[~one.ignored] for one, s in zip(outcomes, scores, strict=True)])
    right = np.concatenate([one.right[~one.ignored] for one in outcomes])
    if not len(every) or not right.any():
        return 0.5
    order = np.argsort(-every, kind="stable")
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(order) + 1) + wanted)
    return float(every[order][int(f1.argmax())])


def _counts(
    one: MatchResult,
    scores: NDArray[np.float64],
    threshold: float,
    mine: NDArray[np.bool_] | None = None,
    theirs: NDArray[np.bool_] | None = None,
) -> tuple[int, int, int]:
    """(right, detections that count, true boxes) of an image from a score on; of some of its boxes."""
    use = (scores >= threshold) & ~one.ignored & (True if mine is None else mine)
    wanted = one.counted & (True if theirs is None else theirs)
    return int((one.right & use).sum()), int(use.sum()), int(wanted.sum())


def _at_score(counts: NDArray[Any], resamples: int) -> dict[str, Estimate]:
    """Precision, recall and F1 from each image's (right, said, true) [N, 3], with their intervals."""

    def figures(c: NDArray[Any]) -> NDArray[np.float64]:
        right, said, true = c[..., 0], c[..., 1], c[..., 2]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack([right / said, right / true, 2 * right / (said + true)])

    exact = figures(counts.sum(axis=0, dtype=np.float64))
    names = ("precision", "recall", "f1")
    if not resamples:
        return {name: Estimate(float(v)) for name, v in zip(names, exact, strict=True)}
    n = len(counts)
    weights = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=resamples)
    drawn = figures((weights @ counts).astype(np.float64))
    return {
        name: Estimate.from_replicates(v, draws) for name, v, draws in zip(names, exact, drawn, strict=True)
    }

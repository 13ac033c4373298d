"""Average precision: equal to pycocotools' and to VOC's own loop, with crowds, difficult boxes and sizes."""

from __future__ import annotations

import contextlib
import io
import math

import numpy as np
import pytest
import torch

from swath.tasks.detection.average_precision import coco_ap, voc_ap
from swath.tasks.detection.rotated_boxes import from_xyxy, rotated_iou, to_xyxy

CLASSES = ["ship", "plane", "lake"]


def scenes(seed: int, images: int = 12, *, crowd: bool = False):
    """Truths, and detections of which many are moved truths, some doubled and some made up."""
    rng = np.random.default_rng(seed)
    truths, predictions = [], []
    for image in range(images):
        count = 0 if image == 3 else int(rng.integers(1, 9))
        size = np.exp(rng.uniform(math.log(8), math.log(160), (count, 2)))
        place = rng.uniform(0, 300, (count, 2))
        obb = np.concatenate([place, size, rng.uniform(-1.5, 1.5, (count, 1))], 1)
        again = rng.integers(0, max(count, 1), 0 if count == 0 else 2 * count)
        moved = obb[again] + rng.normal(0, 0.06, (len(again), 5)) * [*[20] * 4, 0.6]
        moved[:, 2:4] = np.abs(moved[:, 2:4]) + 1
        fake = np.concatenate(
            [rng.uniform(0, 300, (4, 2)), rng.uniform(5, 80, (4, 2)), rng.uniform(-1, 1, (4, 1))], 1
        )
        found = torch.from_numpy(np.concatenate([moved, fake]))
        truth = torch.from_numpy(obb)
        label = torch.from_numpy(rng.integers(0, 2, count))  # never a lake
        truths.append(
            {
                "obb": truth,
                "bbox_xyxy": to_xyxy(truth),
                "label": label,
                "crowd": torch.from_numpy(rng.random(count) < (0.2 if crowd else 0.0)),
            }
        )
        labels = torch.cat([label[again], torch.from_numpy(rng.integers(0, 3, 4))])
        scores = torch.from_numpy(np.round(rng.random(len(found)), 1 if seed % 2 else 6))  # with many ties
        predictions.append({"obb": found, "boxes": to_xyxy(found), "scores": scores, "labels": labels})
    return predictions, truths


def by_pycocotools(predictions, truths, *, oriented: bool, max_detections: int = 100) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def xywh(boxes):
        return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1).tolist()

    annotations, results, obb = [], [], {}
    for image, (prediction, truth) in enumerate(zip(predictions, truths, strict=True), 1):
        area = truth["obb"][:, 2:4].prod(1) if oriented else None
        for i, box in enumerate(xywh(truth["bbox_xyxy"])):
            obb["true", len(annotations) + 1] = truth["obb"][i]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(truth["label"][i]) + 1,
                    "bbox": box,
                    "area": float(area[i]) if oriented else box[2] * box[3],
                    "iscrowd": int(truth["crowd"][i]),
                }
            )
        for i, box in enumerate(xywh(prediction["boxes"])):
            obb["found", len(results) + 1] = prediction["obb"][i]
            results.append(
                {
                    "image_id": image,
                    "category_id": int(prediction["labels"][i]) + 1,
                    "bbox": box,
                    "score": float(prediction["scores"][i]),
                }
            )

    class Oriented(COCOeval):
        def computeIoU(self, imgId, catId):
            gt, dt = self._gts[imgId, catId], self._dts[imgId, catId]
            if not gt and not dt:
                return []
            dt = [dt[i] for i in np.argsort([-d["score"] for d in dt], kind="mergesort")]
            dt = dt[: self.params.maxDets[-1]]
            if not gt or not dt:
                return np.zeros((len(dt), len(gt)))
            a = torch.stack([obb["found", d["id"]] for d in dt])
            b = torch.stack([obb["true", g["id"]] for g in gt])
            crowd = torch.tensor([bool(g["iscrowd"]) for g in gt])
            return torch.where(crowd, rotated_iou(a, b, of="first"), rotated_iou(a, b)).numpy()

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(1, len(truths) + 1)],
            "annotations": annotations,
            "categories": [{"id": k, "name": name} for k, name in enumerate(CLASSES, 1)],
        }
        coco.createIndex()
        detections = coco.loadRes(results)
        if oriented:
            for result in detections.dataset["annotations"]:
                result["area"] = float(obb["found", result["id"]][2:4].prod())
        evaluation = (Oriented if oriented else COCOeval)(coco, detections, "bbox")
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"]  # [T, R, K, A, M]

    def mean(x):
        return float(x[x > -1].mean()) if (x > -1).any() else float("nan")

    last = precision[..., -1]
    return [mean(last[..., 0]), mean(last[0, :, :, 0]), mean(last[5, :, :, 0])] + [
        mean(last[..., a]) for a in (1, 2, 3)
    ]


def figures(scores) -> list[float]:
    return [scores.ap, *(scores.more[name] for name in ("ap50", "ap75", "small", "medium", "large"))]


@pytest.mark.parametrize("oriented", [False, True])
@pytest.mark.parametrize("crowd", [False, True])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_coco_is_pycocotools(oriented, crowd, seed):
    predictions, truths = scenes(seed, crowd=crowd)
    for most in (100, 3):
        ours = figures(coco_ap(predictions, truths, CLASSES, oriented=oriented, max_detections=most))
        theirs = by_pycocotools(predictions, truths, oriented=oriented, max_detections=most)
        assert np.allclose(ours, theirs, atol=1e-6, equal_nan=True)
    assert 0.05 < ours[0] < 0.95


def voc_by_hand(predictions, truths, label, threshold, method):
    """The loop of VOC's development kit, over all images at once."""
    rows = []
    for image, prediction in enumerate(predictions):
        rows += [
            (float(s), image, prediction["obb"][i])
            for i, s in enumerate(prediction["scores"])
            if prediction["labels"][i] == label
        ]
    rows.sort(key=lambda row: -row[0])
    taken, tp, fp = set(), [], []
    for _, image, box in rows:
        truth = truths[image]
        own = [i for i in range(len(truth["label"])) if truth["label"][i] == label]
        iou = rotated_iou(box[None], truth["obb"][own])[0] if own else torch.zeros(0)
        best = int(iou.argmax()) if own else -1
        hit = bool(own) and float(iou[best]) > threshold
        if hit and truth["difficult"][own[best]]:
            tp.append(0), fp.append(0)
            continue
        new = hit and (image, best) not in taken
        taken |= {(image, best)} if hit else set()
        tp.append(int(new)), fp.append(int(not new))
    total = sum(int(((t["label"] == label) & ~t["difficult"]).sum()) for t in truths)
    if total == 0:
        return float("nan")
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    recall, precision = tp / total, tp / np.maximum(tp + fp, 1e-9)
    if method == "11point":
        tenths = [k / 10 for k in range(11)]
        return sum(max(precision[recall >= t - 1e-9], default=0.0) for t in tenths) / 11
    recall, precision = np.r_[0, recall, 1], np.r_[0, precision, 0]
    for i in range(len(precision) - 1, 0, -1):
        precision[i - 1] = max(precision[i - 1], precision[i])
    step = np.nonzero(recall[1:] != recall[:-1])[0]
    return float(((recall[step + 1] - recall[step]) * precision[step + 1]).sum())


@pytest.mark.parametrize("method", ["11point", "area"])
@pytest.mark.parametrize("seed", [0, 2])
def test_dota_is_the_loop_of_the_development_kit(method, seed):
    predictions, truths = scenes(seed)
    for number, truth in enumerate(truths):
        truth["difficult"] = torch.arange(len(truth["label"])) % 4 == number % 4
    scores = voc_ap(predictions, truths, CLASSES, method=method)
    expected = [voc_by_hand(predictions, truths, label, 0.5, method) for label in range(3)]
    assert np.allclose(list(scores.per_class.values()), expected, atol=1e-9, equal_nan=True)
    assert scores.ap == pytest.approx(np.nanmean(expected))
    assert math.isnan(scores.per_class["lake"])


def test_upright_oriented_boxes_score_as_upright_ones():
    predictions, truths = scenes(4)
    for one, key in [(p, "boxes") for p in predictions] + [(t, "bbox_xyxy") for t in truths]:
        one["obb"] = from_xyxy(one[key])
    upright, oriented = (coco_ap(predictions, truths, CLASSES, oriented=o) for o in (False, True))
    assert np.allclose(figures(upright), figures(oriented), atol=1e-9, equal_nan=True)


def test_perfect_none_and_wrong():
    _, truths = scenes(0)
    perfect = [
        {"boxes": t["bbox_xyxy"], "scores": torch.ones(len(t["label"])), "labels": t["label"]} for t in truths
    ]
    assert coco_ap(perfect, truths, CLASSES).ap == pytest.approx(1)
    assert voc_ap(perfect, truths, CLASSES, oriented=False, method="area").ap == pytest.approx(1)
    nothing = [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)}] * len(truths)
    assert coco_ap(nothing, truths, CLASSES).ap == 0
    with pytest.raises(ValueError, match="11 images were predicted, but 12"):
        coco_ap(nothing[1:], truths, CLASSES)
    with pytest.raises(ValueError, match="true label"):
        coco_ap(nothing, truths, CLASSES[:1])
    with pytest.raises(ValueError, match="method"):
        voc_ap(nothing, truths, CLASSES, method="10point")


def test_intervals_hold_the_figure_and_shrink_with_more_images():
    few = coco_ap(*scenes(0, 10), CLASSES, resamples=100)
    many = coco_ap(*scenes(0, 40), CLASSES, resamples=100)
    for scores in (few, many):
        assert scores.interval[0] <= scores.ap <= scores.interval[1]
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]
    again = coco_ap(*scenes(0, 10), CLASSES, resamples=100)
    assert again.interval == few.interval
    assert voc_ap(*scenes(0, 10), CLASSES, resamples=20).interval is not None

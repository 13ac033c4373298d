"""Boxes from files: four layouts in one form, bad boxes refused or listed, tiles, augmentation, real data."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from swath.errors import ImageryError
from swath.tasks.detection.data.annotations import read_annotations
from swath.tasks.detection.data.augmentation import (
    flip_rotate_boxes,
    random_crop,
    random_flip_rotate_boxes,
    random_scale,
    rescale,
)
from swath.tasks.detection.data.dataset import DetectionDataset, collate_detections, tile_windows
from swath.tasks.detection.rotated_boxes import pair_iou, to_xyxy

BOXES = [
    ("car", (10, 20, 30, 32)),
    ("ship", (40, 5, 60, 45)),
    ("car", (0, 0, 8, 8)),
]  # left, top, right, bottom
OPTIONS = {"sensor": "rgb_aerial", "gsd": 0.5}


def picture(path, width=64, height=48, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def coco(root, boxes=BOXES, **image):
    picture(root / "images" / "a.png")
    names = sorted({name for name, _ in boxes})
    data = {
        "images": [{"id": 7, "file_name": "a.png", **image}],
        "categories": [{"id": 3 + i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": 3 + names.index(name), "bbox": [x, y, r - x, b - y]}
            for i, (name, (x, y, r, b)) in enumerate(boxes)
        ],
    }
    (root / "boxes.json").write_text(json.dumps(data))
    return root / "boxes.json"


def yolo(root, oriented=False):
    picture(root / "images" / "train" / "a.png")
    picture(root / "images" / "train" / "empty.png")
    (root / "labels" / "train").mkdir(parents=True)
    lines = []
    for name, (x, y, r, b) in BOXES:
        label = ["car", "ship"].index(name)
        if oriented:
            points = [x / 64, y / 48, r / 64, y / 48, r / 64, b / 48, x / 64, b / 48]
            lines.append(" ".join(map(str, [label, *points])))
        else:
            lines.append(f"{label} {(x + r) / 128} {(y + b) / 96} {(r - x) / 64} {(b - y) / 48}")
    (root / "labels" / "train" / "a.txt").write_text("\n".join(lines) + "\n\n")
    (root / "data.yaml").write_text("names: {0: car, 1: ship}\ntrain: images/train\n")
    return root


def dota(root):
    picture(root / "images" / "a.png")
    (root / "labelTxt").mkdir()
    lines = ["imagesource:GoogleEarth", "gsd:0.25"]
    for i, (name, (x, y, r, b)) in enumerate(BOXES):
        lines.append(f"{x} {y} {r} {y} {r} {b} {x} {b} {name} {int(i == 2)}")
    (root / "labelTxt" / "a.txt").write_text("\n".join(lines))
    return root


def voc(root):
    picture(root / "a.png")
    things = "".join(
        f"<object><name>{name}</name><difficult>{int(i == 2)}</difficult>"
        f"<bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{r}</xmax><ymax>{b}</ymax></bndbox></object>"
        for i, (name, (x, y, r, b)) in enumerate(BOXES)
    )
    (root / "a.xml").write_text(f"<annotation><!-- by hand -->{things}</annotation>")
    return root


@pytest.mark.parametrize(
    "write", [coco, yolo, lambda root: yolo(root, oriented=True), dota, voc],
    ids=["coco", "yolo", "yolo-oriented", "dota", "voc"],
)  # fmt: skip
def test_every_layout_is_the_same_data_set(tmp_path, write):
    data = DetectionDataset(write(tmp_path), **OPTIONS)
    assert data.classes == ["car", "ship"]
    sample = data[0]
    assert sample["image"].shape == (3, 48, 64)
    assert sample["gsd"] == 0.5
    assert torch.allclose(sample["bbox_xyxy"], torch.tensor([box for _, box in BOXES]).float(), atol=1e-3)
    assert sample["label"].tolist() == [0, 1, 0]
    assert torch.allclose(to_xyxy(sample["obb"]), sample["bbox_xyxy"], atol=1e-4)
    assert (sample["obb"][:, 2] >= sample["obb"][:, 3]).all()
    assert sample["difficult"].tolist() == [False, False, write in (dota, voc)]
    assert not data.problems
    if data.paths[-1].endswith("empty.png"):
        assert data[1]["bbox_xyxy"].shape == (0, 4)
        assert data[1]["obb"].shape == (0, 5)


def test_a_quadrilateral_becomes_its_oriented_box(tmp_path):
    dota(tmp_path)
    (tmp_path / "labelTxt" / "a.txt").write_text("30 10 40 20 30 30 20 20 car\n")
    data = DetectionDataset(tmp_path, "rgb_aerial", 1.0)
    assert data[0]["bbox_xyxy"].tolist() == [[20, 10, 40, 30]]
    assert data[0]["obb"][0, 2:4].tolist() == pytest.approx([200**0.5] * 2, abs=1e-3)
    assert abs(float(data[0]["obb"][0, 4])) == pytest.approx(math.pi / 4, abs=1e-4)


def test_gsd_can_be_what_the_annotations_state(tmp_path):
    assert DetectionDataset(dota(tmp_path), "rgb_aerial", "gsd")[0]["gsd"] == 0.25
    with pytest.raises(ImageryError, match="gsd_m=None"):
        DetectionDataset(tmp_path, "rgb_aerial", "gsd_m")
    with pytest.raises(ImageryError, match="GSD is unknown"):
        DetectionDataset(tmp_path, "rgb_aerial")


BAD = [
    ("car", (10, 10, 20, 20)),
    ("car", (30, 20, 10, 10)),  # inverted
    ("car", (50, 40, 90, 60)),  # beyond the edge
    ("car", (70, 10, 90, 20)),  # outside
    ("car", (10, 10, 10, 20)),  # no area
    ("car", (10, 10, math.nan, 20)),
]


def test_boxes_that_make_no_sense_are_refused_with_their_number(tmp_path):
    with pytest.raises(ImageryError, match=r"1 inverted.*1 beyond.*annotation 1.*invalid_boxes='repair'"):
        DetectionDataset(coco(tmp_path, BAD), **OPTIONS)


def test_or_put_right_and_listed(tmp_path):
    data = DetectionDataset(coco(tmp_path, BAD), **OPTIONS, invalid_boxes="repair")
    assert data[0]["bbox_xyxy"].tolist() == [[10, 10, 20, 20], [10, 10, 30, 20], [50, 40, 64, 48]]
    assert sum(data.repairs.values()) == len(data.problems) == 5
    assert {kind.split(":")[0] for kind in data.repairs} == {
        "inverted", "beyond the image's edge", "outside the image", "without area", "not a number",
    }  # fmt: skip
    assert all("boxes.json, annotation" in reason for _, reason in data.problems)


@pytest.mark.parametrize(
    ("write", "change", "message"),
    [
        (coco, lambda p: (p / "boxes.json").write_text("{"), "is not a JSON"),
        (coco, lambda p: (p / "boxes.json").write_text("{}"), "is not COCO's format"),
        (coco, lambda p: (p / "boxes.json").write_text('{"images": [], "categories": [], "annotations": '
         '[{"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4]}]}'), "does not list"),
        (yolo, lambda p: (p / "labels/train/a.txt").write_text("0 0.5 0.5 0.1\n"), "a.txt, line 1"),
        (yolo, lambda p: (p / "labels/train/a.txt").write_text("5 0.5 0.5 0.1 0.1\n"), "class below 2"),
        (yolo, lambda p: (p / "labels/train/a.txt").write_text("0 a b c d\n"), "not all numbers"),
        (yolo, lambda p: (p / "data.yaml").write_text("nc: 2\n"), "no list 'names'"),
        (dota, lambda p: (p / "labelTxt/a.txt").write_text("\n1 2 3 4 car\n"), "a.txt, line 2"),
        (voc, lambda p: (p / "a.xml").write_text("<annotation>"), "is not XML"),
        (voc, lambda p: (p / "a.xml").write_text("<a><object/></a>"), "object 1: has no <name>"),
        (voc, lambda p: (p / "a.xml").write_text("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"), "document"),
        (voc, lambda p: (p / "a.xml").write_bytes("<!DOCTYPE a><a/>".encode("utf-16")), "UTF-8"),
        (voc, lambda p: (p / "a.png").unlink(), "no image of that name"),
    ],
)  # fmt: skip
def test_files_that_are_not_what_they_should_be(tmp_path, write, change, message):
    path = write(tmp_path)
    change(tmp_path)
    with pytest.raises(ImageryError, match=message):
        DetectionDataset(path, **OPTIONS)


def test_unknown_layouts_classes_fields_and_broken_images(tmp_path):
    path = coco(tmp_path, site="north")
    with pytest.raises(ImageryError, match="name the file"):
        read_annotations(tmp_path)
    with pytest.raises(ImageryError, match="no such file"):
        read_annotations(tmp_path / "nothing")
    with pytest.raises(ImageryError, match="'ship' is none"):
        DetectionDataset(path, **OPTIONS, classes=["car"])
    with pytest.raises(ImageryError, match="none of 1 images"):
        DetectionDataset(path, **OPTIONS, where={"site": "south"})
    assert len(DetectionDataset(path, **OPTIONS, where={"site": ["north", "south"]})) == 1
    (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageryError, match="no usable image"):
        DetectionDataset(path, **OPTIONS)


def test_annotations_of_absent_images_are_listed_and_the_others_used(tmp_path):
    places = {"coco": "images/gone.png", "yolo": "labels/train/gone.txt", "dota": "labelTxt/gone.txt"}
    for write in (coco, yolo, dota, voc):
        root = tmp_path / write.__name__
        path = write(root)
        if write is coco:
            notes = json.loads(path.read_text())
            notes["images"].append({"id": 8, "file_name": "gone.png"})
            notes["annotations"].append({"image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4]})
            path.write_text(json.dumps(notes))
        else:
            like = {"yolo": "labels/train/a.txt", "dota": "labelTxt/a.txt", "voc": "a.xml"}[write.__name__]
            gone = (root / like).with_stem("gone")
            gone.write_text((root / like).read_text())
        data = DetectionDataset(path, **OPTIONS)
        ((where, reason),) = data.problems
        assert where == str(root / places.get(write.__name__, "gone.xml"))
        assert "no image of that name" in reason or "No such file" in reason
        assert len(data[0]["label"]) == 3


def test_crowds_of_coco_are_regions_that_nobody_is_judged_in(tmp_path):
    path = coco(tmp_path)
    notes = json.loads(path.read_text())
    notes["annotations"][1]["iscrowd"] = 1
    path.write_text(json.dumps(notes))
    sample = DetectionDataset(path, **OPTIONS)[0]
    assert sample["crowd"].tolist() == sample["difficult"].tolist() == [False, True, False]


def test_tiles_cover_the_image_and_end_with_it():
    windows = tile_windows(100, 40, 32, 8)
    seen = np.zeros((40, 100), dtype=int)
    for w in windows:
        assert (w.width, w.height) == (32, 32)
        seen[w.row : w.row + w.height, w.column : w.column + w.width] += 1
    assert seen.min() >= 1
    assert windows[-1].column + 32 == 100
    assert [(w.width, w.height) for w in tile_windows(20, 50, 32, 0)] == [(20, 32), (20, 32)]


def test_boxes_belong_to_tiles_by_their_visible_share(tmp_path):
    data = DetectionDataset(coco(tmp_path, [("car", (20, 10, 40, 20))]), **OPTIONS, tile=32, min_visible=0.5)
    by_window = {sample["window"][:2]: sample for sample in (data[i] for i in range(len(data)))}
    assert by_window[0, 0]["bbox_xyxy"].tolist() == [[20, 10, 32, 20]]  # 60%
    assert by_window[0, 0]["difficult"].tolist() == [False]
    assert by_window[0, 0]["obb"].tolist() == [[30, 15, 20, 10, 0]]  # never cut
    assert by_window[32, 0]["bbox_xyxy"].tolist() == [[0, 10, 8, 20]]  # 40%
    assert by_window[32, 0]["difficult"].tolist() == [True]
    assert by_window[32, 16]["difficult"].tolist() == [True]  # a strip of 4 rows
    whole = DetectionDataset(tmp_path / "boxes.json", **OPTIONS)[0]["image"]
    for (x, y), sample in by_window.items():
        assert torch.equal(sample["image"], whole[:, y : y + 32, x : x + 32])


def test_batches_are_padded_and_say_so(tmp_path):
    data = DetectionDataset(coco(tmp_path), **OPTIONS, tile=40)
    batch = collate_detections([data[i] for i in range(len(data))])
    assert batch["image"].shape == (4, 3, 40, 40)
    small = data[0] | {"image": data[0]["image"][:, :20, :30], "valid": data[0]["valid"][:20, :30]}
    batch = collate_detections([data[1], small, {"index": 5, "problem": ("x.png", "broken")}])
    assert batch["size"] == [(40, 40), (20, 30)]
    assert not batch["valid"][1, 20:].any()
    assert not batch["valid"][1, :, 30:].any()
    assert batch["problems"] == [("x.png", "broken")]
    assert len(batch["obb"]) == len(batch["label"]) == 2


def spotted(seed: int) -> dict:
    """A sample whose boxes are drawn into it: box i has value i + 1."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.zeros(1, 40, 60)
    boxes = torch.tensor([[5.0, 4.0, 20.0, 10.0], [30.0, 20.0, 44.0, 36.0], [50.0, 2.0, 58.0, 12.0]])
    for i, (x, y, r, b) in enumerate(boxes.long().tolist()):
        image[:, y:b, x:r] = i + 1
    obb = torch.tensor(
        [[20.0, 20.0, 20.0, 6.0, 0.5], [40.0, 25.0, 9.0, 9.0, -1.2], [30.0, 10.0, 8.0, 2.0, -1.5]]
    )
    return {
        "image": image, "valid": torch.ones(40, 60, dtype=torch.bool), "gsd": 2.0, "sensor": "x", "index": 0,
        "key": int(torch.randint(1 << 40, (), generator=generator)), "bbox_xyxy": boxes, "obb": obb,
        "label": torch.arange(3), "difficult": torch.tensor([False, False, True]),
        "crowd": torch.tensor([False, False, True]),
    }  # fmt: skip


@pytest.mark.parametrize("number", range(8))
def test_boxes_stay_on_their_pixels_in_all_orientations(number):
    sample = spotted(0)
    turned = flip_rotate_boxes(sample, bool(number & 1), bool(number & 2), bool(number & 4))
    assert turned["image"].shape[1:] == ((60, 40) if number & 4 else (40, 60)) == turned["valid"].shape
    for i, (x, y, r, b) in enumerate(turned["bbox_xyxy"].long().tolist()):
        expected = torch.zeros_like(turned["image"][0], dtype=torch.bool)
        expected[y:b, x:r] = True
        assert torch.equal(turned["image"][0] == i + 1, expected)
    assert turned["gsd"] == 2.0
    again = turned  # turning back gives the boxes that there were
    if number & 4:
        again = flip_rotate_boxes(again, False, False, True)
    again = flip_rotate_boxes(again, bool(number & 1), bool(number & 2), False)
    assert torch.equal(again["image"], sample["image"])
    assert (pair_iou(again["obb"], sample["obb"]) - 1).abs().max() < 1e-5


def test_random_orientations_are_eight_and_follow_the_key():
    seen = {
        tuple(random_flip_rotate_boxes(spotted(seed))["bbox_xyxy"].flatten().tolist()) for seed in range(80)
    }
    assert len(seen) == 8
    assert torch.equal(
        random_flip_rotate_boxes(spotted(3))["image"], random_flip_rotate_boxes(spotted(3))["image"]
    )


def test_rescaling_moves_boxes_and_gsd():
    sample = spotted(0)
    for factor, size in ((0.5, (20, 30)), (1.7, (68, 102))):
        scaled = rescale(sample, factor)
        assert scaled["image"].shape[1:] == size == scaled["valid"].shape
        assert scaled["gsd"] == pytest.approx(2.0 / factor, rel=0.01)
        assert torch.allclose(scaled["bbox_xyxy"], sample["bbox_xyxy"] * factor, atol=0.01)
        assert torch.allclose(scaled["obb"][:, :4], sample["obb"][:, :4] * factor, atol=0.05)
        assert scaled["valid"].all()
    factors = [2.0 / random_scale(spotted(seed), (0.5, 2.0))["gsd"] for seed in range(30)]
    assert 0.48 < min(factors) < 0.8
    assert 1.3 < max(factors) < 2.1


def test_crops_keep_boxes_on_their_pixels():
    sample = spotted(0)
    for seed in range(20):
        crop = random_crop(sample | {"key": seed}, 32)
        assert crop["image"].shape == (1, 32, 32)
        for (x, y, r, b), label in zip(
            crop["bbox_xyxy"].long().tolist(), crop["label"].tolist(), strict=True
        ):
            assert (crop["image"][0, y:b, x:r] == label + 1).float().mean() > 0.5 or r - x < 1 or b - y < 1
        assert torch.equal(crop["crowd"], crop["label"] == 2)
        assert (crop["difficult"] | ~crop["crowd"]).all()  # what was difficult before stays so
    assert random_crop(sample, 100)["image"].shape == (1, 40, 60)


def test_real_trees_and_cars(data_dir):
    trees = DetectionDataset(
        data_dir / "neon_trees" / "annotations.json", "rgb_aerial", images=data_dir / "neon_trees",
        where={"site": "SJER"},
    )  # fmt: skip
    assert len(trees) == 36
    assert trees.classes == ["Tree"]
    assert trees[0]["gsd"] == pytest.approx(0.1, rel=0.02)
    voc_trees = DetectionDataset(
        data_dir / "neon_trees" / "SJER", "rgb_aerial", layout="voc", invalid_boxes="repair"
    )
    assert len(voc_trees) == 36
    assert set(voc_trees.repairs) == {"beyond the image's edge: cut off there", "outside the image: left out"}
    cars = DetectionDataset(
        data_dir / "kit_ais" / "annotations.json",
        "rgb_aerial",
        0.15,
        tile=512,
        overlap=64,
        invalid_boxes="repair",
    )
    assert {str(path).rsplit(".", 1)[-1] for path in cars.paths} == {"webp"}
    sample = cars[0]
    assert sample["image"].shape[0] == 3
    assert max(sample["image"].shape[1:]) <= 512

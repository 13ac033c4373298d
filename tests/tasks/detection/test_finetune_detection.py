"""Detection end to end: trained by the engine, chosen by AP, saved, loaded, reported; and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import torch
from PIL import Image

from helpers import labeled_images as labeled
from helpers.toy_scenes import write_scene
from swath.errors import ImageryError, RecipeError
from swath.models.directory import load_encoder
from swath.prediction import PredictionOptions, predict_scenes
from swath.tasks.detection.data.splits import DetectionDataConfig, open_detection
from swath.tasks.finetuning import finetune
from swath.tasks.model import load_task_model
from swath.tasks.recipe import load_finetune_recipe
from swath.training.monitoring.metrics_log import read_metrics


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled.write_boxes(tmp_path_factory.mktemp("boxes"))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled.write_model(tmp_path_factory.mktemp("model") / "m")


def run(tmp_path: Path, data: Path, model: Path | None, out: str = "run", /, **sections: Any) -> Path:
    recipe = labeled.write_recipe(tmp_path / f"{out}.yaml", "detect", **sections)
    finetune(load_finetune_recipe(recipe, model=model, task="detect"), data, tmp_path / out)
    return tmp_path / out


def scores(run: Path) -> dict[str, Any]:
    return json.loads((run / "report" / "scores.json").read_text())


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_task_model(run / "model").task.state_dict()


def test_objects_are_learned_and_reported(data: Path, model: Path, tmp_path: Path) -> None:
    done = run(tmp_path, data, model, training={"steps": 45, "monitor_every": 15, "batch_size": 3})
    found = scores(done)
    assert found["main"] == "ap"
    assert found["protocol"]["ap"] == "COCO"
    assert found["figures"]["ap50"]["value"] > 0.5
    assert set(found["scales"]) == {"1", "0.75", "0.5"}
    assert len(found["curves"]["car"]) == 101
    rows = read_metrics(done / "metrics.jsonl")
    looks = {row["step"]: row["val/ap"] for row in rows if "val/ap" in row}
    assert list(looks) == [15, 30, 45]
    trained = load_task_model(done / "model")
    assert trained.config["provenance"]["selected"]["score"] == max(looks.values())
    assert trained.classes == ["car", "pond"]
    assert (trained.kind, trained.boxes, trained.dense) == ("detect", True, False)
    card = (done / "model" / "README.md").read_text()
    for words in ("finds objects, of 2: car, pond", "swath.load_model", "boxes [M, 4]", "swath predict"):
        assert words in card
    assert "pipeline_tag: object-detection" in card
    told = json.loads((done / "model" / "mlm.json").read_text())["properties"]
    assert told["mlm:tasks"] == ["object-detection", "similarity-search"]
    pond = told["mlm:output"][0]["classification:classes"][1]
    assert (pond["value"], pond["name"]) == (1, "pond")
    page = (done / "report" / "report.html").read_text()
    for part in ("What it finds", "Precision over recall", "Missed", "Wrong, with the highest scores"):
        assert part in page
    assert page.count("<img") >= 1
    image = np.array(Image.open(data / "images" / "t5.png")).transpose(2, 0, 1)
    one, two = trained.predict(np.stack([image, image]), gsd=0.5)
    assert one["boxes"].shape[1] == 4
    assert (one["scores"].diff() <= 0).all()
    assert torch.equal(one["boxes"], two["boxes"])
    best = int(one["labels"][0])
    assert trained.classes[best] in ("car", "pond")
    scene = write_scene(tmp_path / "scene.tif", image)
    report = predict_scenes(trained, scene, tmp_path / "maps", PredictionOptions())
    table = geopandas.read_parquet(tmp_path / "maps" / report.scenes[0].files["objects parquet"])
    assert table.crs.to_epsg() == 32633
    notes = json.loads((data / "annotations.json").read_text())["annotations"]
    overlaps = []
    for note in (note for note in notes if note["image_id"] == 5):
        x, y, wide, tall = note["bbox"]
        ground = (500000 + x / 2, 5200000 - (y + tall) / 2, 500000 + (x + wide) / 2, 5200000 - y / 2)
        kind = table[table["class"] == ("car", "pond")[note["category_id"] - 1]]
        common, union = (getattr(kind, f)(shapely.box(*ground)).area for f in ("intersection", "union"))
        overlaps += (common / union).tolist()
    assert max(overlaps) > 0.6


@pytest.mark.parametrize("head", ["fcos", "oriented_rcnn"])
def test_the_other_heads_are_trained_and_come_back(
    head: str, data: Path, model: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"head": head, "head_width": 64}
    sections: dict[str, Any] = {"training": {"steps": 2, "batch_size": 2}}
    if head == "oriented_rcnn":
        options |= {"roi_hidden_dim": 32, "anchor_scale": 4}
        data = labeled.write_boxes(tmp_path / "dota", layout="dota")
        sections["data"] = {"split_field": None, "train": None, "val": ["images/t4*"], "test": ["images/t5*"]}
    done = run(tmp_path, data, model, task={"name": "detect", "options": options}, **sections)
    trained = load_task_model(done / "model")
    (found,) = trained.predict(np.zeros((1, 3, 48, 64), np.uint8), gsd=0.5)
    assert ("obb" in found) == (head == "oriented_rcnn")
    assert scores(done)["protocol"]["ap"] == ("DOTA" if head == "oriented_rcnn" else "COCO")


def test_modes_change_what_they_say(data: Path, model: Path, tmp_path: Path) -> None:
    before = load_encoder(model).encoder.state_dict()
    changed = {}
    few = {"steps": 3, "batch_size": 2, "monitor_every": 3}
    for mode in ("frozen", "lora", "full", "scratch"):
        decay = {"layer_decay": 0.7} if mode == "full" else {}
        done = run(tmp_path, data, model, mode, mode=mode, training=few, **decay)
        after = load_encoder(done / "model").encoder.state_dict()
        changed[mode] = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed["frozen"] == set()
    assert changed["lora"]
    assert all(".attn." in name or ".mlp." in name for name in changed["lora"])
    assert "patch_embed.proj.weight" in changed["full"]
    assert changed["scratch"] >= changed["full"]


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(data: Path, model: Path, tmp_path: Path) -> None:
    few = {"steps": 8, "batch_size": 2, "monitor_every": 4, "checkpoint_every": 4}
    whole = run(tmp_path, data, model, "whole", training=few)
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step_00000008")
    for name in ("model", "report"):
        shutil.rmtree(cut / name)
    again = run(tmp_path, data, model, "cut", training=few)
    one, other = weights(whole), weights(again)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert json.dumps(scores(whole)["figures"]) == json.dumps(scores(again)["figures"])


def test_an_image_that_cannot_be_read_is_passed_over(data: Path, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    for name in ("t0", "t5"):  # one is learned from, one is scored
        whole = (copy / "images" / f"{name}.png").read_bytes()
        (copy / "images" / f"{name}.png").write_bytes(whole[: len(whole) // 2])
    notes = json.loads((copy / "annotations.json").read_text())
    notes["images"][3]["site"] = "c"  # there is another one to score
    (copy / "annotations.json").write_text(json.dumps(notes))
    done = run(tmp_path, copy, model, training={"steps": 4, "batch_size": 4})
    assert "t0.png" in (done / "skipped.jsonl").read_text()
    protocol = scores(done)["protocol"]
    assert len(protocol["unreadable"]) == 1
    assert protocol["images_scored"] == [0]


def opened(data: Path, sensor: str = "rgb_aerial", **options: Any) -> Any:
    from swath.sensors.registry import get_sensor

    classes = options.pop("insist", ())
    return open_detection(DetectionDataConfig(gsd=0.5, **options), data, get_sensor(sensor), 0, classes)


def changed(data: Path, tmp_path: Path, change: Any) -> Path:
    """A copy of the data with its notes changed."""
    copy = tmp_path / "changed"
    shutil.copytree(data, copy)
    notes = json.loads((copy / "annotations.json").read_text())
    change(notes)
    (copy / "annotations.json").write_text(json.dumps(notes))
    return copy


def test_folds_are_fields_or_patterns_and_shares_nest(data: Path) -> None:
    by_site = opened(data, split_field="site", train="a", test=["b", "c"])
    assert (len(by_site.train), by_site.val, len(by_site.test)) == (4, None, 2)
    assert by_site.classes == ("car", "pond")
    assert by_site.weights.tolist() == [8, 4]
    by_path = opened(data, test="images/t[45]*", val="images/t3*")
    assert [len(by_path.train), len(by_path.val), len(by_path.test)] == [3, 1, 2]
    half = opened(data, split_field="site", train="a", label_fraction=0.5)
    assert set(half.train.paths) < set(
        opened(data, split_field="site", train="a", label_fraction=1.0).train.paths
    )
    with pytest.raises(RecipeError, match=r"has a field 'sit'\. Did you mean 'site'"):
        opened(data, split_field="sit")


def test_crops_keep_boxes_and_gsd_true(data: Path) -> None:
    splits = opened(data, crop_size=32, scale_range=(2.0, 2.0), crops_per_image=5, foreground_fraction=1.0)
    assert len(splits.train) == 30
    batch = splits.train.get_batch([0, 7, 12])
    assert batch["image"].shape == (3, 3, 32, 32)
    assert batch["gsd"].tolist() == [0.25] * 3
    assert all(len(labels) for labels in batch["label"])  # each is laid around an object
    again = splits.train.get_batch([0, 7, 12])
    assert torch.equal(batch["image"], again["image"])
    bright = batch["image"][0].mean(0) > 190
    for box, label, easy in zip(
        batch["bbox_xyxy"][0], batch["label"][0], ~batch["difficult"][0], strict=True
    ):
        left, top, right, bottom = box.round().int().tolist()
        if label == 0 and easy:
            assert bright[top + 2 : bottom - 2, left + 2 : right - 2].float().mean() > 0.9


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ([60, 10, 20, 10], "beyond the image's edge"),
        ([80, 10, 20, 10], "outside the image"),
        ([30, 10, -20, 10], "inverted"),
        ([30, 10, 0, 10], "without area"),
        ([float("nan"), 10, 5, 10], "not a number"),
    ],
)
def test_boxes_that_make_no_sense(box: list[float], kind: str, data: Path, tmp_path: Path) -> None:
    def spoil(notes: Any) -> None:
        notes["annotations"][0]["bbox"] = box

    copy = changed(data, tmp_path, spoil)
    with pytest.raises(ImageryError, match=f"1 {kind}.*annotation 0.*invalid_boxes='repair'"):
        opened(copy)
    repaired = opened(copy, invalid_boxes="repair")
    assert any(kind in note for note in repaired.notes)


def test_other_mistakes_are_explained(data: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageryError, match="its classes are car, pond, but the head is for pond, car"):
        opened(data, insist=("pond", "car"))
    assert opened(data, insist=("pond", "car"), classes=("pond", "car")).weights.tolist() == [6, 12]
    with pytest.raises(ImageryError, match="class 'pond' is none of the data set's"):
        opened(data, classes=("car",))
    bare = changed(data, tmp_path, lambda notes: notes["annotations"].clear())
    with pytest.raises(RecipeError, match="no box to learn from"):
        opened(bare)
    shutil.rmtree(bare)
    few = changed(data, tmp_path, lambda notes: notes["annotations"].__delitem__(slice(0, 3)))
    assert "1 of 6 training images have no boxes" in opened(few).notes[0]
    for options, message in (
        ({"head": "fcos", "anchor_scale": 4}, "no meaning for fcos"),
        ({"head": "fcos", "head_width": 32, "roi_hidden_dim": None, "anchor_scale": None}, "multiple of 64"),
        ({"seam": 64, "window": 64}, "smaller than tile"),
    ):
        with pytest.raises(RecipeError, match=message):
            run(tmp_path, data, model, task={"name": "detect", "options": options})


@pytest.mark.parametrize("name", ["finetune_detect", "finetune_detect_oriented"])
def test_the_recipes_of_detection_are_valid(name: str, model: Path) -> None:
    path = Path(__file__).parents[3] / "configs" / f"{name}.yaml"
    recipe = load_finetune_recipe(path, model=model, task="detect")
    assert type(recipe).parse(recipe.to_dict()) == recipe

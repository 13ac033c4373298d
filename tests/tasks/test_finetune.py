from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import labeled_images as labeled
from swath.errors import ImageryError, RecipeError
from swath.models.directory import load_encoder
from swath.prediction import PredictionOptions, predict_scenes
from swath.tasks.finetuning import finetune
from swath.tasks.model import load_task_model
from swath.tasks.recipe import load_finetune_recipe
from swath.tasks.scores import confusion_matrix
from swath.training.monitoring.metrics_log import read_metrics

WRITE = {
    "classify": labeled.write_classes,
    "segment": labeled.write_masks,
    "change": labeled.write_changes,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {task: write(tmp_path_factory.mktemp(task)) for task, write in WRITE.items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labeled.write_model(tmp_path_factory.mktemp("model") / "m")


def run(
    tmp_path: Path, task: str, data: Path, model: Path | None, out: str = "run", /, **sections: Any
) -> Path:
    recipe = labeled.write_recipe(tmp_path / f"{out}.yaml", task, **sections)
    finetune(load_finetune_recipe(recipe, model=model, task=task), data, tmp_path / out)
    return tmp_path / out


def scores(run: Path) -> dict[str, Any]:
    return json.loads((run / "report" / "scores.json").read_text())


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_task_model(run / "model").task.state_dict()


@pytest.mark.parametrize("task", ["classify", "segment", "change"])
def test_a_task_is_learned_and_reported(
    task: str, data: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    done = run(tmp_path, task, data[task], model)
    found = scores(done)
    assert found["protocol"]["split"] == "test"
    assert found["figures"][found["main"]]["value"] > (0.9 if task == "classify" else 0.6)
    rows = read_metrics(done / "metrics.jsonl")
    assert [row["step"] for row in rows if f"val/{found['main']}" in row] == [10, 20, 30]
    page = (done / "report" / "report.html").read_text()
    assert "Confusion" in page
    assert page.count("<img") >= 1
    trained = load_task_model(done / "model")
    if task == "classify":
        image = np.array(Image.open(data[task] / "water" / "3.png")).transpose(2, 0, 1)
        assert trained.classes[int(trained.predict(image, gsd=0.5).argmax())] == "water"
    if task == "segment":
        image = np.array(Image.open(data[task] / "images" / "s5.png")).transpose(2, 0, 1)
        assert trained.predict(image, gsd=0.5).shape == (1, 2, 32, 32)
    if task == "change":
        dates = [np.array(Image.open(data[task] / "p5" / f"date{i}.png")).transpose(2, 0, 1) for i in (1, 2)]
        assert trained.predict(np.stack(dates), gsd=0.5).shape == (1, 2, 32, 32)
        assert trained.dates == 2
        assert set(found["scales"]) == {"1", "0.75", "0.5"}


@pytest.mark.parametrize("scale", [(0.8, 1.25), (0.4, 0.5)])
def test_the_report_scores_what_a_prediction_gives(
    scale: tuple[float, float], data: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    done = run(tmp_path, "segment", data["segment"], model, data={"scale": scale}, training={"steps": 12})
    found = scores(done)
    assert found["protocol"]["tile"] == 16
    assert found["protocol"]["zoom"] == min(1.0, scale[1])
    trained = load_task_model(done / "model")
    report = predict_scenes(
        trained, data["segment"] / "images" / "s5.png", tmp_path, PredictionOptions(gsd=0.5)
    )
    assert report.scenes[0].tiles == (9 if scale[1] > 1 else 1)  # half the side is a tile
    with Image.open(tmp_path / report.scenes[0].files["classes"]) as file:
        said = file.resize((32, 32), Image.Resampling.NEAREST)
    truth = np.array(Image.open(data["segment"] / "masks" / "s5.png")) // 255
    mine = confusion_matrix(truth, np.array(said), 2)
    # The report enlarges probabilities, this test classes: edges may differ where the image was reduced.
    tolerance = 0 if scale[1] > 1 else 40
    assert np.abs(mine - np.array(found["confusion"])).max() <= tolerance


@pytest.mark.parametrize("task", ["classify", "segment"])
def test_an_image_that_cannot_be_read_is_listed_and_the_rest_is_scored(
    task: str, model: Path, tmp_path: Path
) -> None:
    place = WRITE[task](tmp_path / "data")
    path = place / ("water/3.png" if task == "classify" else "images/s0.png")
    path.write_bytes(path.read_bytes()[:300])
    splits = {} if task == "classify" else {"test": ["*[05]*"]}
    done = run(tmp_path, task, place, model, data={"cache": "none", **splits}, training={"steps": 3})
    found = scores(done)["protocol"]
    whole = 6 if task == "classify" else 2
    assert found["images"]["scored"] == whole - 1 == len(found["images_scored"])
    assert [path.name in reason for reason in found["unreadable"]] == [True]
    page = (done / "report" / "report.html").read_text()
    assert "1 images could not be read and are not scored" in page
    assert len(re.findall(r"<figcaption>[^<]*(?:; said: |, truth, prediction)", page)) == whole - 1


def test_a_test_fold_is_drawn_evenly_over_classes_and_scored_whole(model: Path, tmp_path: Path) -> None:
    data = labeled.write_classes(tmp_path / "data", count=20)
    (data / "index.csv").unlink()  # class folders, without splits
    shares = {"test_share": 0.2, "val_share": 0.25}
    done = run(tmp_path, "classify", data, model, data=shares, training={"steps": 3})
    found = scores(done)
    assert [row["places"] for row in found["per_class"]] == [4, 4, 4]
    assert found["protocol"]["images"] == {"train": 36, "scored": 12}
    assert found["protocol"]["split"] == "test"
    tenth = run(
        tmp_path,
        "classify",
        data,
        model,
        "tenth",
        data=shares | {"labels_share": 0.1},
        training={"steps": 3, "batch_size": 3},
    )
    assert scores(tenth)["protocol"]["images"] == {"train": 3, "scored": 12}


def test_several_labels_an_image(model: Path, tmp_path: Path) -> None:
    data = labeled.write_labels(tmp_path / "several")
    done = run(
        tmp_path, "classify", data, model, data={"label": "label", "separator": "+"}, training={"steps": 40}
    )
    found = scores(done)
    assert found["main"] == "map"
    assert found["confusion"] is None
    assert found["figures"]["map"]["value"] > 0.9
    assert found["figures"]["f1_micro"]["value"] > 0.7
    assert [row["class"] for row in found["per_class"]] == ["dark", "green", "wet"]
    trained = load_task_model(done / "model")
    assert trained.multilabel
    image = np.array(Image.open(data / "0.png")).transpose(2, 0, 1)  # neither green nor wet nor dark
    said = trained.predict(image, gsd=0.5)[0]
    assert (said < 0.5).all()
    both = np.array(Image.open(data / "7.png")).transpose(2, 0, 1)
    assert (trained.predict(both, gsd=0.5)[0] > 0.5).all()
    card = (done / "model" / "README.md").read_text()
    assert "An image may have several of them, or none" in card
    assert "average precision" in (done / "report" / "report.html").read_text()


def test_frozen_is_frozen_and_lora_becomes_weights(
    data: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    before = load_encoder(model).encoder.state_dict()
    changed = {}
    for mode in ("frozen", "lora", "full", "scratch"):
        done = run(tmp_path, "classify", data["classify"], model, mode, mode=mode, training={"steps": 10})
        after = load_encoder(done / "model").encoder.state_dict()
        assert after.keys() == before.keys()  # LoRA has left no trace but in the weights
        changed[mode] = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed["frozen"] == set()
    assert changed["lora"]
    assert all(".attn." in name or ".mlp." in name for name in changed["lora"])
    assert all(name.endswith(".weight") for name in changed["lora"])
    assert "patch_embed.proj.weight" in changed["full"]
    assert changed["scratch"] >= changed["full"]


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(
    data: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    whole = run(tmp_path, "segment", data["segment"], model, "whole", mode="lora", training={"steps": 20})
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    shutil.rmtree(cut / "checkpoints" / "step_00000020")
    for name in ("model", "report"):
        shutil.rmtree(cut / name)
    again = run(tmp_path, "segment", data["segment"], model, "cut", mode="lora", training={"steps": 20})
    one, other = weights(whole), weights(again)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert scores(whole)["figures"] == scores(again)["figures"]


def test_the_best_weights_are_kept_and_patience_ends(
    data: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    done = run(
        tmp_path, "classify", data["classify"], model,
        patience=2, training={"steps": 400, "monitor_every": 5, "checkpoint_every": 400},
    )  # fmt: skip
    rows = read_metrics(done / "metrics.jsonl")
    looks = {row["step"]: row["val/accuracy"] for row in rows if "val/accuracy" in row}
    best = json.loads((done / "best" / "best.json").read_text())
    assert best["score"] == max(looks.values())
    assert max(looks) == best["step"] + 10 < 400
    config = load_task_model(done / "model").config
    assert config["provenance"]["selected"]["step"] == best["step"]


def test_from_scratch_without_a_model(data: dict[str, Path], tmp_path: Path) -> None:
    encoder = {"name": "vit", "options": {k: v for k, v in labeled.ENCODER.items() if k != "bands"}}
    done = run(
        tmp_path, "classify", data["classify"], None,
        mode="scratch", encoder=encoder, sensor="rgb_aerial", training={"steps": 5},
    )  # fmt: skip
    low, high = load_task_model(done / "model").contract.gsd_range
    assert 0.3 < low <= high <= 0.5  # crops that were enlarged have a finer GSD


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"mode": "frozen", "layer_decay": 0.8}, "layer_decay has no meaning"),
        ({"task": {"name": "classify", "options": {"polling": "mean"}}}, "polling"),
        ({"data": {"gsd": "relative"}}, "counts scale in metres"),
        ({"data": {"train": "nothing"}}, "nothing in"),
        ({"task": {"name": "segment", "options": {}}}, "swath finetune segment"),
        ({"encoder": {"name": "vit"}}, "comes from the model"),
    ],
)
def test_mistakes_are_explained(
    sections: dict[str, Any], message: str, data: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, "classify", data["classify"], model, **sections)


def test_a_scale_that_pretraining_never_showed_is_noted(
    data: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coarse = labeled.write_model(tmp_path / "m", gsd_range=(0.9, 1.2))
    for scale, noted in (((0.7, 1.4), True), ((0.4, 0.5), False)):
        recipe = labeled.write_recipe(
            tmp_path / "r.yaml", "segment", mode="frozen", data={"scale": scale}, training={"steps": 2}
        )
        loaded = load_finetune_recipe(recipe, model=coarse)
        finetune(loaded, data["segment"], tmp_path / f"{noted}", progress=True)
        said = " ".join(capsys.readouterr().err.split())
        assert (
            "the model was pretrained on 0.9 to 1.2: data.scale_range brings them nearer" in said
        ) is noted


def test_the_scales_of_the_report_can_be_chosen(data: dict[str, Path], model: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "segment", data["segment"], model, scales=[1.0, 0.6], training={"steps": 2})
    assert list(scores(done)["scales"]) == ["1", "0.6"]
    with pytest.raises(RecipeError, match="scales begin with 1"):
        run(tmp_path, "segment", data["segment"], model, "half", scales=[0.5])


def test_without_a_model_the_way_to_begin_is_said(tmp_path: Path) -> None:
    recipe = labeled.write_recipe(tmp_path / "recipe.yaml", "segment")
    with pytest.raises(RecipeError, match=r"Give --model DIR; or, .*--set mode=scratch"):
        load_finetune_recipe(recipe)


def test_a_run_that_came_to_nothing_is_in_nobodys_way(
    data: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    with pytest.raises(ImageryError, match="its GSD is unknown"):
        run(tmp_path, "segment", data["segment"], model, data={"gsd": None}, training={"steps": 2})
    done = run(tmp_path, "segment", data["segment"], model, training={"steps": 2})
    with pytest.raises(RecipeError, match="holds a run of another recipe"):
        run(tmp_path, "segment", data["segment"], model, training={"steps": 3})
    assert scores(done)["figures"]


@pytest.mark.parametrize("task", ["classify", "segment", "change"])
def test_classes_that_are_not_those_of_the_head_are_refused(
    task: str, data: dict[str, Path], model: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        ImageryError, match=r"its classes are .*, but the head is for road, river.*classes out"
    ):
        run(tmp_path, task, data[task], model, task={"name": task, "options": {"classes": ["road", "river"]}})


def test_another_model_does_not_continue_a_run(data: dict[str, Path], model: Path, tmp_path: Path) -> None:
    run(tmp_path, "classify", data["classify"], model, training={"steps": 2})
    trained = tmp_path / "run" / "model"
    with pytest.raises(RecipeError, match=r"model\.id"):
        run(tmp_path, "classify", data["classify"], trained, training={"steps": 2})


@pytest.mark.parametrize("task", ["classify", "segment", "change"])
def test_the_recipes_that_ship_are_valid(task: str, model: Path) -> None:
    path = Path(__file__).parents[2] / "configs" / f"finetune_{task}.yaml"
    recipe = load_finetune_recipe(path, model=model, task=task)
    assert recipe.objective_name == task
    assert recipe.encoder.options["embed_dim"] == 32  # the model's
    again = type(recipe).parse(recipe.to_dict())
    assert again == recipe  # as a stored recipe is read when a run goes on

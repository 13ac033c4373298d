"""How `before_rename.tar.gz` and `expected.json` were made: by the tree before the renaming (version 0.1.0.dev0).

It does not run on later trees, and does not have to: what it made is kept, and `tests/test_before_rename.py` reads it
by today's names.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "tasks"))

import labelled
from rasterio.transform import from_origin

from swath.archive.ingest import sources
from swath.archive.ingest.embed import embed_archive
from swath.archive.search.image_query import query_by_image
from swath.archive.store import Archive
from swath.cli.main import build_app
from swath.encoders import create_model
from swath.imagery.datasets import open_dataset
from swath.models.contract import Contract
from swath.models.directory import load_model, save_model
from swath.tasks.model import load_task_model
from swath.training.metrics import read_metrics

HERE = Path(__file__).resolve().parent
EMBEDDED_FROM = "/data/before_rename"  # what the archive takes for the folder of its imagery: ids depend on it
ENCODER = {"bands": 3, "patch_size": 4, "embed_dim": 16, "depth": 1, "heads": 2}
PRETRAIN = {
    "name": "old", "sensor": "rgb_aerial", "pooling": "moments",
    "data": {"gsd": 0.5, "cache": "memory", "size": 16, "fit": "centre_crop", "layout": "csv", "fold": "train",
             "file": "file", "label": "class", "where": {"site": "a"}},
    "encoder": {"name": "vit", "options": {k: v for k, v in ENCODER.items() if k != "bands"}},
    "objective": {"name": "unified", "options": {
        "source_size": 16, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2, "head": "linear",
        "high_pass": 8, "hidden_dim": 16, "out_dim": 16, "teacher": False, "embedding": "moments"}},
    "optimiser": {"name": "adamw", "lr": 0.003, "final_lr": 0.1, "decay_all": True},
    "training": {
        "steps": 6, "batch_size": 4, "accumulate": 1, "clip": 1.0, "find_unused": False, "keep": 9,
        "checkpoint_every": 3, "log_every": 1, "monitor_every": 0, "pictures_every": 0, "tensorboard": False,
        "workers": 0,
    },
}  # fmt: skip
TASKS: dict[str, Any] = {
    "classify": {"options": {"smoothing": 0.1, "mix": {"mixup": 0.2}}, "data": {}},
    "segment": {
        "options": {"head": "fpn", "head_width": 8, "auxiliary": 0.0},
        "data": {"size": 16, "scale": [0.8, 1.2], "crops": 2, "focus": 0.2, "val": ["*[34]*"], "test": ["*5*"]},
    },
    "change": {
        "options": {"head": "fpn", "head_width": 8, "match": "moments"},
        "data": {"size": 16, "crops": 2, "val_share": 0.2, "test": ["*5*"], "align": False},
    },
    "detect": {
        "options": {"head": "faster_rcnn", "head_width": 8, "hidden": 16, "proposals": 50, "regions": 16, "anchor_scale": 4, "window": 48, "seam": 8, "score": 0.05,
                    "overlap": 0.5, "most": 20},
        "data": {"size": 48, "fold": "site", "train": "a", "val": "b", "test": "c", "crops": 2, "focus": 0.5},
    },
}  # fmt: skip


def swath(*arguments: object) -> None:
    try:
        build_app()([str(one) for one in arguments], standalone_mode=True)
    except SystemExit as leaving:
        if leaving.code:
            raise RuntimeError(f"swath {arguments}: {leaving.code}") from None


def numbers(tensor: torch.Tensor) -> list[float]:
    return [float(x) for x in tensor.double().flatten()[:12]]


def interrupted(run: Path, step: int) -> list[dict[str, Any]]:
    """Take a finished run back to a checkpoint, as if it had been killed; returns the rows that were taken away."""
    rows = read_metrics(run / "metrics.jsonl")
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "report", ignore_errors=True)
    for folder in (run / "checkpoints").iterdir():
        if not folder.name.endswith(str(step)):
            shutil.rmtree(folder)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    keep = [line for line in lines if json.loads(line)["step"] <= step]
    (run / "metrics.jsonl").write_text("".join(keep))
    return [row for row in rows if row["step"] > step]


def main() -> None:
    torch.set_num_threads(1)
    os.chdir(tempfile.mkdtemp())
    root = Path("before_rename")  # relative, so that recipes and models name no folder of this machine
    root.mkdir()
    usual, here = sources.chip_id, str(root.absolute())
    sources.chip_id = lambda source, *rest: usual(source.replace(here, EMBEDDED_FROM), *rest)
    expected: dict[str, Any] = {}
    generator = np.random.default_rng(0)

    # Images with a table, and two scenes on the ground.
    images = root / "images"
    lines = ["file,class,fold,site"]
    for i in range(16):
        name = f"{i:02d}.png"
        labelled.save(images / name, labelled.noise(generator, 16) + 40 + 60 * (i % 3))
        lines.append(f"{name},{'abc'[i % 3]},{'train' if i < 12 else 'test'},{'a' if i % 4 else 'b'}")
    (images / "index.csv").write_text("\n".join(lines) + "\n")
    scenes = root / "scenes"
    scenes.mkdir()
    for number in range(2):
        pixels = generator.integers(0, 255, (3, 32, 32), dtype=np.uint8)
        with rasterio.open(
            scenes / f"scene_{number}.tif", "w", driver="GTiff", width=32, height=32, count=3, dtype="uint8",
            crs="EPSG:32633", transform=from_origin(500_000 + 100 * number, 5_000_000, 1, 1), compress="deflate",
        ) as out:  # fmt: skip
            out.write(pixels)

    # A model that nobody has trained, with the pooling that has another name now.
    torch.manual_seed(7)
    model = save_model(
        root / "model", encoder_name="vit", encoder_options=ENCODER, encoder=create_model("vit", **ENCODER),
        contract=Contract.of("rgb_aerial"), name="untrained", pooling="moments",
    )  # fmt: skip
    chip = torch.arange(2 * 3 * 16 * 16, dtype=torch.float32).reshape(2, 3, 16, 16) % 251
    expected["model"] = numbers(load_model(model).embed(chip, gsd=0.5))

    # A pretraining run, taken back to its third step; a fine-tuning run too.
    recipe = root / "pretrain.yaml"
    recipe.write_text(yaml.safe_dump(PRETRAIN, sort_keys=False))
    run = root / "pretraining"
    swath("pretrain", recipe, "--data", images / "index.csv", "--out", run)
    expected["pretraining"] = {row["step"]: row["loss/total"] for row in interrupted(run, 3)}

    for task, sections in TASKS.items():
        data = root / f"{task}_data"
        count = {"classify": 4}.get(task, 6)
        {"classify": labelled.write_classes, "segment": labelled.write_masks,
         "change": labelled.write_changes, "detect": labelled.write_boxes}[task](data, count)  # fmt: skip
        path = root / f"finetune_{task}.yaml"
        labelled.write_recipe(
            path, task, task={"name": task, "options": sections["options"]},
            data={"gsd": 0.5, "cache": "memory", **sections["data"]},
            select="last", scales=[1.0],
            training={"steps": 4, "checkpoint_every": 2, "batch_size": 4, "monitor_every": 4, "keep": 9, "log_every": 1},
        )  # fmt: skip
        text = yaml.safe_load(path.read_text())
        text["data"] = {"gsd": 0.5, "cache": "memory", **sections["data"]}
        path.write_text(yaml.safe_dump(text, sort_keys=False))
        swath("finetune", task, path, "--model", model, "--data", data, "--out", root / f"{task}_run")
        done = root / f"{task}_run"
        shutil.copytree(done / "model", root / f"{task}_model")
        opened = load_task_model(root / f"{task}_model")
        side = 64 if task == "detect" else 16
        one = torch.arange(3 * side * side, dtype=torch.float32).reshape(1, 3, side, side) % 251
        if task == "change":
            one = torch.stack([one[0], one[0].flip(-1)])[None]
        out = opened.predict(one, gsd=0.5)
        expected[task] = numbers(out[0]["scores"] if task == "detect" else out)
        if task == "classify":
            expected["finetuning"] = {row["step"]: row["loss/total"] for row in interrupted(done, 2) if "loss/total" in row}
            shutil.move(done, root / "finetuning")
        else:
            shutil.rmtree(done)

    # An archive with its index, tables and a catalogue.
    dataset = open_dataset(scenes, sensor="rgb_aerial", layout="chips", chip_size=16, offset_dn=0)
    embed_archive(load_model(model), dataset, str(root / "archive"))
    whole = open_dataset(images, sensor="rgb_aerial", layout="images", size=16, resize_mode="centre_crop", gsd=0.5)
    embed_archive(load_model(model), whole, str(root / "archive"))
    archive = Archive.open(root / "archive")
    expected["archive"] = {"ids": sorted(archive.rows(["id"])["id"].to_pylist())}
    first = expected["archive"]["ids"][0]
    found = archive.search(like=[first], k=5)
    expected["archive"]["search"] = [[one.id, float(one.score)] for one in found]
    swath("inspect", scenes, "--sensor", "rgb_aerial", "--out", root / "catalogue.parquet")
    pairs = ["name,fold,label,rgb_aerial,naip", "p0,train,x,images/00.png,images/01.png", "p1,test,y,images/02.png,images/03.png"]
    (root / "pairs.csv").write_text("\n".join(pairs) + "\n")
    suite = {"name": "old", "models": ["before_rename/model"], "scales": [50, 100], "protocols": {"knn": {"k": 3}}, "baselines": ["statistics"],
             "sets": [{"data": "before_rename/images/index.csv", "title": "Images", "fold_column": "fold", "bank": "train", "queries": "test", "gsd": 0.5}]}  # fmt: skip
    (root / "suite.yaml").write_text(yaml.safe_dump(suite, sort_keys=False))

    for task in ("segment", "change", "detect"):
        shutil.rmtree(root / f"{task}_data")
    for junk in [*root.rglob("tensorboard"), *root.rglob("pictures")]:
        shutil.rmtree(junk, ignore_errors=True)
    with tarfile.open(HERE / "before_rename.tar.gz", "w:gz") as out:
        out.add(root, "before_rename")
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()

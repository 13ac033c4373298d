"""Tiny labeled imagery that can be learned in seconds: simulated, with a seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from swath.encoders import create_model
from swath.models.contract import Contract
from swath.models.directory import save_model

ENCODER = {"bands": 3, "patch_size": 4, "embed_dim": 32, "depth": 2, "heads": 2}
COLORS = {"field": (120, 160, 60), "forest": (30, 70, 30), "water": (20, 50, 120)}


def noise(generator: np.random.Generator, side: int) -> np.ndarray[Any, Any]:
    return generator.normal(0, 20, (side, side, 3))


def save(path: Path, picture: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(path)


def write_classes(root: Path, count: int = 8, side: int = 16) -> Path:
    """A table of images of three colors, with splits."""
    generator = np.random.default_rng(0)
    lines = ["file,class,split"]
    for name, mean in COLORS.items():
        for i in range(count):
            save(root / name / f"{i}.png", noise(generator, side) + np.array(mean))
            lines.append(f"{name}/{i}.png,{name},{('train', 'train', 'val', 'test')[i % 4]}")
    (root / "index.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def write_labels(root: Path, count: int = 48, side: int = 16) -> Path:
    """A table of images with any of the labels dark, green and wet, each seen in a part of the picture."""
    generator = np.random.default_rng(4)
    lines = ["file,label,split"]
    for i in range(count):
        own = [name for k, name in enumerate(("dark", "green", "wet")) if i >> k & 1]
        picture = np.full((side, side, 3), (200.0, 190.0, 170.0))
        for name, ink, left in (
            ("dark", (20, 20, 20), 0),
            ("green", (40, 160, 40), 5),
            ("wet", (20, 50, 220), 11),
        ):
            if name in own:
                picture[:, left : left + 5] = ink
        save(root / f"{i}.png", picture + noise(generator, side) / 4)
        split = "test" if i < 8 else "val" if i < 16 else "train"
        lines.append(f"{i}.png,{'+'.join(own)},{split}")
    (root / "index.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def write_masks(root: Path, count: int = 6, side: int = 32) -> Path:
    """Water (255) in fields (0), by stem."""
    generator = np.random.default_rng(1)
    for i in range(count):
        mask = _blob(generator, side)
        picture = np.where(mask[..., None], np.array(COLORS["water"]), np.array(COLORS["field"]))
        save(root / "images" / f"s{i}.png", picture + noise(generator, side))
        save(root / "masks" / f"s{i}.png", mask * 255)
    return root


def write_changes(root: Path, count: int = 6, side: int = 32) -> Path:
    """Fields that were flooded (1) between two dates, a folder a place."""
    generator = np.random.default_rng(2)
    for i in range(count):
        before, new = _blob(generator, side), _blob(generator, side)
        for date, wet in (("date1", before), ("date2", before | new)):
            picture = np.where(wet[..., None], np.array(COLORS["water"]), np.array(COLORS["field"]))
            save(root / f"p{i}" / f"{date}.png", picture + noise(generator, side))
        save(root / f"p{i}" / "mask.png", new & ~before)
    return root


def write_boxes(root: Path, count: int = 6, side: int = 64, *, layout: str = "coco") -> Path:
    """Bright cars and dark ponds in fields, boxed; site a, b or c. COCO's file, or DOTA's folder."""
    generator = np.random.default_rng(3)
    images, notes, lines = [], [], {}
    for i in range(count):
        picture = np.full((side, side, 3), COLORS["field"], dtype=np.float64)
        lines[f"t{i}"] = []
        for k, (kind, (wide, tall)) in enumerate((("car", (20, 10)), ("pond", (16, 16)), ("car", (10, 20)))):
            x = int(generator.integers(0, side - wide))
            y = int(k * side / 3 + generator.integers(0, side / 3 - tall + 1))
            picture[y : y + tall, x : x + wide] = (230, 230, 230) if kind == "car" else COLORS["water"]
            notes.append({
                "id": len(notes), "image_id": i, "category_id": 1 + (kind == "pond"),
                "bbox": [x, y, wide, tall], "iscrowd": 0,
            })  # fmt: skip
            r, b = x + wide, y + tall
            lines[f"t{i}"].append(f"{x} {y} {r} {y} {r} {b} {x} {b} {kind} 0")
        save(root / "images" / f"t{i}.png", picture + noise(generator, side) / 2)
        site = "aaaabc"[i % 6]
        images.append({"id": i, "file_name": f"t{i}.png", "site": site, "width": side, "height": side})
    if layout == "dota":
        (root / "labelTxt").mkdir()
        for name, text in lines.items():
            (root / "labelTxt" / f"{name}.txt").write_text("\n".join(text) + "\n", encoding="utf-8")
        return root
    kinds = [{"id": 1, "name": "car"}, {"id": 2, "name": "pond"}]
    data = {"images": images, "annotations": notes, "categories": kinds}
    (root / "annotations.json").write_text(json.dumps(data), encoding="utf-8")
    return root


def _blob(generator: np.random.Generator, side: int) -> np.ndarray[Any, Any]:
    y, x = generator.integers(side // 4, 3 * side // 4, 2)
    rows, columns = np.mgrid[:side, :side]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 < (side / 4) ** 2)


def write_model(path: Path, **contract: Any) -> Path:
    """A model that nobody has trained."""
    torch.manual_seed(7)
    return save_model(
        path, encoder_name="vit", encoder_options=ENCODER, encoder=create_model("vit", **ENCODER),
        contract=Contract.of("rgb_aerial", **contract), name="untrained",
    )  # fmt: skip


def write_recipe(path: Path, kind: str, /, **sections: Any) -> Path:
    """A recipe for the above; sections are merged into it."""
    data: dict[str, Any] = {"gsd": 0.5, "cache": "memory"}
    options: dict[str, Any] = {}
    if kind == "detect":
        data |= {
            "crop_size": 48, "split_field": "site", "train": "a", "val": "b", "test": "c",
            "crops_per_image": 6, "foreground_fraction": 0.5,
        }  # fmt: skip
        options |= {"head_width": 32, "roi_hidden_dim": 64, "anchor_scale": 4}
    elif kind != "classify":
        data |= {"crop_size": 16, "val": ["*[34]*"], "test": ["*5*"], "crops_per_image": 4}
        options |= {"head_width": 16}
    recipe: dict[str, Any] = {
        "name": "tiny", "task": {"name": kind, "options": options}, "data": data,
        "optimizer": {"lr": 3e-3},
        "training": {
            "steps": 30, "batch_size": 6, "log_every": 5, "monitor_every": 10, "checkpoint_every": 10,
            "images_every": 0, "monitor_images": 4, "tensorboard": False, "workers": 0,
        },
    }  # fmt: skip
    for key, value in sections.items():
        if isinstance(value, dict) and isinstance(recipe.get(key), dict):
            recipe[key] = {**recipe[key], **value}
        else:
            recipe[key] = value
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path

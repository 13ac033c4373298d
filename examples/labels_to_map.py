"""From a few labeled images to a map of a whole scene: fine-tune a segmentation, then predict, in Python.

    python examples/labels_to_map.py                   # simulated Sentinel-2 images; minutes on one core
    python examples/labels_to_map.py --model runs/mine/model       # begin with a pretrained encoder

With labels of your own, replace `draw` by a folder with images/ and masks/ in it, or a CSV table with the
columns image, mask and split. On the command line the same is ``swath finetune segment`` and
``swath predict``.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

import swath
from swath.rasters import read_header, read_window
from swath.simulated import write_simulated_pairs

SENSOR = "sentinel2_ben"
CLASSES = "arable, pasture, broadleaf, conifer, wetland, water, settlement, industry, road, bare"
RECIPE = Path(__file__).resolve().parent.parent / "configs" / "finetune_segment.yaml"


def draw(out: Path, places: int) -> tuple[Path, Path, Path]:
    """A table of labeled images; a scene of another place, and its true classes."""
    small = write_simulated_pairs(
        out / "labeled", splits={"train": places, "test": max(2, places // 4)}, size=64, sensors=[SENSOR]
    )
    with (
        (small / "pairs.csv").open(newline="") as source,
        (small / "masks.csv").open("w", newline="") as table,
    ):
        writer = csv.writer(table)
        writer.writerow(["image", "mask", "split"])
        writer.writerows([row[SENSOR], row["mask"], row["split"]] for row in csv.DictReader(source))
    large = write_simulated_pairs(out / "scene", splits={"all": 1}, size=240, sensors=[SENSOR], first=10_000)
    return small / "masks.csv", next((large / SENSOR).iterdir()), next((large / "masks").iterdir())


def main(out: Path, places: int, steps: int, model: Path | None = None) -> float:
    """Learn, and map a scene; returns the share of its pixels whose class is right."""
    table, scene, truth = draw(out, places)

    # 1. A recipe is a file; what is particular to this run is set beside it.
    settings = [
        "data.crop_size=64",
        f"data.classes=[{CLASSES}]",
        f"sensor={SENSOR}",
        f"training.steps={steps}",
    ]
    if model is None:
        settings += ["mode=scratch", "layer_decay=1.0", "encoder.name=vit_micro_patch4"]
    finetuned = swath.finetune(RECIPE, table, out / "run", model=model, overrides=settings)

    # 2. A scene of any size, tile by tile, without seams; the map has the scene's grid and CRS.
    (record,) = swath.predict(finetuned, [scene], out / "maps").scenes
    if record.problem:
        raise SystemExit(record.problem)
    files = (out / "maps" / record.files["classes"], truth)
    (said, valid), (true, _) = (read_window(read_header(file, palette="index")) for file in files)

    # 3. Here the truth is known.
    right = float(np.mean(said[0][valid] == true[0][valid]))
    often = float(np.bincount(true[0].ravel()).max() / true[0].size)
    print(f"{record.files['classes']}: {right:.0%} of its pixels are right; one class for all: {often:.0%}")
    return right


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/labels_to_map"))
    parser.add_argument("--places", type=int, default=120)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument(
        "--model", type=Path, help="of a pretrained model that knows Sentinel-2 (sentinel2_ben)"
    )
    arguments = parser.parse_args()
    main(arguments.out, arguments.places, arguments.steps, arguments.model)

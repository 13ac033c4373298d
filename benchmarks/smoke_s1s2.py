"""A smoke test on real pairs: CSMAE trained on some scenes, retrieval across sensors on others.

    SWATH_DATA_DIR=... python benchmarks/smoke_s1s2.py --cpu-minutes 2

Ten real Sentinel-1 / Sentinel-2 pairs (BigEarthNet, TerraMind, SSL4EO-S12; Level-2A) are cut into tiles of
60 px. Six are trained on; the tiles of four others, of other scenes, are searched, and an answer is right if
it is of the query's scene. TEN PAIRS ARE NO BENCHMARK: this shows that the whole way works on real files,
from GeoTIFF to a matrix of scores. (Every other tile of a scene asks, the rest answer, and neighbors look
alike.)
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path

S1, S2 = "sentinel1_ben", "sentinel2_ben"
TRAIN = (
    "ben_29SND_56_35",
    "ben_29UPU_36_85",  # these two are one scene
    "ben_29UPU_4_55",
    "terramind_282D_485L_3_3",
    "ssl4eo_0000200_t1",  # and these two one place at two dates
    "ssl4eo_0000200_t2",
)
TEST = ("ben_33UUP_87_48", "terramind_38D_378R_2_3", "terramind_433D_629L_3_1", "terramind_609U_541L_3_0")
OFFSET = ("terramind_433D_629L_3_1",)  # by its minima, the one with the +1000 DN of newer processing
SIDE = 60


def cut(data: Path, out: Path) -> Path:
    """Tiles of all places as GeoTIFFs, and the table of pairs."""
    import rasterio
    from rasterio.windows import Window

    rows = []
    for place in (*TRAIN, *TEST):
        with (
            rasterio.open(data / place / "s1.tif") as radar,
            rasterio.open(data / place / "s2.tif") as optical,
        ):
            for n, (row, column) in enumerate(
                (r, c)
                for r in range(0, radar.height - SIDE + 1, SIDE)
                for c in range(0, radar.width - SIDE + 1, SIDE)
            ):
                window = Window(column, row, SIDE, SIDE)
                split = "train" if place in TRAIN else ("val" if n % 2 else "test")
                files = {}
                for sensor, source in ((S1, radar), (S2, optical)):
                    profile = {**source.profile, "width": SIDE, "height": SIDE, "tiled": False,
                               "transform": source.window_transform(window)}  # fmt: skip
                    for key in ("blockxsize", "blockysize"):
                        profile.pop(key, None)
                    values = source.read(window=window)
                    if sensor == S2 and place in OFFSET:
                        values = values.astype("int32").clip(1000) - 1000
                        values = values.astype("uint16")
                    files[sensor] = f"{place}_{n}_{sensor}.tif"
                    with rasterio.open(out / files[sensor], "w", **profile) as file:
                        file.write(values)
                        file.descriptions = source.descriptions
                rows.append([f"{place}_{n}", files[S1], files[S2], place, split, f"{place}_{n}"])
    with (out / "pairs.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["id", S1, S2, "class", "fold", "group"])
        writer.writerows(rows)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cpu-minutes", type=float, default=2)
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("SWATH_DATA_DIR", "../shared/data")) / "s1s2"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/smoke_s1s2"))
    options = parser.parse_args()

    from swath.datasets.pairs.opening import open_pairs
    from swath.evaluation.retrieval.features import retrieval_baselines, retrieval_model
    from swath.evaluation.retrieval.protocol import evaluate_retrieval
    from swath.evaluation.retrieval.splits import split_retrieval
    from swath.models import load_model
    from swath.training.config.recipe import load_recipe
    from swath.training.pretraining import pretrain

    with tempfile.TemporaryDirectory() as folder:
        pairs = open_pairs(
            cut(options.data, Path(folder)), sensors=[S1, S2], offset_dn={S2: 0}, cache="memory"
        )
        print(f"{len(pairs)} tiles, {len(pairs.problems)} left out")
        for path, reason in pairs.problems[:5]:
            print(f"  {path}: {reason}")
        recipe = load_recipe(
            Path(__file__).parent.parent / "configs" / "csmae_small_cpu.yaml",
            [
                f"training.cpu_minutes={options.cpu_minutes}",
                "training.batch_size=48",
                "encoder.options.patch_size=10",
                "name=smoke_s1s2",
            ],
        )
        run = options.out
        if not (run / "model" / "config.json").is_file():
            pretrain(recipe, pairs.select(split="train"), run)
        model = load_model(run / "model")
        candidates = [retrieval_model(model, [S1, S2], name="CSMAE"), *retrieval_baselines([S1, S2], model)]
        found = evaluate_retrieval(
            candidates, split_retrieval(pairs, query_split="val", gallery_split="test"), k=5
        )
        print(f"{'F1@5, %':<20}{'centered':<9}S1->S1  S1->S2  S2->S1  S2->S2")
        for name in ("chance", *(c.name for c in candidates)):
            for centered in (False, True)[: 1 if name == "chance" else 2]:
                values = [
                    found.get(name, a, b, centered).values.get("f1") for a in (S1, S2) for b in (S1, S2)
                ]
                shown = "".join("-       " if v is None else f"{100 * v:<8.1f}" for v in values)
                print(f"{name:<20}{'yes' if centered else 'no':<9}{shown}")


if __name__ == "__main__":
    main()

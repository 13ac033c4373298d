"""Real pairs of Sentinel-1 and Sentinel-2, split by scene: it runs end to end. Far too few for a score."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch

from swath.datasets.pairs.opening import open_pairs
from swath.encoders.vit import ViT
from swath.errors import ImageryError
from swath.evaluation.retrieval.features import retrieval_baselines, retrieval_model
from swath.evaluation.retrieval.protocol import evaluate_retrieval
from swath.evaluation.retrieval.report import write_retrieval
from swath.evaluation.retrieval.splits import split_retrieval
from swath.models import Contract, Model

SENSORS = ["sentinel1_grd", "sentinel2_l2a"]


@pytest.fixture
def table(data_dir: Path, tmp_path: Path) -> Path:
    """The BigEarthNet places of the folder of real imagery, as a table."""
    rows = []
    for folder in sorted((data_dir / "s1s2").glob("ben_*")):
        about = json.loads((folder / "labels.json").read_text())
        files = [str(folder / "s1.tif"), str(folder / "s2.tif")]
        rows.append([folder.name, *files, ";".join(about["labels_clc43"]), about["scene_group"]])
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["id", *SENSORS, "labels", "group"], *rows])
    return tmp_path / "pairs.csv"


def test_real_pairs_end_to_end(table: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = ViT({"sentinel1_grd": 2, "sentinel2_l2a": 12}, patch_size=15, embed_dim=32, depth=1, heads=2)
    model = Model(encoder, Contract.of(*SENSORS), name="untrained")
    pairs = open_pairs(table, sensors=SENSORS, offset_dn={"sentinel2_l2a": 0.0})
    assert len(pairs) == 4
    with pytest.raises(ImageryError, match="there are no splits"):
        split_retrieval(pairs, query_split="val", gallery_split="test")
    split = split_retrieval(pairs, query_split="all", gallery_split="all")
    candidates = [retrieval_model(model, SENSORS), *retrieval_baselines(SENSORS)]
    found = evaluate_retrieval(candidates, split, k=2, resamples=50)
    scene = dict(zip(pairs.paths, pairs.groups or [], strict=True))
    for score in found.scores:
        if score.neighbors is None:
            continue
        for query, predictions in zip(pairs.paths, (score.neighbors % 4).tolist(), strict=True):
            assert scene[query] not in {scene[pairs.paths[i]] for i in predictions}
        assert all(0 <= value <= 1 for value in score.values.values())
    names = {path.name for path in write_retrieval(found, tmp_path / "out")}
    assert {"retrieval.md", "retrieval_latent.png", "retrieval_S1_to_S2.png"} <= names

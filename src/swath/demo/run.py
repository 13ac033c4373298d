"""Walk the path on sample imagery, and remember what was seen on the way."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from swath.demo.results import DemoResults
from swath.errors import SwathError
from swath.samples import samples_dir

if TYPE_CHECKING:
    from swath.archive.archive import Archive
    from swath.archive.query.query import Query
    from swath.evaluation.protocols.frozen import EvaluationResult
    from swath.models.model import Model

SEED = 11
UNLABELED = {"pretrain": 800}  # simulated scenes of 192 px that are pretrained on, labels unused
LABELED = {"train": 480, "val": 320}  # bank and queries; other scenes than those
SIDES = (16, 32, 64)  # of 128 pixels
CHIP, CHIP_METRES = 64, 12.8  # of the real scenes: 128 native pixels of 0.1 m, read as 64
RECIPE = Path(__file__).with_name("recipe.yaml")

Progress = Callable[[int, int], None]
Say = Callable[[str], None]


def run_demo(
    out: str | Path,
    *,
    minutes: float | None = None,
    settings: tuple[str, ...] = (),
    fresh: bool = False,
    unlabeled: dict[str, int] | None = None,
    labeled: dict[str, int] | None = None,
    log: Say = print,
    show: bool = False,
) -> Path:
    """Walk the whole path; what is there already from an earlier walk is used again.

    Args:
        out: Folder for everything; `report.html` in it is the result.
        minutes: Processor minutes of pretraining instead of the recipe's.
        settings: Overrides of the recipe, ``"training.steps=20"``.
        fresh: Begin anew.
        unlabeled: Simulated scenes to pretrain on, ``{split: count}``.
        labeled: Simulated scenes to measure with, ``{"train": count, "val": count}``.
        say: Called with a line for each stage.
        show: Live progress of the training on the terminal.

    Returns:
        Path of the report.

    Raises:
        SwathError: `out` holds something that is not an earlier demo.
    """
    from swath.demo.page import write_demo_report
    from swath.demo.serve import serve_hint
    from swath.models import load_model

    walk = DemoResults(Path(out))
    _prepare(walk.out, fresh)
    began = time.monotonic()
    with _stage(walk, "look at imagery", log):
        imagery, labeled_set = _imagery(walk, unlabeled or UNLABELED, labeled or LABELED)
    with _stage(walk, "pretrain", log):
        overrides = (*((f"training.cpu_minutes={minutes}",) if minutes is not None else ()), *settings)
        model_dir = _pretrain(walk, imagery, overrides, show)
    model = load_model(model_dir)
    with _stage(walk, "measure", log):
        walk.evaluation = _measure(walk, model, labeled_set)
    with _stage(walk, "embed", log):
        archive = _embed(walk, model, model_dir, imagery / "aerial", labeled_set)
    with _stage(walk, "search", log):
        _search(walk, model, archive)
    walk.seconds["all"] = time.monotonic() - began
    walk.about = _about(model)
    report = write_demo_report(walk)
    log(f"report: {report.resolve()}")
    log(serve_hint(walk.out))
    return report


# ---------------------------------------------------------------------------------------------- the stages


def _prepare(out: Path, fresh: bool) -> None:
    marker = out / ".swath-demo"
    if out.exists() and any(out.iterdir()) and not marker.is_file():
        raise SwathError(f"{out}: is not empty and not from an earlier demo; give another folder with --out")
    if fresh and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _imagery(walk: DemoResults, unlabeled: dict[str, int], labeled: dict[str, int]) -> tuple[Path, Path]:
    """A folder of GeoTIFFs to pretrain on (real and simulated), and a labeled one (simulated)."""
    from swath.catalog.catalog import build_catalog
    from swath.simulated import write_simulated

    imagery, labeled_set = walk.out / "imagery", walk.out / "labeled"
    if not (imagery / "aerial").is_dir():
        shutil.copytree(samples_dir("aerial"), imagery / "aerial")
    requested = ((imagery / "simulated", SEED, 192, unlabeled), (labeled_set, SEED + 1, 128, labeled))
    for folder, seed, size, splits in requested:
        table = folder / "index.csv"
        if not table.is_file() or len(table.read_text().splitlines()) != 1 + sum(splits.values()):
            write_simulated(folder, seed=seed, splits=splits, size=size)
    for part in ("aerial", "sentinel2"):
        catalog = build_catalog(samples_dir(part))
        for entry in catalog.entries:
            header = entry.header
            if header is None:
                raise SwathError(
                    f"{entry.path}: a sample cannot be read ({entry.problem}); install Swath again"
                )
            walk.catalog.append({
                "file": f"{part}/{Path(header.path).name}",
                "pixels": f"{header.width} x {header.height}",
                "bands": header.bands,
                "type": header.dtype,
                "GSD": "unknown" if header.gsd is None else f"{header.gsd:.3g} m",
                "driver": header.driver,
            })  # fmt: skip
    catalog.write(walk.out / "catalog.parquet")
    return imagery, labeled_set


def _pretrain(walk: DemoResults, imagery: Path, overrides: tuple[str, ...], show: bool) -> Path:
    from swath.training.config.recipe import load_recipe
    from swath.training.pretraining import pretrain

    run = walk.out / "run"
    model = pretrain(load_recipe(RECIPE, list(overrides)), imagery, run, show=show)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    walk.metrics = [json.loads(line) for line in lines]
    return model


def _measure(walk: DemoResults, model: Model, labeled_set: Path) -> EvaluationResult:
    """The scale curve of the model, its random initialization and the baselines, on simulated scenes."""
    from swath.evaluation.data.splits import open_split
    from swath.evaluation.features.baselines import BASELINES, random_init
    from swath.evaluation.features.model import ModelFeatureExtractor
    from swath.evaluation.features.protocol import FeatureExtractor
    from swath.evaluation.protocols.frozen import evaluate_knn
    from swath.evaluation.report.plots import plot_scale_curve
    from swath.evaluation.report.tables import write_scores

    split = open_split(labeled_set / "index.csv", sensor=model.contract.sensor())
    extractors: list[FeatureExtractor] = [ModelFeatureExtractor(model, "Scale-MAE"), random_init(model)]
    extractors += [make() for make in BASELINES.values()]
    evaluation = evaluate_knn(extractors, split, image_sizes=SIDES, asymmetric=False)
    write_scores(evaluation, walk.out / "scores")
    plot_scale_curve(evaluation, walk.out / "scores" / "scale_curve.png")
    return evaluation


def _embed(walk: DemoResults, model: Model, model_dir: Path, aerial: Path, labeled_set: Path) -> Archive:
    """One archive of the real scenes, cut into chips, and of the simulated queries."""
    from swath.archive.ingest.run import embed_archive
    from swath.datasets.opening import open_dataset

    sensor, archive = model.contract.sensor(), walk.out / "archive"
    chips = open_dataset(aerial, sensor=sensor, layout="chips", chip_size=CHIP, chip_metres=CHIP_METRES)
    scenes = open_dataset(
        labeled_set / "index.csv", sensor=sensor, split="val", size=64, resize_mode="resize"
    )
    for dataset in (chips, scenes):
        report = embed_archive(model, dataset, archive, model_path=str(model_dir), workers=0)
        if report.failures:
            raise SwathError(f"{report.failures[0][0]}: could not be embedded: {report.failures[0][1]}")
    from swath.archive.archive import Archive

    opened = Archive.open(archive)
    walk.embedded = opened.count()
    return opened


def _search(walk: DemoResults, model: Model, archive: Archive) -> None:
    """Three searches with pictures, the precision over all simulated scenes, and one refusal."""
    from swath.archive.query.image_query import query_by_image
    from swath.archive.query.query import query_by_id
    from swath.archive.show.contact_sheet import write_contact_sheet

    rows = archive.rows(["id", "source", "label", "window"]).to_pylist()
    images = walk.out / "pictures"
    images.mkdir(exist_ok=True)
    for number, (asked, requested) in enumerate(_questions(rows)):
        query: Query = query_by_id(archive, requested)
        predictions = query.search(archive, 8, exclude_self=True)
        image = images / f"search_{number}.png"
        write_contact_sheet(image, query, predictions)
        walk.searches.append((asked, image))
    walk.precision = _precision(archive)
    stranger = samples_dir("sentinel2") / "sentinel2_10m.tif"
    try:
        query_by_image(archive, stranger, model)
    except SwathError as refused:
        walk.refusal = str(refused).replace(str(samples_dir()) + os.sep, "")


def _questions(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """(in words, chip id): a chip of the road, one of the meadow, and a simulated scene with homes."""
    places = (
        (
            "Where else is there a road? A chip of the Yellowstone aerial scene.",
            "yellowstone_road.tif",
            (384, 768),
        ),
        ("More meadow like this? Real imagery again.", "yellowstone_meadow.tif", (256, 256)),
    )
    for asked, file, corner in places:
        for row in rows:
            at = (row["window"]["column"], row["window"]["row"])
            if row["source"].endswith(file) and at == corner:
                yield asked, row["id"]
    for kind in ("homes", "river"):
        found = next((row["id"] for row in rows if row["label"] == kind), None)
        if found is not None:
            yield f"More like this simulated scene ({kind})?", found


def _precision(archive: Archive, k: int = 10) -> tuple[float, float]:
    """Share of same-class answers among the first `k`, over all labeled chips; and by chance."""
    rows = archive.rows(["label", "embedding"])
    labels = np.array(rows["label"].to_pylist(), dtype=object)
    has = np.array([label is not None for label in labels])
    vectors = np.stack([np.asarray(v, dtype=np.float32) for v in rows["embedding"].to_pylist()])[has]
    labels = labels[has]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -np.inf)
    nearest = np.argsort(-similar, axis=1)[:, :k]
    same = labels[nearest] == labels[:, None]
    chance = np.mean([(np.sum(labels == label) - 1) / (len(labels) - 1) for label in labels])
    return float(same.mean()), float(chance)


# ---------------------------------------------------------------------------------------------- odds and ends


@contextmanager
def _stage(walk: DemoResults, name: str, say: Say) -> Iterator[None]:
    say(f"{name} ...")
    began = time.monotonic()
    yield
    walk.seconds[name] = time.monotonic() - began
    say(f"{name}: {walk.seconds[name]:.0f} s")


def _about(model: Model) -> dict[str, Any]:
    from swath.evaluation.report.tables import software_versions

    low, high = model.contract.gsd_range or (0.0, 0.0)
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "model": model.id,
        "parameters": f"{parameters / 1e6:.1f} million",
        "GSD seen": f"{low:.2g} to {high:.2g} m",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        **software_versions(),
    }

"""Run all stages of the demo on sample imagery and collect their results."""

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
UNLABELED = {"pretrain": 800}  # simulated scenes of 192 px for pretraining, labels unused
LABELED = {"train": 480, "val": 320}  # train and test splits; other scenes than those
IMAGE_SIZES = (16, 32, 64)  # of 128 pixels
CHIP, CHIP_METRES = 64, 12.8  # of the real scenes: 128 native pixels of 0.1 m, read as 64
RECIPE = Path(__file__).with_name("recipe.yaml")

Progress = Callable[[int, int], None]
LogFn = Callable[[str], None]


def run_demo(
    out: str | Path,
    *,
    minutes: float | None = None,
    settings: tuple[str, ...] = (),
    fresh: bool = False,
    unlabeled: dict[str, int] | None = None,
    labeled: dict[str, int] | None = None,
    log: LogFn = print,
    show: bool = False,
) -> Path:
    """Pretrain, evaluate, embed and search; results of an earlier run in `out` are reused.

    Args:
        out: Output folder; the report is `report.html` in it.
        minutes: CPU minutes of pretraining, instead of the recipe's.
        settings: Overrides of the recipe, e.g. ``"training.steps=20"``.
        fresh: Delete the results of an earlier run and start over.
        unlabeled: Number of simulated scenes for pretraining, ``{split: count}``.
        labeled: Number of simulated scenes for evaluation, ``{"train": count, "val": count}``.
        log: Called with a line for each stage.
        show: Show live progress of the training in the terminal.

    Returns:
        Path of the report.

    Raises:
        SwathError: `out` contains files that are not from an earlier demo.
    """
    from swath.demo.page import write_demo_report
    from swath.demo.serve import serve_hint
    from swath.models import load_model

    results = DemoResults(Path(out))
    _prepare(results.out, fresh)
    start = time.monotonic()
    with _stage(results, "read imagery", log):
        imagery, labeled_set = _imagery(results, unlabeled or UNLABELED, labeled or LABELED)
    with _stage(results, "pretrain", log):
        overrides = (*((f"training.cpu_minutes={minutes}",) if minutes is not None else ()), *settings)
        model_dir = _pretrain(results, imagery, overrides, show)
    model = load_model(model_dir)
    with _stage(results, "evaluate", log):
        results.evaluation = _measure(results, model, labeled_set)
    with _stage(results, "embed", log):
        archive = _embed(results, model, model_dir, imagery / "aerial", labeled_set)
    with _stage(results, "search", log):
        _search(results, model, archive)
    results.seconds["all"] = time.monotonic() - start
    results.about = _about(model)
    report = write_demo_report(results)
    log(f"report: {report.resolve()}")
    log(serve_hint(results.out))
    return report


# ---------------------------------------------------------------------------------------------- the stages


def _prepare(out: Path, fresh: bool) -> None:
    marker = out / ".swath-demo"
    if out.exists() and any(out.iterdir()) and not marker.is_file():
        raise SwathError(
            f"{out} is not empty and not from an earlier demo. Choose another folder with --out."
        )
    if fresh and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _imagery(results: DemoResults, unlabeled: dict[str, int], labeled: dict[str, int]) -> tuple[Path, Path]:
    """A folder of GeoTIFFs for pretraining (real and simulated), and a labeled one (simulated)."""
    from swath.catalog.catalog import build_catalog
    from swath.simulated import write_simulated

    imagery, labeled_set = results.out / "imagery", results.out / "labeled"
    if not (imagery / "aerial").is_dir():
        shutil.copytree(samples_dir("aerial"), imagery / "aerial")
    simulated = ((imagery / "simulated", SEED, 192, unlabeled), (labeled_set, SEED + 1, 128, labeled))
    for folder, seed, size, splits in simulated:
        table = folder / "index.csv"
        if not table.is_file() or len(table.read_text().splitlines()) != 1 + sum(splits.values()):
            write_simulated(folder, seed=seed, splits=splits, size=size)
    for part in ("aerial", "sentinel2"):
        catalog = build_catalog(samples_dir(part))
        for entry in catalog.entries:
            header = entry.header
            if header is None:
                raise SwathError(f"{entry.path}: cannot read a sample ({entry.problem}). Reinstall Swath.")
            results.catalog.append({
                "file": f"{part}/{Path(header.path).name}",
                "pixels": f"{header.width} x {header.height}",
                "bands": header.bands,
                "type": header.dtype,
                "GSD": "unknown" if header.gsd is None else f"{header.gsd:.3g} m",
                "driver": header.driver,
            })  # fmt: skip
    catalog.write(results.out / "catalog.parquet")
    return imagery, labeled_set


def _pretrain(results: DemoResults, imagery: Path, overrides: tuple[str, ...], show: bool) -> Path:
    from swath.training.pretraining import pretrain

    run = results.out / "run"
    pretrain(RECIPE, imagery, run, overrides=overrides, progress=show)
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    results.metrics = [json.loads(line) for line in lines]
    return run / "model"


def _measure(results: DemoResults, model: Model, labeled_set: Path) -> EvaluationResult:
    """Accuracy over image sizes of the model, its random initialization and the baselines."""
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
    evaluation = evaluate_knn(extractors, split, image_sizes=IMAGE_SIZES, asymmetric=False)
    write_scores(evaluation, results.out / "scores")
    plot_scale_curve(evaluation, results.out / "scores" / "scale_curve.png")
    return evaluation


def _embed(results: DemoResults, model: Model, model_dir: Path, aerial: Path, labeled_set: Path) -> Archive:
    """One archive of chips of the real scenes and of the simulated test scenes."""
    from swath.archive.ingest.run import embed_archive
    from swath.datasets.opening import open_dataset

    sensor, archive = model.contract.sensor(), results.out / "archive"
    chips = open_dataset(aerial, sensor=sensor, layout="chips", chip_size=CHIP, chip_metres=CHIP_METRES)
    scenes = open_dataset(
        labeled_set / "index.csv", sensor=sensor, split="val", size=64, resize_mode="resize"
    )
    for dataset in (chips, scenes):
        report = embed_archive(model, dataset, archive, model_path=str(model_dir), workers=0)
        if report.failures:
            raise SwathError(f"{report.failures[0][0]}: cannot be embedded: {report.failures[0][1]}")
    from swath.archive.archive import Archive

    opened = Archive.open(archive)
    results.embedded = opened.count()
    return opened


def _search(results: DemoResults, model: Model, archive: Archive) -> None:
    """Four searches with contact sheets, the precision over all simulated scenes, and one refused query."""
    from swath.archive.query.image_query import query_by_image
    from swath.archive.query.query import query_by_id
    from swath.archive.show.contact_sheet import write_contact_sheet

    rows = archive.rows(["id", "source", "label", "window"]).to_pylist()
    images = results.out / "images"
    images.mkdir(exist_ok=True)
    for number, (caption, chip_id) in enumerate(_queries(rows)):
        query: Query = query_by_id(archive, chip_id)
        matches = query.search(archive, 8, exclude_self=True)
        image = images / f"search_{number}.png"
        write_contact_sheet(image, query, matches)
        results.searches.append((caption, image))
    results.precision = _precision(archive)
    foreign = samples_dir("sentinel2") / "sentinel2_10m.tif"
    try:
        query_by_image(archive, foreign, model)
    except SwathError as error:
        results.refusal = str(error).replace(str(samples_dir()) + os.sep, "")


def _queries(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """(caption, chip id): a chip of the road, one of the meadow, and simulated scenes of two classes."""
    chips = (
        (
            "Where else is there a road? A chip of the Yellowstone aerial scene.",
            "yellowstone_road.tif",
            (384, 768),
        ),
        ("More meadow like this? Real imagery again.", "yellowstone_meadow.tif", (256, 256)),
    )
    for caption, file, corner in chips:
        for row in rows:
            at = (row["window"]["column"], row["window"]["row"])
            if row["source"].endswith(file) and at == corner:
                yield caption, row["id"]
    for kind in ("homes", "river"):
        chip_id = next((row["id"] for row in rows if row["label"] == kind), None)
        if chip_id is not None:
            yield f"More like this simulated scene ({kind})?", chip_id


def _precision(archive: Archive, k: int = 10) -> tuple[float, float]:
    """Mean precision of the first `k` results over all labeled chips, and its chance level."""
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


# ---------------------------------------------------------------------------------------------- helpers


@contextmanager
def _stage(results: DemoResults, name: str, log: LogFn) -> Iterator[None]:
    log(f"{name} ...")
    start = time.monotonic()
    yield
    results.seconds[name] = time.monotonic() - start
    log(f"{name}: {results.seconds[name]:.0f} s")


def _about(model: Model) -> dict[str, Any]:
    from swath.evaluation.report.tables import software_versions

    low, high = model.contract.gsd_range or (0.0, 0.0)
    parameters = sum(p.numel() for p in model.parameters())
    return {
        "model": model.id,
        "parameters": f"{parameters / 1e6:.1f} million",
        "GSD range": f"{low:.2g} to {high:.2g} m",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        **software_versions(),
    }

"""How good a model's frozen features are: one function per command of `swath evaluate`.

    import swath

    result = swath.evaluate.knn("runs/first/model", "scenes/index.csv", sensor="sentinel2_l2a")
    print(result.mean("first", "knn").accuracy)

`models` is one model or several: a `swath.Model`, a model directory, a checkpoint, ``timm:NAME``,
``random:ENCODER``, or the name of a baseline (``rcf``, ``statistics``, ...). `data` is a path, the name of a
benchmark (with `root`), or a `TrainTestSplit`. Keyword arguments that a function does not list itself open
models and data: `sensor`, `pooling`, `gsd`, `train_split`, `label_column` and so on, see
`swath.evaluation.inputs.open_eval_inputs` and `swath.evaluation.data.opening.open_eval_data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from swath.datasets.opening import open_dataset
from swath.datasets.pairs.opening import open_pairs
from swath.datasets.protocol import ImageDataset, PairedDataset
from swath.errors import SwathError
from swath.evaluation.audit.geometry import EmbeddingStatsReport, evaluate_embedding_stats
from swath.evaluation.audit.leakage import LeakageReport, find_leaks
from swath.evaluation.audit.robustness import RobustnessReport, evaluate_robustness
from swath.evaluation.data.make_split import SplitAssignment
from swath.evaluation.data.make_split import make_split as _make_split
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.features.extract import extract_features
from swath.evaluation.features.protocol import Progress
from swath.evaluation.inputs import Data, EvalInputs, ModelLike, Models, open_eval_inputs
from swath.evaluation.protocols.fewshot import Classifier, evaluate_fewshot
from swath.evaluation.protocols.frozen import evaluate_knn, evaluate_linear
from swath.evaluation.protocols.results import EvaluationResult
from swath.evaluation.protocols.setup import native_image_size
from swath.evaluation.report.data import collect_report_data
from swath.evaluation.report.tables import write_scores
from swath.evaluation.report.write import write_html_report
from swath.evaluation.retrieval.features import RetrievalModel, retrieval_baselines, retrieval_model
from swath.evaluation.retrieval.protocol import evaluate_retrieval
from swath.evaluation.retrieval.report import write_retrieval
from swath.evaluation.retrieval.results import RetrievalEvaluation
from swath.evaluation.retrieval.splits import split_retrieval
from swath.evaluation.suites.config import Suite, SuiteModel, get_suite
from swath.evaluation.suites.results import SuiteResult
from swath.evaluation.suites.run import run_suite
from swath.evaluation.suites.write import write_suite_report
from swath.models import Contract, load_encoder
from swath.models.model import Model
from swath.sensors.registry import get_sensor

__all__ = [
    "embedding_stats",
    "fewshot",
    "knn",
    "leakage",
    "linear_probe",
    "make_split",
    "report",
    "retrieval",
    "robustness",
    "suite",
]


def knn(
    models: Models,
    data: Data,
    *,
    image_sizes: Sequence[int] | None = None,
    k: int = 20,
    temperature: float = 0.07,
    asymmetric: bool = True,
    standardize: bool = True,
    baselines: bool = True,
    out: str | Path | None = None,
    cache: FeatureCache | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    **inputs: Any,
) -> EvaluationResult:
    """Score k-nearest-neighbor classification at several image sizes.

    Args:
        models: What to score, the model in question first.
        data: Labeled images.
        image_sizes: In pixels; default 12.5 to 100% of the native size.
        k: Neighbors that vote.
        temperature: A vote weighs exp(cosine / temperature).
        asymmetric: Also score reduced test images against train images at their largest size.
        standardize: Also score standardized features (``knn-standardized``).
        baselines: Also score simple baselines.
        out: Folder for JSON, CSV, predictions and plots.
        cache: Where features are read from and written to; default none.
        batch_size: Images per forward pass.
        progress: Called with (images done, images in all).
        inputs: See the module.
    """
    opened = open_eval_inputs(models, data, baselines=baselines, **inputs)
    result = evaluate_knn(
        opened.extractors, opened.split, image_sizes=image_sizes, k=k, temperature=temperature,
        asymmetric=asymmetric, standardize=standardize, cache=cache, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    return _write(result, opened, out)


def linear_probe(
    models: Models,
    data: Data,
    *,
    c: float | None = None,
    image_sizes: Sequence[int] | None = None,
    baselines: bool = True,
    out: str | Path | None = None,
    cache: FeatureCache | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    **inputs: Any,
) -> EvaluationResult:
    """Score logistic regression on the features. Same arguments as `knn`, and:

    Args:
        c: Inverse penalty strength; default: selected on held-out train images.
        image_sizes: In pixels; default the native size.
    """
    opened = open_eval_inputs(models, data, baselines=baselines, **inputs)
    result = evaluate_linear(
        opened.extractors, opened.split, image_sizes=image_sizes, c=c, cache=cache, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    return _write(result, opened, out)


def fewshot(
    models: Models,
    data: Data,
    *,
    shots: Sequence[int] | None = None,
    repeats: int = 10,
    classifiers: Sequence[Classifier] = ("centroid", "linear"),
    c: float = 0.1,
    seed: int = 0,
    image_sizes: Sequence[int] | None = None,
    baselines: bool = True,
    out: str | Path | None = None,
    cache: FeatureCache | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    **inputs: Any,
) -> EvaluationResult:
    """Score classifiers fitted to n labeled images per class. Same arguments as `knn`, and:

    Args:
        shots: Numbers n; default 1, 2, 5, 10, 20, 50, 100 as far as every class has as many images.
        repeats: Random draws per n.
        classifiers: "centroid", "linear" or both.
        c: Inverse penalty strength of the linear classifier.
        seed: Of the draws.
    """
    opened = open_eval_inputs(models, data, baselines=baselines, **inputs)
    result = evaluate_fewshot(
        opened.extractors, opened.split, image_sizes=image_sizes, shots=shots, repeats=repeats,
        classifiers=classifiers, c=c, seed=seed, cache=cache, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    return _write(result, opened, out)


def leakage(
    data: Data, *, model: ModelLike | None = None, batch_size: int = 64, progress: Progress | None = None,
    **inputs: Any,
) -> LeakageReport:  # fmt: skip
    """Find test images that the train split contains too: copies, overlaps, near duplicates.

    Args:
        data: Labeled images.
        model: Also search by the features of this model; its matches are verified on the pixels.
        batch_size: Images per forward pass.
        progress: Called with (images done, images in all).
        inputs: See the module.
    """
    if not hasattr(data, "train"):
        inputs = {"allow_overlap": True, **inputs}
    opened = open_eval_inputs(model or "baseline:statistics", data, baselines=False, **inputs)
    features = None
    if model is not None:
        extractor, split = opened.own[0], opened.split
        size = native_image_size([extractor], split)
        train, test = (
            extract_features([extractor], part, size, batch_size=batch_size)
            for part in (split.train, split.test)
        )
        features = (train.features[extractor.name, size[0]], test.features[extractor.name, size[0]])
    return find_leaks(opened.split, features=features, batch_size=batch_size, progress=progress)


def robustness(
    models: Models,
    data: Data,
    *,
    corruptions: Sequence[str] | None = None,
    image_size: int | None = None,
    k: int = 20,
    standardize: bool = False,
    max_images: int | None = 500,
    baselines: bool = True,
    out: str | Path | None = None,
    cache: FeatureCache | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    **inputs: Any,
) -> RobustnessReport:
    """Score kNN on corrupted test images. Same arguments as `knn`, and:

    Args:
        corruptions: Names, such as "haze"; default all that apply to the sensor.
        image_size: In pixels; default the native size.
        standardize: Standardize features by the train split.
        max_images: Number of test images used.
    """
    opened = open_eval_inputs(models, data, baselines=baselines, **inputs)
    result = evaluate_robustness(
        opened.extractors, opened.split, corruptions=corruptions, image_size=image_size, k=k,
        standardize=standardize, max_images=max_images, cache=cache, batch_size=batch_size, progress=progress,
    )  # fmt: skip
    if out is not None:
        result.write(out, **opened.about)
    return result


def embedding_stats(
    models: Models,
    data: Data,
    *,
    image_sizes: Sequence[int] | None = None,
    baselines: bool = True,
    out: str | Path | None = None,
    cache: FeatureCache | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    **inputs: Any,
) -> EmbeddingStatsReport:
    """Measure the embeddings of the train split: RankMe, uniformity, intrinsic dimension, collapse.

    Same arguments as `knn`.
    """
    opened = open_eval_inputs(models, data, baselines=baselines, **inputs)
    result = evaluate_embedding_stats(
        opened.extractors, opened.split.train, image_sizes=image_sizes, cache=cache, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    if out is not None:
        result.write(out, **opened.about, split_hash=opened.split.hash)
    return result


def report(
    models: Models,
    data: Data,
    out: str | Path,
    *,
    title: str = "",
    image_sizes: Sequence[int] | None = None,
    baselines: bool = True,
    cache: FeatureCache | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    options: Mapping[str, Any] | None = None,
    **inputs: Any,
) -> Path:
    """Write one HTML page with all scores and checks. Same arguments as `knn`, and:

    Args:
        out: Folder.
        title: Of the page; default the name of the data's folder.
        options: Further ones of `swath.evaluation.report.data.collect_report_data`, e.g. ``fewshot=False``.

    Returns:
        The page.
    """
    if not hasattr(data, "train"):
        inputs = {"allow_overlap": True, **inputs}  # the page lists leaks
    opened = open_eval_inputs(models, data, baselines=baselines, **inputs)
    collected = collect_report_data(
        opened.own, opened.baselines, opened.split, title=title, image_sizes=image_sizes, cache=cache,
        batch_size=batch_size, progress=progress, **(options or {}),
    )  # fmt: skip
    return write_html_report(collected, out, **opened.about)[0]


def suite(
    suite: str | Path | Suite,
    models: str | Path | Sequence[str | Path | SuiteModel],
    out: str | Path,
    *,
    data_root: str | Path | None = None,
    device: str | None = None,
    cache: FeatureCache | None = None,
    batch_size: int = 64,
    html_reports: bool = False,
) -> SuiteResult:
    """Score several models on several data sets and write one table. A second run does what is left to do.

    Args:
        suite: A ready suite (see `list_suites`), its YAML file, or a `Suite`.
        models: Model directories, ``timm:NAME`` and so on.
        out: Folder for the reports.
        data_root: Folder of the data sets.
        device: Default: a GPU if there is one.
        cache: Where features are read from and written to.
        batch_size: Images per forward pass.
        html_reports: Also write an HTML page per data set.
    """
    listed = [models] if isinstance(models, (str, Path)) else models
    result = run_suite(
        suite if isinstance(suite, Suite) else get_suite(suite),
        [one if isinstance(one, SuiteModel) else SuiteModel(model=str(one)) for one in listed],
        out=out, data_root=data_root, device=device, cache=cache, batch_size=batch_size,
        html_reports=html_reports, after_set=lambda partial: _write_suite(partial, out),
    )  # fmt: skip
    _write_suite(result, out)
    return result


def retrieval(
    model: ModelLike,
    pairs: str | Path | PairedDataset,
    *,
    sensors: Sequence[str] | None = None,
    k: int = 20,
    query_split: str | None = None,
    gallery_split: str | None = None,
    allow_overlap: bool = False,
    seed: int = 0,
    baselines: bool = True,
    pooling: str | None = None,
    out: str | Path | None = None,
    batch_size: int = 64,
    progress: Progress | None = None,
    **options: Any,
) -> RetrievalEvaluation:
    """Score retrieval within and across the sensors of co-registered images.

    Args:
        model: A model of several sensors, or the baseline ``statistics`` or ``rcf`` (with `sensors`).
        pairs: Labeled pairs: a path, or an open data set.
        sensors: Names; default all sensors of the model.
        k: Number of results scored.
        query_split: Split of the queries, or ``all``; default ``val``, or whole groups by seed.
        gallery_split: Split that is searched, or ``all``; default ``test``.
        allow_overlap: Continue if a group is in both splits.
        seed: Of a split that is made here.
        baselines: Also score simple baselines.
        pooling: Instead of the model's own.
        out: Folder for the report.
        batch_size: Images per forward pass.
        progress: Called with (images done, images in all).
        options: Further ones of `swath.open_pairs`.
    """
    scored, names, contract = _retrieval_models(model, sensors, baselines, pooling)
    if isinstance(pairs, (str, Path)):
        opened = [get_sensor(name) if contract is None else contract.sensor(name) for name in names]
        if contract is None or contract.gsd_mode == "relative":
            options = {"gsd": "relative", **options}
        pairs = open_pairs(pairs, sensors=opened, **options)
    split = split_retrieval(
        pairs, query_split=query_split, gallery_split=gallery_split, allow_overlap=allow_overlap, seed=seed
    )
    result = evaluate_retrieval(scored, split, k=k, batch_size=batch_size, progress=progress)
    if out is not None:
        write_retrieval(result, out, model=scored[0].name)
    return result


def make_split(
    data: str | Path | ImageDataset,
    *,
    strategy: Literal["random", "group", "block"] = "random",
    fractions: Mapping[str, float] | None = None,
    group_column: str | None = None,
    block_metres: float = 1000.0,
    buffer_metres: float = 0.0,
    coordinates: tuple[str, str] | None = None,
    sensor: str = "rgb_aerial",
    label_column: str | None = None,
    seed: int = 0,
) -> SplitAssignment:
    """Divide labeled images into splits that do not leak; `SplitAssignment.write` saves the table.

    Args:
        data: Class folders, a CSV table, or an open data set.
        strategy: What stays together: nothing ("random"), a group, or a block of ground.
        fractions: Split name -> its fraction of every class; default 0.8 train, 0.2 val.
        group_column: strategy "group": column of the scene, city or sequence.
        block_metres: strategy "block": size of a block.
        buffer_metres: strategy "block": minimum distance between images of different splits.
        coordinates: strategy "block": columns of longitude and latitude; default the files' georeference.
        sensor: What the images were taken with.
        label_column: Column of the classes; default ``class`` or ``label``.
        seed: Of the random order.
    """
    if isinstance(data, (str, Path)):
        options: dict[str, Any] = {}
        if Path(data).suffix.lower() == ".csv":
            options["label_column"] = label_column or _label_column(Path(data))
        data = open_dataset(data, sensor=sensor, gsd="relative", **options)
    return _make_split(
        data, strategy=strategy, fractions=fractions, group_column=group_column, block_metres=block_metres,
        buffer_metres=buffer_metres, coordinates=coordinates, seed=seed,
    )  # fmt: skip


def _write(result: EvaluationResult, opened: EvalInputs, out: str | Path | None) -> EvaluationResult:
    if out is not None:
        write_scores(result, out, **opened.about)
    return result


def _write_suite(result: SuiteResult, out: str | Path) -> None:
    write_suite_report(result, out)


def _label_column(path: Path) -> str | None:
    """``class`` or ``label``, whichever the table has."""
    from swath.datasets.csv_table import read_csv

    header, _ = read_csv(path)
    return next((name for name in ("class", "label") if name in header), None)


def _retrieval_models(
    model: ModelLike, sensors: Sequence[str] | None, baselines: bool, pooling: str | None
) -> tuple[list[RetrievalModel], list[str], Contract | None]:
    """What is scored, the model in question first; the names of the sensors; the model's contract."""
    name = str(model).removeprefix("baseline:")
    if name in ("statistics", "rcf") and not Path(name).exists():
        if not sensors:
            raise SwathError("A baseline has no sensors of its own. Name them: sensors=['A', 'B'].")
        statistics, rcf = retrieval_baselines(sensors)
        first, other = (statistics, rcf) if name == "statistics" else (rcf, statistics)
        return [first, other] if baselines else [first], list(sensors), None
    loaded = model.encoder_model if isinstance(model, Model) else load_encoder(str(model))
    names = list(sensors or loaded.contract.sensors)
    if len(set(names)) < 2:
        raise SwathError(
            f"Retrieval across sensors needs two sensors, but {loaded.name} is used with "
            f"{', '.join(names)} only. Use a model of several sensors, or swath.evaluate.knn for one sensor."
        )
    scored = [retrieval_model(loaded, names, pooling=pooling)]
    if baselines:
        scored += retrieval_baselines(names, loaded, pooling=pooling)
    return scored, names, loaded.contract

"""Several models on several sets by the same protocols, with nothing left out in silence.

A set that is not there is listed as absent, a model that does not fit a set as not applicable, each with the
reason; a mean over sets says over how many of how many. Features are cached, and sets that are finished are
not done
again: a killed run goes on where it stopped. Every set has its own folder with full reports; `SuiteResult`
is the summary of all.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swath.errors import ContractError, SwathError
from swath.evaluation.data.opening import is_benchmark_name, locate_dataset, native_sensor, open_eval_data
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.features.baselines import make_baseline, random_init
from swath.evaluation.features.cache import FeatureCache
from swath.evaluation.features.opening import EvalModel, open_eval_model
from swath.evaluation.features.protocol import FeatureExtractor, Progress
from swath.evaluation.protocols.frozen import evaluate_knn, evaluate_linear
from swath.evaluation.protocols.results import EvaluationResult
from swath.evaluation.protocols.setup import default_image_sizes, native_scale
from swath.evaluation.report.tables import software_versions, write_scores
from swath.evaluation.suites.config import Suite, SuiteDataset, SuiteModel
from swath.evaluation.suites.results import DatasetResult, SuiteResult, SuiteScore, merge_evaluations, rows_of
from swath.files import write_json
from swath.renames import stored_names

Watch = Callable[[str, int], Any]  # (what, images in all) -> context manager that gives a progress callback

FORMAT = 2
_DATA_OPTIONS = {
    "gsd", "train_split", "test_split", "label_column", "label_separator", "labels", "split_column",
    "group_column",
    "allow_overlap", "test_fraction", "offset_dn", "size", "filter",
}  # fmt: skip


def run_suite(
    suite: Suite,
    models: Sequence[SuiteModel] = (),
    *,
    out: str | Path,
    data_root: str | Path | None = None,
    device: str | None = None,
    batch_size: int = 64,
    cache: FeatureCache | None = None,
    html_reports: bool = False,
    images: bool = True,
    watch: Watch | None = None,
    after_set: Callable[[SuiteResult], None] | None = None,
) -> SuiteResult:
    """Score models on all sets of a suite.

    Args:
        suite: See `swath.evaluation.suites`.
        models: More models than the suite names itself.
        out: Folder of the reports, one sub-folder a set; what is finished there is not done again.
        data_root: Folder of data sets.
        device: Default: a GPU if there is one.
        batch_size: Images a forward pass.
        cache: Where features are kept; default: the user's cache folder.
        html_reports: Also write an HTML page a set: leaks, robustness, neighbors as images and more, which
            takes several times as long.
        images: Whether those pages show images of the data.
        watch: Shows progress.
        after_set: Called with what there is so far.

    Raises:
        SwathError: No model, baseline or set to score; a model that does not exist.
    """
    requested = [*suite.models, *models]
    if not requested and not suite.baselines:
        raise SwathError("a suite without models and baselines has nothing to score; name a model")
    names = _names(requested)
    for model in requested:  # one that does not exist is an error now, not after hours
        with suppress(ContractError):
            open_eval_model(model.model, pooling=model.pooling, bands=model.bands, device=device)
    result = SuiteResult(suite, names)
    run = _SuiteRun(
        suite,
        requested,
        names,
        Path(out),
        data_root,
        device,
        batch_size,
        cache or FeatureCache(),
        html_reports,
        images,
        watch,
    )
    for one in suite.datasets:
        result.datasets.append(run.score(one))
        if after_set is not None:
            after_set(result)
    return result


def _names(models: Sequence[SuiteModel]) -> list[str]:
    """What models are called in tables: by name, else by the last parts of what they are; all different."""
    found = [m.name or m.model for m in models]
    duplicates = sorted({name for name in found if found.count(name) > 1})
    if duplicates:
        raise SwathError(f"two models are called {duplicates[0]!r}; name them apart: NAME={duplicates[0]}")
    return found


@dataclass(slots=True)
class _SuiteRun:
    """One run of a suite."""

    suite: Suite
    models: list[SuiteModel]
    names: list[str]
    out: Path
    root: str | Path | None
    device: str | None
    batch_size: int
    cache: FeatureCache
    pages: bool
    images: bool
    watch: Watch | None

    def score(self, one: SuiteDataset) -> DatasetResult:
        """One set, however it ends."""
        reference = list(one.published) if one.published else None
        data = self._data(one)
        try:
            folder = locate_dataset(data, self.root)
        except SwathError as error:
            return DatasetResult(one.shown, "absent", str(error), reference=reference)
        candidates, not_applicable = self._candidates(one, data)
        key = self._key(one, folder, candidates, not_applicable)
        before = self._before(one, key)
        if before is not None:
            return before
        try:
            found = self._evaluate(one, data, candidates, not_applicable)
        except SwathError as error:
            return DatasetResult(
                one.shown, "failed", str(error), not_applicable=not_applicable, reference=reference
            )
        found.reference = reference
        write_json(self.out / one.folder / "finished.json", {"key": key, "result": asdict(found)})
        return found

    # ---- who looks at what

    def _data(self, one: SuiteDataset) -> str:
        """A path below the root if it is there; else as it stands."""
        if self.root is not None and not is_benchmark_name(one.data):
            below = Path(self.root) / one.data
            if below.exists():
                return str(below)
        return one.data

    def _candidates(self, one: SuiteDataset, data: str) -> tuple[list[EvalModel], dict[str, str]]:
        """The models that can look at this set, and why others cannot."""
        default = one.sensor or native_sensor(data)
        found: list[EvalModel] = []
        not_applicable: dict[str, str] = {}
        for model, name in zip(self.models, self.names, strict=True):
            try:
                found.append(
                    open_eval_model(
                        model.model,
                        None,
                        default_sensor=default,
                        pooling=model.pooling,
                        bands=model.bands,
                        gsd_mode=self._gsd_mode(model.model),
                        device=self.device,
                        name=name,
                    )
                )
            except ContractError as error:
                not_applicable[name] = str(error)
        return found, not_applicable

    def _gsd_mode(self, model: str) -> Any:
        """The suite's, for what looks at scale at all."""
        return self.suite.gsd_mode if _knows_scale(model) else None

    def _key(
        self, one: SuiteDataset, folder: Path, candidates: Sequence[EvalModel], not_applicable: dict[str, str]
    ) -> str:
        """Of everything that a set's scores depend on."""
        about = {
            "format": FORMAT,
            "software": {k: v for k, v in software_versions().items() if k in ("swath", "torch")},
            "set": stored_names(
                {"datasets": [one.model_dump(mode="json", exclude={"published", "title"})]}, "suite"
            )["sets"][0],
            "suite": stored_names(
                self.suite.model_dump(
                    mode="json", include={"protocols", "scales", "seed", "baselines", "gsd_mode"}
                ),
                "suite",
            ),
            "files": _fingerprint(folder),
            "models": [
                [f.name, f.settings, getattr(f, "identity", None)] for c in candidates for f in c.extractors
            ],
            "unfit": not_applicable,
            "pages": [self.pages, self.images] if self.pages else False,
        }
        return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()

    def _before(self, one: SuiteDataset, key: str) -> DatasetResult | None:
        """What an earlier run has found of the same."""
        try:
            data = json.loads((self.out / one.folder / "finished.json").read_text(encoding="utf-8"))
            if data["key"] != key:
                return None
            kept = {**data["result"], "again": True, "title": one.shown}
            if "unfit" in kept:  # written by 0.1
                kept["not_applicable"] = kept.pop("unfit")
            kept["reference"] = list(one.published) if one.published else None
            kept["rows"] = [SuiteScore(**{**row, "set": one.shown}) for row in kept["rows"]]
            return DatasetResult(**kept)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    # ---- scoring

    def _evaluate(
        self, one: SuiteDataset, data: str, candidates: Sequence[EvalModel], not_applicable: dict[str, str]
    ) -> DatasetResult:
        """Everybody who sees the same images at the same sides together; then all in one report."""
        result = DatasetResult(one.shown, "done", not_applicable=dict(not_applicable))
        roles: dict[str, str] = {}
        groups = self._groups(one, data, candidates, result, roles)
        for protocol in ("knn", "linear"):
            options = getattr(self.suite.protocols, protocol)
            if options is None:
                continue
            found = []
            for split, extractors in groups:
                scales = options.scales if protocol == "linear" else one.scales or self.suite.scales
                image_sizes = _sides(split, scales, extractors)
                total = len(split.train.indices) + len(split.test.indices)
                with self._progress(f"{one.shown}, {protocol}", total) as progress:
                    found.append(self._by(protocol, options, extractors, split, image_sizes, progress))
            evaluation = merge_evaluations(found)
            result.seconds += evaluation.seconds
            result.notes += [note for note in evaluation.notes if note not in result.notes]
            write_scores(evaluation, self.out / one.folder, data=data, suite=self.suite.name)
            result.rows += rows_of(one.shown, protocol, evaluation, roles)
            result.origins[protocol] = {
                "protocol_id": str(evaluation.protocol["id"]),
                "config_hash": evaluation.config_hash,
                "split_hash": str(evaluation.protocol["split_hash"]),
            }
        if self.pages:
            self._pages(one, groups, roles)
        result.partial = any(note.startswith("not the whole set") for note in result.notes)
        return result

    def _groups(
        self,
        one: SuiteDataset,
        data: str,
        candidates: Sequence[EvalModel],
        result: DatasetResult,
        roles: dict[str, str],
    ) -> list[tuple[TrainTestSplit, list[FeatureExtractor]]]:
        """Splits, and who looks at each: by sensor, GSD mode and patch; baselines with the first."""
        splits: dict[tuple[Any, ...], TrainTestSplit] = {}
        groups: dict[tuple[Any, ...], list[FeatureExtractor]] = {}
        default = one.sensor or native_sensor(data) or "rgb_aerial"
        for candidate in candidates:
            key: tuple[Any, ...] = (candidate.sensor.name, candidate.sensor.band_names, candidate.gsd_mode)
            try:
                if key not in splits:
                    splits[key] = self._open(one, data, candidate.sensor, candidate.gsd_mode)
            except SwathError as error:
                result.not_applicable[candidate.name] = str(error)
                continue
            result.notes += candidate.notes
            own: list[FeatureExtractor] = list(candidate.extractors)
            roles |= dict.fromkeys((f.name for f in own), "model")
            if (
                "random" in self.suite.baselines
                and candidate.model is not None
                and "model_id" in candidate.about
            ):
                fresh = random_init(candidate.model, gsd_mode=candidate.gsd_mode)
                fresh.name = f"{candidate.name}, untrained"
                roles[fresh.name] = "untrained"
                own.append(fresh)
            groups.setdefault((*key, max(f.min_image_size for f in own)), []).extend(own)
        baselines = [make_baseline(name) for name in self.suite.baselines if name != "random"]
        if baselines:
            roles |= dict.fromkeys((f.name for f in baselines), "baseline")
            first = next(iter(groups), None)
            if first is None:
                key = (default, None, None)
                splits[key] = self._open(one, data, default, None)
                first = (*key, 1)
            groups.setdefault(first, []).extend(baselines)
        if not groups:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in result.not_applicable.items())
            raise SwathError(f"no model can look at this set ({reasons})")
        return [(splits[key[:-1]], extractors) for key, extractors in groups.items()]

    def _open(self, one: SuiteDataset, data: str, sensor: Any, gsd_mode: Any) -> TrainTestSplit:
        options = one.model_dump(include=_DATA_OPTIONS)
        return open_eval_data(
            data, sensor=sensor, root=self.root, gsd_mode=gsd_mode, seed=self.suite.seed, **options
        )

    def _by(
        self,
        protocol: str,
        options: Any,
        extractors: Sequence[FeatureExtractor],
        split: TrainTestSplit,
        image_sizes: list[int],
        progress: Progress | None,
    ) -> EvaluationResult:
        common: dict[str, Any] = {
            "image_sizes": image_sizes,
            "batch_size": self.batch_size,
            "progress": progress,
            "cache": self.cache,
        }
        if protocol == "knn":
            return evaluate_knn(extractors, split, **options.model_dump(), **common)
        given = {} if options.c is None else {"c": options.c}
        return evaluate_linear(extractors, split, **given, **common)

    def _pages(
        self,
        one: SuiteDataset,
        groups: Sequence[tuple[TrainTestSplit, list[FeatureExtractor]]],
        roles: dict[str, str],
    ) -> None:
        """A page for each group of models that see the images alike."""
        from swath.evaluation.report.data import collect_report_data
        from swath.evaluation.report.page import render_report

        for number, (split, extractors) in enumerate(groups):
            models = [f for f in extractors if roles[f.name] == "model"]
            others = [f for f in extractors if roles[f.name] != "model"]
            if not models:
                continue
            image_sizes = _sides(split, one.scales or self.suite.scales, extractors)
            report_data = collect_report_data(
                models, others, split, title=one.shown, image_sizes=image_sizes, batch_size=self.batch_size,
                images=self.images, cache=self.cache,
            )  # fmt: skip
            name = "report.html" if number == 0 else f"report_{number + 1}.html"
            render_report(report_data, self.out / one.folder / name)

    @contextmanager
    def _progress(self, what: str, total: int) -> Iterator[Progress | None]:
        if self.watch is None:
            yield None
            return
        with self.watch(what, total) as progress:
            yield progress


def _knows_scale(model: str) -> bool:
    """Models of Swath do; timm's and baselines do not."""
    path = Path(model)
    return path.exists() or model.startswith("random:")


def _sides(
    split: TrainTestSplit, scales: Sequence[float], extractors: Sequence[FeatureExtractor]
) -> list[int]:
    """Percents of the native side as pixels: multiples of everybody's patch."""
    native, step = native_scale(split.train)[0], math.lcm(*(f.min_image_size for f in extractors))
    if tuple(scales) == (12.5, 25, 50, 100):
        return default_image_sizes(native, step)
    return sorted({max(step, round(native * scale / 100 / step) * step) for scale in scales})


def _fingerprint(path: Path) -> str:
    """Of the names, sizes and times of all files of a set; nothing is read."""
    digest = hashlib.sha256()
    if path.is_file():
        about = path.stat()
        digest.update(f"{path}\t{about.st_size}\t{about.st_mtime_ns}\n".encode())
        return digest.hexdigest()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            about = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 (called very often)
            digest.update(f"{folder}/{name}\t{about.st_size}\t{about.st_mtime_ns}\n".encode())
    return digest.hexdigest()

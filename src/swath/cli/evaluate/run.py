"""What the verbs of `swath evaluate` do alike: open models and data, score, print, write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from swath.cli.evaluate.options import EvalOptions
from swath.cli.parsing import number_or_name

if TYPE_CHECKING:
    from swath.evaluation.inputs import EvalInputs

# Options of the commands -> arguments of `open_eval_data`, and those that models are opened by.
_DATA_OPTIONS = {
    "data_root": "root", "train_split": "train_split", "test_split": "test_split",
    "label_column": "label_column", "label_separator": "label_separator", "label_mode": "labels",
    "split_column": "split_column", "group_column": "group_column", "allow_overlap": "allow_overlap",
    "seed": "seed", "size": "size", "offset_dn": "offset_dn",
}  # fmt: skip


def run_protocol(evaluate: Any, given: EvalOptions, *, protocol: str | None = None, **options: Any) -> None:
    """Load, score, print, write: the same for every protocol.

    Args:
        evaluate: Such as `swath.evaluation.protocols.frozen.evaluate_knn`.
        given: The command's shared options.
        protocol: "scale_mae" for its released evaluation (see `check_protocol`).
        options: What `evaluate` takes beside feature extractors, split and image sizes.
    """
    from rich.console import Console

    from swath.evaluation.report.tables import (
        comparison_table,
        score_tables,
        seed_table,
        summary_sentence,
        write_scores,
    )

    console, progress = Console(), Console(stderr=True)
    _check(given)
    cache = feature_cache(given.cache, given.no_cache)
    sizes = numbers(given.image_sizes, "--image-sizes are pixels", "16,32,64")
    opened = open_eval_inputs(given, progress, protocol)
    split, candidates, extractors = opened.split, opened.models, opened.extractors
    if given.gsds is not None:
        sizes = _sides(given.gsds, split, extractors)
    if protocol is not None:
        options |= {"asymmetric": False, "standardize": False, "protocol": protocol}
    with progress_bar(progress, len(split.train.indices) + len(split.test.indices)) as advance:
        evaluation = evaluate(
            extractors, split, image_sizes=sizes, batch_size=given.batch_size, progress=advance,
            cache=cache, **options,
        )  # fmt: skip
    if given.average_seeds:
        evaluation.seed_group = [candidate.name for candidate in candidates]
    if cache is not None and cache.reused:
        progress.print(
            f"features: {cache.reused:,} of {cache.reused + cache.computed:,} rows were in {cache.folder}"
        )
    for table in score_tables(evaluation):
        console.print(table)
    if given.average_seeds:
        console.print(seed_table(evaluation))
    if len(candidates) > 1:
        console.print(comparison_table(evaluation, [extractor.name for extractor in opened.own]))
    p = evaluation.protocol
    chance = "always the most frequent class" if p["metric"] == "top-1 accuracy" else "by chance"
    console.print(
        f"bank: {p['train']['images']:,} images ({p['train']['name']}); queries: {p['test']['images']:,} "
        f"({p['test']['name']}); {chance}: {100 * p['chance']:.1f}%",
        highlight=False,
    )
    for note in evaluation.notes:
        console.print(f"[yellow]note:[/yellow] {escape_markup(note)}", highlight=False)
    sentence = summary_sentence(evaluation)
    if sentence and len(candidates) == 1:
        console.print(escape_markup(sentence), highlight=False)
    if given.out is not None:
        for path in write_scores(evaluation, given.out, **opened.about):
            console.print(f"wrote {escape_markup(str(path))}", highlight=False)


def open_eval_inputs(given: EvalOptions, console: Any, protocol: str | None = None) -> EvalInputs:
    """Open the models and the data that a command names; `console` says so."""
    from swath.evaluation import inputs

    with console.status(f"opening {', '.join(given.models)} and {given.data}"):
        opened = inputs.open_eval_inputs(
            given.models,
            given.data,
            sensor=given.sensor,
            pooling=given.pooling,
            gsd_mode=given.gsd_mode,  # type: ignore[arg-type]  # checked by what opens the models
            bands=[band.strip() for band in given.bands.split(",")] if given.bands else None,
            device=given.device,
            baselines=given.baselines,
            gsd=number_or_name(given.gsd),
            **{theirs: getattr(given, ours) for ours, theirs in _DATA_OPTIONS.items()},
        )
    if protocol is not None:
        for model in opened.models:
            model.extractors = [_as_published(model)]
    return opened


def feature_cache(folder: Path | None, none: bool) -> Any:
    """Where features are kept, as --cache and --no-cache say."""
    from swath.errors import SwathError
    from swath.evaluation.features.cache import FeatureCache

    if folder is not None and none:
        raise SwathError("--cache and --no-cache contradict each other: give one of them")
    return None if none else FeatureCache(folder)


def _check(given: EvalOptions) -> None:
    """Options that contradict each other, before anything is opened."""
    from swath.errors import SwathError

    if given.gsd_mode not in (None, "metres", "relative"):
        raise SwathError(f"--gsd-mode is metres or relative, not {given.gsd_mode!r}")
    if given.gsds is not None and given.image_sizes is not None:
        raise SwathError("--image-sizes and --gsds both say what images are reduced to: give one of them")
    if given.average_seeds and len(given.models) < 2:
        raise SwathError("--average-seeds needs the models of two seeds or more, such as runs/seed_*/model")


def check_protocol(protocol: str, given: EvalOptions, *, k: int, temperature: float) -> None:
    """Refuse an unknown protocol, and options that it fixes."""
    from swath.errors import SwathError

    if protocol != "scale_mae":
        raise SwathError(f"--protocol knows scale_mae, not {protocol!r}")
    fixed = {"pooling": (given.pooling, None), "gsd-mode": (given.gsd_mode, None), "k": (k, 20)}
    for name, (value, usual) in (fixed | {"temperature": (temperature, 0.07)}).items():
        if value != usual:
            raise SwathError(f"--protocol scale_mae fixes --{name}: leave one of the two out")


def _as_published(candidate: Any) -> Any:
    from swath.errors import SwathError
    from swath.evaluation.features.model import ModelFeatureExtractor

    if candidate.model is None:
        raise SwathError(f"--protocol scale_mae is for models of Swath; {candidate.name} is none")
    return ModelFeatureExtractor.scale_mae(candidate.model, candidate.name)


def _sides(text: str, split: Any, extractors: list[Any]) -> list[int]:
    """Sides in pixels of ground sample distances in metres."""
    from swath.errors import SwathError
    from swath.evaluation.protocols.setup import image_sizes_for_gsds

    try:
        requested = [float(part) for part in text.split(",")]
    except ValueError:
        requested = []
    if not requested or min(requested) <= 0:
        raise SwathError(f"--gsds are metres per pixel with commas between, such as 0.6,1.2, not {text!r}")
    found: list[int] = image_sizes_for_gsds(split, requested, extractors)
    return found


def numbers(text: str | None, what: str, example: str) -> list[int] | None:
    """Positive whole numbers with commas between."""
    from swath.errors import SwathError

    if text is None:
        return None
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise SwathError(f"{what} with commas between, such as {example}, not {text!r}")
    return found


def progress_bar(console: Any, total: int) -> Any:
    """A context manager that gives a progress callback: images done, time left."""
    from contextlib import contextmanager

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    @contextmanager
    def shown() -> Any:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("features", total=total)

            def advance(done: int, _: int) -> None:
                progress.update(task, completed=done)
                if done == total:
                    progress.update(task, description="scores")

            yield advance

    return shown()


def escape_markup(text: str) -> str:
    """Square brackets of paths and intervals are no markup."""
    return text.replace("[", "\\[")

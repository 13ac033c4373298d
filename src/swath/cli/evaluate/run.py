"""What the verbs of `swath evaluate` do alike: open models and data, score, print, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Options of the commands -> arguments of `open_eval_data`, and those that models are opened by.
_DATA_OPTIONS = {
    "data_root": "root", "train_split": "train_split", "test_split": "test_split",
    "label_column": "label_column", "label_separator": "label_separator", "label_mode": "labels",
    "split_column": "split_column", "group_column": "group_column", "allow_overlap": "allow_overlap",
    "seed": "seed", "size": "size", "offset_dn": "offset_dn",
}  # fmt: skip
_MODEL_OPTIONS = ("pooling", "bands", "gsd_mode", "device", "protocol")


def run_protocol(evaluate: Any, given: dict[str, Any], **options: Any) -> None:
    """Load, score, print, write: the same for every protocol.

    Args:
        evaluate: Such as `swath.evaluation.protocols.frozen.evaluate_knn`.
        given: The command's parameters.
        options: What `evaluate` takes beside featurizers, split and scales.
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
    cache = feature_cache(given["cache"], given["no_cache"])
    sizes = numbers(given["image_sizes"], "--image-sizes are pixels", "16,32,64")
    asked = open_eval_inputs(given, progress)
    split, candidates, extractors = asked.split, asked.candidates, [*asked.own, *asked.baselines]
    if given["gsds"] is not None:
        sizes = _sides(given["gsds"], split, extractors)
    if given.get("protocol") is not None:
        options |= {"asymmetric": False, "standardize": False, "protocol": given["protocol"]}
    with progress_bar(progress, len(split.train.indices) + len(split.test.indices)) as advance:
        evaluation = evaluate(
            extractors, split, image_sizes=sizes, batch_size=given["batch_size"], progress=advance,
            cache=cache, **options,
        )  # fmt: skip
    if given["average_seeds"]:
        evaluation.seed_group = [candidate.name for candidate in candidates]
    if cache is not None and cache.reused:
        progress.print(
            f"features: {cache.reused:,} of {cache.reused + cache.computed:,} rows were in {cache.folder}"
        )
    for table in score_tables(evaluation):
        console.print(table)
    if given["average_seeds"]:
        console.print(seed_table(evaluation))
    if len(candidates) > 1:
        console.print(comparison_table(evaluation, [extractor.name for extractor in asked.own]))
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
    if given["out"] is not None:
        for path in write_scores(evaluation, given["out"], **asked.about):
            console.print(f"wrote {escape_markup(str(path))}", highlight=False)


@dataclass(frozen=True)
class EvalInputs:
    """Models and data of a command.

    Attributes:
        split: Bank and queries.
        candidates: The models in question.
        baselines: Featurizers that are scored beside them.
        about: Facts for the report.
    """

    split: Any
    candidates: list[Any]
    baselines: list[Any]
    about: dict[str, Any]

    @property
    def own(self) -> list[Any]:
        """Featurizers of the models in question."""
        return [extractor for candidate in self.candidates for extractor in candidate.extractors]


def open_eval_inputs(given: dict[str, Any], console: Any, **fixed: Any) -> EvalInputs:
    """Open the models and the data that a command names.

    Args:
        given: The command's parameters; what it has no option for is left to its default.
        console: Where it says what it does.
        fixed: What the command decides by itself.
    """
    from swath.evaluation.data.opening import open_eval_data

    full = {"baselines": True, **dict.fromkeys(_MODEL_OPTIONS), **given, **fixed}
    with console.status(f"opening {', '.join(full['models'])}"):
        candidates, baselines, about = _candidates(full)
    with console.status(f"looking through {full['data']}"):
        split = open_eval_data(
            full["data"],
            sensor=candidates[0].sensor,
            gsd=_gsd(full["gsd"]),
            gsd_mode=next((c.gsd_mode for c in candidates if c.gsd_mode is not None), None),
            **{theirs: full[ours] for ours, theirs in _DATA_OPTIONS.items() if ours in full},
        )
    split.notes += [note for candidate in candidates for note in candidate.notes]
    return EvalInputs(split, candidates, baselines, about)


def feature_cache(folder: Path | None, none: bool) -> Any:
    """Where features are kept, as --cache and --no-cache say."""
    from swath.errors import SwathError
    from swath.evaluation.features.cache import FeatureCache

    if folder is not None and none:
        raise SwathError("--cache and --no-cache contradict each other: give one of them")
    return None if none else FeatureCache(folder)


def _check(given: dict[str, Any]) -> None:
    """Options that contradict each other, before anything is opened."""
    from swath.errors import SwathError

    if given["gsd_mode"] not in (None, "metres", "relative"):
        raise SwathError(f"--gsd-mode is metres or relative, not {given['gsd_mode']!r}")
    if given["gsds"] is not None and given["image_sizes"] is not None:
        raise SwathError("--scales and --gsds both say what images are reduced to: give one of them")
    if given["average_seeds"] and len(given["models"]) < 2:
        raise SwathError("--seeds needs the models of two seeds or more, such as runs/seed_*/model")
    protocol = given.get("protocol")
    if protocol is not None:
        if protocol != "scale_mae":
            raise SwathError(f"--protocol knows scale_mae, not {protocol!r}")
        for option, usual in (("pooling", None), ("gsd_mode", None), ("k", 20), ("temperature", 0.07)):
            if given[option] != usual:
                name = option.replace("_", "-")
                raise SwathError(f"--protocol scale_mae fixes --{name}: leave one of the two out")


def _candidates(given: dict[str, Any]) -> tuple[list[Any], list[Any], dict[str, Any]]:
    """What is scored, the baselines that are scored beside it, and facts for the report."""
    from swath.errors import SwathError
    from swath.evaluation.data.opening import native_sensor
    from swath.evaluation.features.baselines import all_baselines
    from swath.evaluation.features.opening import open_eval_model

    pooling, mode, data = given["pooling"], given["gsd_mode"], given["data"]
    texts = [_named(text) for text in given["models"]]
    found = [
        open_eval_model(
            text,
            given["sensor"],
            default_sensor=native_sensor(data),
            pooling=pooling,
            gsd_mode=mode,
            bands=[band.strip() for band in given["bands"].split(",")] if given["bands"] else None,
            device=given["device"],
            name=name,
        )
        for name, text in texts
    ]
    _distinct(found, [text for _, text in texts])
    for other in found[1:]:
        if other.sensor.band_names != found[0].sensor.band_names or other.sensor.name != found[0].sensor.name:
            raise SwathError(
                f"{found[0].name} looks at {found[0].sensor.name}, {other.name} at {other.sensor.name}: they "
                "cannot be shown the same images. Score them one by one"
            )
    modes = {c.gsd_mode for c in found if c.gsd_mode is not None}
    if len(modes) > 1:
        raise SwathError(
            "some of these models are told metres, others relative scale: choose with --gsd-mode"
        )
    if given.get("protocol") is not None:
        for candidate in found:
            candidate.extractors = [_as_published(candidate)]
    extra: list[Any] = []
    first = found[0]
    if given["baselines"]:
        extra = [*_untrained(found, pooling, mode), *all_baselines()]
    own = [extractor for candidate in found for extractor in candidate.extractors]
    present = {extractor.name for extractor in own}
    about = {"models": [c.about for c in found], **first.about, "data": str(data)}
    return found, [f for f in extra if f.name not in present], about


def _untrained(found: Sequence[Any], pooling: str | None, mode: Any) -> list[Any]:
    """The encoder of each trained model, freshly initialized; one where several models share it."""
    from swath.evaluation.features.baselines import random_init

    made: dict[str, Any] = {}
    names: list[str] = []
    for candidate in found:
        if candidate.model is None or "model_id" not in candidate.about:
            continue
        key = repr((candidate.model.config.get("encoder"), candidate.model.pooling))
        if key not in made:
            made[key] = random_init(
                candidate.model, pooling=pooling and pooling.partition(",")[0], gsd_mode=mode
            )
            names.append(f"{candidate.name}, untrained")
    if len(made) > 1:
        for extractor, name in zip(made.values(), names, strict=True):
            extractor.name = name
    return list(made.values())


def _as_published(candidate: Any) -> Any:
    from swath.errors import SwathError
    from swath.evaluation.features.model import ModelFeatureExtractor

    if candidate.model is None:
        raise SwathError(f"--protocol scale_mae is for models of Swath; {candidate.name} is none")
    return ModelFeatureExtractor.scale_mae(candidate.model, candidate.name)


def _named(text: str) -> tuple[str | None, str]:
    """(name, model) of NAME=MODEL."""
    name, equals, model = text.partition("=")
    return (name, model) if equals and "/" not in name and not Path(text).exists() else (None, text)


def _distinct(candidates: list[Any], texts: list[str]) -> None:
    """Give models of one name the part of their paths that tells them apart."""
    names = [candidate.name for candidate in candidates]
    for candidate, text, old in zip(candidates, texts, names, strict=True):
        if names.count(old) > 1:
            parts = Path(text).parts
            others = [Path(t).parts for name, t in zip(names, texts, strict=True) if name == old]
            own = [p for i, p in enumerate(parts) if any(i >= len(o) or o[i] != p for o in others)]
            for extractor in candidate.extractors:
                # Several poolings of a model are called "NAME, POOLING".
                _, comma, pooling = extractor.name.partition(", ")
                extractor.name = ("/".join(own) or text) + comma + pooling


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


def _gsd(stated: str | None) -> Any:
    """A number of metres, or a column's name."""
    if stated is None:
        return None
    try:
        return float(stated)
    except ValueError:
        return stated


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

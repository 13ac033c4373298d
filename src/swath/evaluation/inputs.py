"""Models and labeled data of one evaluation, opened so that every model sees the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swath.errors import SwathError
from swath.evaluation.data.opening import native_sensor, open_eval_data
from swath.evaluation.data.splits import TrainTestSplit
from swath.evaluation.features.baselines import all_baselines, random_init
from swath.evaluation.features.model import ModelFeatureExtractor
from swath.evaluation.features.opening import EvalModel, open_eval_model
from swath.evaluation.features.protocol import FeatureExtractor, GsdMode
from swath.models.model import Model
from swath.sensors.sensor import Sensor

ModelLike = Model | str | Path
Models = ModelLike | Sequence[ModelLike]
Data = str | Path | TrainTestSplit


@dataclass(frozen=True, slots=True)
class EvalInputs:
    """Models, baselines and data of one evaluation.

    Attributes:
        split: Train and test split.
        models: The models to score, the one in question first.
        baselines: Feature extractors that are scored beside them.
        about: JSON-safe facts for reports.
    """

    split: TrainTestSplit
    models: list[EvalModel]
    baselines: list[FeatureExtractor]
    about: dict[str, Any]

    @property
    def own(self) -> list[FeatureExtractor]:
        """Feature extractors of the models."""
        return [extractor for model in self.models for extractor in model.extractors]

    @property
    def extractors(self) -> list[FeatureExtractor]:
        """Feature extractors of the models, then of the baselines."""
        return [*self.own, *self.baselines]


def open_eval_inputs(
    models: Models,
    data: Data,
    *,
    sensor: str | Sensor | None = None,
    pooling: str | None = None,
    gsd_mode: GsdMode | None = None,
    bands: Sequence[str] | None = None,
    device: str | None = None,
    baselines: bool = True,
    **options: Any,
) -> EvalInputs:
    """Open models and labeled data.

    Args:
        models: One or several: a `Model`, a model directory, a checkpoint, ``timm:NAME``, ``random:ENCODER``
            or the name of a baseline; see `swath.evaluation.features.opening`. ``NAME=MODEL`` sets the name.
        data: A path, the name of a benchmark (with `root`), or a split that is open already.
        sensor: What the images were taken with. A model with a single sensor does not need it.
        pooling: Instead of the model's own: "mean", "mean_std" or "cls".
        gsd_mode: "metres" or "relative", instead of the model's own.
        bands: Three bands that models of timm get as red, green and blue.
        device: Default: a GPU if there is one.
        baselines: Also score simple baselines, and each model's encoder with random weights.
        options: Further ones of `swath.evaluation.data.opening.open_eval_data`.

    Raises:
        SwathError: A model or the data cannot be opened, or the models do not fit one data set.
    """
    listed = [models] if isinstance(models, (Model, str, Path)) else list(models)
    if not listed:
        raise SwathError("No model is given. Pass a model, or the name of a baseline such as 'rcf'.")
    default = data.train.dataset.sensor if isinstance(data, TrainTestSplit) else native_sensor(data)
    opened = [
        _open_model(
            one,
            sensor,
            default_sensor=default,
            pooling=pooling,
            gsd_mode=gsd_mode,
            bands=bands,
            device=device,
        )
        for one in listed
    ]
    _distinguish(opened, [str(one) if isinstance(one, (str, Path)) else one.name for one in listed])
    _check_compatible(opened)
    extra: list[FeatureExtractor] = []
    if baselines:
        extra = [*_untrained(opened, pooling, gsd_mode), *all_baselines()]
        own = {extractor.name for model in opened for extractor in model.extractors}
        extra = [extractor for extractor in extra if extractor.name not in own]
    about = {"models": [model.about for model in opened], **opened[0].about}
    if isinstance(data, TrainTestSplit):
        if options:
            raise SwathError(f"{', '.join(options)}: not available for a split that is open already.")
        split = data
    else:
        about["data"] = str(data)
        mode = next((model.gsd_mode for model in opened if model.gsd_mode is not None), None)
        split = open_eval_data(data, sensor=opened[0].sensor, gsd_mode=mode, **options)
    split.notes += [note for model in opened for note in model.notes if note not in split.notes]
    return EvalInputs(split, opened, extra, about)


def _open_model(
    model: ModelLike,
    sensor: str | Sensor | None,
    *,
    pooling: str | None,
    gsd_mode: GsdMode | None,
    default_sensor: str | Sensor | None,
    **options: Any,
) -> EvalModel:
    if not isinstance(model, Model):
        text = str(model)
        name, equals, source = text.partition("=")
        if not equals or "/" in name or Path(text).exists():
            name, source = "", text
        return open_eval_model(
            source,
            sensor,
            name=name or None,
            pooling=pooling,
            gsd_mode=gsd_mode,
            default_sensor=default_sensor,
            **options,
        )
    model = model.encoder_model
    known = model.contract.sensors
    default = getattr(default_sensor, "name", default_sensor)
    if sensor is None and len(known) > 1 and default in known:
        sensor = default
    extractor = ModelFeatureExtractor(model, pooling=pooling, gsd_mode=gsd_mode)
    about = {"model": model.name, "model_id": model.id}
    mode = gsd_mode or model.contract.gsd_mode
    return EvalModel([extractor], model.contract.sensor(sensor), mode, model, about)


def _check_compatible(models: Sequence[EvalModel]) -> None:
    """All models must be able to read the same images."""
    first = models[0]
    for other in models[1:]:
        if other.sensor.band_names != first.sensor.band_names or other.sensor.name != first.sensor.name:
            raise SwathError(
                f"{first.name} reads {first.sensor.name} and {other.name} reads {other.sensor.name}, so they "
                "cannot be scored on the same images. Score them one by one."
            )
    if len({model.gsd_mode for model in models if model.gsd_mode is not None}) > 1:
        raise SwathError("Some of these models use metres, others relative GSD. Choose one with gsd_mode.")


def _untrained(
    models: Sequence[EvalModel], pooling: str | None, gsd_mode: GsdMode | None
) -> list[FeatureExtractor]:
    """The encoder of each trained model with random weights; one where several models share it."""
    untrained: dict[str, FeatureExtractor] = {}
    names: list[str] = []
    for one in models:
        if one.model is None or "model_id" not in one.about or one.model.config.get("encoder") is None:
            continue
        key = repr((one.model.config["encoder"], one.model.pooling))
        if key not in untrained:
            first_pooling = pooling and pooling.partition(",")[0]
            untrained[key] = random_init(one.model, pooling=first_pooling, gsd_mode=gsd_mode)
            names.append(f"{one.name}, untrained")
    if len(untrained) > 1:
        for extractor, name in zip(untrained.values(), names, strict=True):
            extractor.name = name
    return list(untrained.values())


def _distinguish(models: Sequence[EvalModel], sources: Sequence[str]) -> None:
    """Models of the same name get the differing parts of their paths as names."""
    names = [model.name for model in models]
    for model, source, name in zip(models, sources, names, strict=True):
        if names.count(name) > 1:
            parts = Path(source).parts
            others = [Path(s).parts for n, s in zip(names, sources, strict=True) if n == name]
            differing = [p for i, p in enumerate(parts) if any(i >= len(o) or o[i] != p for o in others)]
            for extractor in model.extractors:
                # Several poolings of a model are called "NAME, POOLING".
                _, comma, pooling = extractor.name.partition(", ")
                extractor.name = ("/".join(differing) or source) + comma + pooling

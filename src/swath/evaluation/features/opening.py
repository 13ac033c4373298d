"""What can be scored, by the name that a user gives it; the same for every verb.

    runs/first/model            a model directory (trained here, or made by `swath import-weights`)
    scalemae-vitlarge-800.pth   an official checkpoint, imported on the way
    timm:resnet50@weights.pth   a model of timm, see `swath.evaluation.features.timm_model`
    random:vit_tiny_patch16     an encoder of Swath, freshly initialized
    rcf, statistics, histogram, pixels, rcf-plain   baselines that need no training (also as baseline:rcf)

A folder or file of that name comes first, so a model directory may be called as it likes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from swath.encoders import create_model, list_models
from swath.errors import SwathError, suggest
from swath.evaluation.features.baselines import BASELINES, make_baseline
from swath.evaluation.features.extract import pooling_variants
from swath.evaluation.features.model import ModelFeatureExtractor
from swath.evaluation.features.protocol import FeatureExtractor, GsdMode
from swath.evaluation.features.timm_model import PREFIX, TimmFeatureExtractor
from swath.models import Contract, Model, load_encoder
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

__all__ = ["EvalModel", "open_eval_model", "open_feature_extractors"]

_CHECKPOINTS = (".pth", ".pt", ".ckpt", ".bin")
_BASELINE, _RANDOM = "baseline:", "random:"
_DEFAULT_SENSOR = "rgb_aerial"


@dataclass(slots=True)
class EvalModel:
    """Something to score, ready to look at images.

    Attributes:
        feature extractors: One; several where several poolings were requested.
        sensor: What the images have to be opened with.
        gsd_mode: How scale is given to it; None where it does not look at scale.
        model: The model, where it is one of Swath's.
        about: JSON-safe facts for reports.
        notes: What a reader of its scores should know.
    """

    extractors: list[FeatureExtractor]
    sensor: Sensor
    gsd_mode: GsdMode | None = None
    model: Model | None = None
    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the (first) feature extractor."""
        return self.extractors[0].name


def open_feature_extractors(
    text: str, sensor: str | Sensor | None = None, **options: Any
) -> list[FeatureExtractor]:
    """The feature extractors of `open_candidate`, for those who open the images themselves."""
    return open_eval_model(text, sensor, **options).extractors


def open_eval_model(
    text: str,
    sensor: str | Sensor | None = None,
    *,
    pooling: str | None = None,
    gsd_mode: GsdMode | None = None,
    bands: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    name: str | None = None,
    default_sensor: str | Sensor | None = None,
) -> EvalModel:
    """Find what `text` names.

    Args:
        text: See the module.
        sensor: What the images are taken with; a model that knows a single sensor need not be given one.
        pooling: "mean", "mean_std" or "cls" instead of the model's own; several with commas between make
            several feature extractors that share each encoding.
        gsd_mode: How scale is given to a model instead of as its contract says.
        bands: Three bands that a model of timm may see as red, green and blue.
        device: Default: a GPU if there is one.
        name: In tables, instead of its own.
        default_sensor: For what has no sensor of its own, and for a model that knows it among several;
            default rgb_aerial.

    Raises:
        SwathError: Nothing has that name, or an option has no meaning for it; the message says the fix.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = _kind(text)
    default = get_sensor(default_sensor or _DEFAULT_SENSOR)
    if kind in ("baseline", "timm", "random"):
        sensor = get_sensor(sensor or default)
    given = {"pooling": pooling, "gsd_mode": gsd_mode, "bands": bands}
    meant = {"model": ("pooling", "gsd_mode"), "checkpoint": ("pooling", "gsd_mode"), "timm": ("bands",)}
    allowed = meant.get(kind, ("pooling", "gsd_mode") if kind == "random" else ())
    for option, value in given.items():
        if value is not None and option not in allowed:
            raise SwathError(
                f"--{option.replace('_', '-')} is for models of {_FOR[option]}; {text} is {_WHAT[kind]}, so "
                "leave it out"
            )
    if kind == "baseline":
        baseline = make_baseline(text.removeprefix(_BASELINE))
        found = EvalModel([baseline], get_sensor(sensor or default))
    elif kind == "timm":
        extractor = TimmFeatureExtractor(text, sensor or default, bands=bands, device=device)
        found = EvalModel([extractor], get_sensor(sensor or default))
        if extractor.has_random_weights:
            found.notes.append(
                f"{text} has random weights: nothing in it was trained. For trained ones name a file "
                f"({text}@FILE.safetensors), or let timm get its own ({text}@pretrained)"
            )
    else:
        found = _of_model(text, kind, sensor, default, pooling, gsd_mode, device)
    if name is not None:
        for one in found.extractors:
            one.name = name if len(found.extractors) == 1 else f"{name}, {one.settings['pooling']}"
    found.about = {"model": text, **found.about}
    return found


_FOR = {"pooling": "Swath", "gsd_mode": "Swath", "bands": "timm"}
_WHAT = {
    "model": "a model directory",
    "checkpoint": "an official checkpoint",
    "timm": "a model of timm",
    "random": "an untrained encoder",
    "baseline": "a baseline",
}


def _kind(text: str) -> str:
    path = Path(text)
    if path.is_dir():
        return "model"
    if path.is_file() and path.suffix in _CHECKPOINTS:
        return "checkpoint"
    for prefix, kind in ((PREFIX, "timm"), (_RANDOM, "random"), (_BASELINE, "baseline")):
        if text.startswith(prefix):
            return kind
    if text in BASELINES:
        return "baseline"
    if path.exists():
        raise SwathError(
            f"{text}: is a file, but not a checkpoint ({', '.join(_CHECKPOINTS)}); a model is a directory"
        )
    if "/" in text or path.suffix:
        raise SwathError(f"{text}: there is no such model directory or checkpoint")
    raise SwathError(
        f"{text}: there is no such model directory, and no baseline is called so."
        f"{suggest(text, list(BASELINES))} Models of timm are timm:NAME, untrained encoders random:NAME."
    )


def _of_model(
    text: str,
    kind: str,
    sensor: str | Sensor | None,
    default: Sensor,
    pooling: str | None,
    gsd_mode: GsdMode | None,
    device: str | torch.device,
) -> EvalModel:
    """A model of Swath's, however it is had."""
    if kind == "random":
        encoder = text.removeprefix(_RANDOM)
        model = _untrained(encoder, get_sensor(sensor or default), gsd_mode).to(device)
    elif kind == "checkpoint":
        from swath.models.importers.import_weights import import_weights

        with tempfile.TemporaryDirectory(prefix="swath-import-") as folder:
            model = load_encoder(import_weights(text, Path(folder) / Path(text).stem), device=str(device))
    else:
        model = load_encoder(text, device=str(device))
    poolings = [part.strip() for part in pooling.split(",")] if pooling else [None]
    extractors: list[FeatureExtractor]
    if len(poolings) > 1:
        if gsd_mode is not None and gsd_mode != model.contract.gsd_mode:
            raise SwathError("several poolings are read in the model's own GSD mode; leave --gsd-mode out")
        extractors = list(pooling_variants(model, [p for p in poolings if p is not None]))
    else:
        extractors = [ModelFeatureExtractor(model, pooling=poolings[0], gsd_mode=gsd_mode)]
    about = {"model_id": model.id}
    if kind == "random":
        for one in extractors:
            one.settings |= {"model": f"random initialization of {encoder}", "seed": 0}
        about = {}
    if sensor is None and len(model.contract.sensors) > 1 and default.name in model.contract.sensors:
        sensor = default.name
    chosen = model.contract.sensor(sensor)
    return EvalModel(extractors, chosen, gsd_mode or model.contract.gsd_mode, model, about)


def _untrained(encoder: str, sensor: Sensor, gsd_mode: GsdMode | None, seed: int = 0) -> Model:
    if encoder not in list_models():
        raise SwathError(f"there is no encoder {encoder!r}.{suggest(encoder, list_models())}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = create_model(encoder, bands=len(sensor.bands))
    config = {"encoder": {"name": encoder, "options": {"bands": len(sensor.bands)}}}
    contract = Contract.of(sensor, gsd_mode=gsd_mode or "relative")  # it has never seen a metre
    return Model(fresh, contract, name=f"{encoder} (random weights)", config=config)

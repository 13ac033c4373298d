"""Any model of timm as a feature extractor: what the rest of the world would use, on the same images.

    timm:resnet50                          freshly initialized: random weights, and called so
    timm:resnet50@weights/resnet50.safetensors
    timm:vit_base_patch16_224@pretrained   timm's own weights, from its cache or downloaded

The *data configuration* that timm keeps with each model is its contract: images are resampled to the
model's input size by the model's interpolation, whole (no center crop: a scene's border belongs to the
scene), brought to 0..1 and standardized by the model's mean and standard deviation. An image that an
evaluation has reduced to 32 pixels before is so enlarged again: it holds what 32 pixels hold, and the model
sees the size that it knows.

timm's models look at three display bands. Sensors with other bands are refused until three are named.

Legend: B images, C bands of the sensor, D features, S the model's input side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swath.datasets.chip import Batch
from swath.errors import CheckpointError, ContractError, SwathError, suggest
from swath.evaluation.data.subset import EvalSubset
from swath.files import sha256
from swath.models.contract import Contract
from swath.models.importers.inert_pickle import read_checkpoint
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor

RED_GREEN_BLUE = ("red", "green", "blue")
PREFIX = "timm:"
PRETRAINED = "pretrained"

# What of a unit is shown as 0..1. Reflectance beyond 0.3 (clouds, snow, bright roofs) saturates, as in the
# usual stretch of Sentinel-2 quick looks (digital numbers 0 to 3000).
_DISPLAY = {"uint8": 255.0, "reflectance": 0.3}
_NESTED = ("state_dict", "model", "model_ema")  # where checkpoints of training scripts keep the weights


@dataclass(frozen=True, slots=True)
class TimmName:
    """``timm:ARCHITECTURE[@WEIGHTS]`` taken apart: `weights` is a file, "pretrained", or None for random."""

    architecture: str
    weights: str | None

    @classmethod
    def parse(cls, text: str) -> TimmName:
        """Of the text that a user gives.

        Raises:
            SwathError: No model of timm has that name; suggests one.
        """
        import timm

        architecture, at, weights = text.removeprefix(PREFIX).partition("@")
        if at and not weights:
            raise SwathError(f"{text}: a file of weights, or `pretrained`, is wanted after the @")
        base, _, tag = architecture.partition(".")
        if not timm.is_model(base):
            raise SwathError(f"timm has no model {base!r}.{suggest(base, timm.list_models())[:300]}")
        tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{base}.*")]
        if tag and tag not in tags:
            raise SwathError(f"timm's {base} has no weights {tag!r}.{suggest(tag, tags)}")
        return cls(architecture, weights or None)


class TimmFeatureExtractor:
    """A model of timm, without its classifier, as a feature extractor.

    Args:
        text: ``timm:ARCHITECTURE[@WEIGHTS]``, see the module.
        sensor: What the images are taken with.
        bands: Names (or common names) of the three bands that the model sees as red, green and blue; needed
            where the sensor's bands are not just these.
        device: Where the model runs.
        seed: Of random weights.

    Raises:
        SwathError: Unknown model; weights that is not available.
        CheckpointError: Weights of another architecture.
        ContractError: Bands that do not fit, with the fix.
    """

    min_image_size = 1  # whatever comes is resampled to the model's own size
    learns = False

    def __init__(
        self,
        text: str,
        sensor: str | Sensor,
        *,
        bands: Sequence[str] | None = None,
        device: str | torch.device = "cpu",
        seed: int = 0,
    ) -> None:
        import timm

        requested = TimmName.parse(text)
        self._indices, view = _choose_bands(get_sensor(sensor), bands, text)
        self._module, weights = _build(requested, seed)
        self._device = torch.device(device)
        self._module.to(self._device).eval().requires_grad_(False)
        config: dict[str, Any] = cast(Any, timm.data).resolve_model_data_config(self._module)
        self.input_size: tuple[int, int] = tuple(config["input_size"][1:])
        self.interpolation: str = config["interpolation"]
        if self.interpolation not in ("bicubic", "bilinear", "nearest"):
            self.interpolation = "bicubic"  # timm's "random" and "lanczos" have no like in torch
        full = self._full = _DISPLAY[view.unit]
        mean, std = ([full * value for value in config[key]] for key in ("mean", "std"))
        self.contract = Contract.of(
            view.with_statistics(mean, std, f"timm's data configuration of {requested.architecture}")
        )
        shown = (
            Path(requested.weights).stem if requested.weights and weights != PRETRAINED else requested.weights
        )
        self.name = f"{requested.architecture} ({shown or 'random weights'})"
        self.settings: dict[str, Any] = {
            "model": f"{PREFIX}{requested.architecture}",
            "weights": weights if requested.weights else f"random, seed {seed}",
            "timm": timm.__version__,
            "bands": list(view.band_names),
            "input_size": list(self.input_size),
            "interpolation": self.interpolation,
            "mean": list(config["mean"]),
            "std": list(config["std"]),
            "shown_as_1": full,
        }
        self._checked = False

    @property
    def identity(self) -> str:
        """Hash of weights and structure; what is done to images before is in the settings."""
        from swath.evaluation.features.hashing import module_hash

        return module_hash(self._module)

    @property
    def has_random_weights(self) -> bool:
        """Whether nothing in it was ever trained."""
        return str(self.settings["weights"]).startswith("random")

    def fit(self, part: EvalSubset, image_size: int) -> None:
        """A model is trained already, or shall stay untrained."""

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Tensor:
        """[B, D] features before the classifier.

        Raises:
            ContractError: Values that do not fit the sensor's unit (looked at in the first batch).
        """
        image = batch["image"][:, self._indices]
        seen: Batch = {**batch, "image": image}
        if not self._checked:
            self.contract.check(image, batch["sensor"], valid=batch.get("valid"))
            self._checked = True
        # Clipped as a display would; nodata becomes the mean, as for every other model.
        seen["image"] = image.float().clamp(0.0, self._full).to(self._device)
        seen["gsd"] = batch["gsd"].to(self._device)
        if "valid" in batch:
            seen["valid"] = batch["valid"].to(self._device)
        normal = self.contract.normalize(seen)["image"]
        return cast(Tensor, self._module(self._resize(normal)))

    def _resize(self, image: Tensor) -> Tensor:
        if tuple(image.shape[2:]) == self.input_size:
            return image
        if self.interpolation == "nearest":
            return F.interpolate(image, size=self.input_size, mode="nearest")
        return F.interpolate(
            image, size=self.input_size, mode=self.interpolation, align_corners=False, antialias=True
        )


def _choose_bands(sensor: Sensor, bands: Sequence[str] | None, text: str) -> tuple[list[int], Sensor]:
    """Positions of the bands that the model sees as red, green and blue, and the sensor of just these."""
    if bands is not None and len(bands) != 3:
        raise ContractError(f"{text} sees three bands, but {len(bands)} are named: {', '.join(bands)}")
    common = {band.common_name for band in sensor.bands}
    if bands is None and (len(sensor.bands) != 3 or not common.issuperset(RED_GREEN_BLUE)):
        has = f"sensor {sensor.name!r} has {len(sensor.bands)} bands ({', '.join(sensor.band_names)})"
        if common.issuperset(RED_GREEN_BLUE):
            fix = "Let it see three of them: --bands red,green,blue, or others such as nir,red,green"
        else:
            three = ",".join(sensor.band_names[:3])
            fix = f"Name three that it may see as red, green and blue: --bands {three}"
        raise ContractError(f"{text} sees three bands, red, green and blue, but {has}. {fix}")
    view = sensor.select(list(bands or RED_GREEN_BLUE))
    if view.unit not in _DISPLAY:
        raise ContractError(
            f"{text} sees pictures, but sensor {sensor.name!r} measures {view.unit}; there is no agreed way "
            "to show it as one. Use a model that was trained on this sensor, or a baseline"
        )
    return [sensor.band_names.index(name) for name in view.band_names], view


def _build(requested: TimmName, seed: int) -> tuple[nn.Module, str]:
    """The model without classifier, and what its weights are: "pretrained", a hash, or "random"."""
    import timm

    if requested.weights == PRETRAINED:
        try:
            module: Any = timm.create_model(requested.architecture, pretrained=True, num_classes=0)
        except Exception as error:  # any of several libraries' errors: no cache, no network, no weights
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SwathError(
                f"timm's weights of {requested.architecture} are not here and could not be downloaded "
                f"({reason}). Name a file instead: {PREFIX}{requested.architecture}@FILE.safetensors"
            ) from None
        return module, f"{PRETRAINED} ({module.pretrained_cfg.get('tag') or 'untagged'})"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = timm.create_model(requested.architecture, pretrained=False, num_classes=0)
    if requested.weights is None:
        return module, "random"
    path = Path(requested.weights)
    _load(module, path, requested.architecture)
    return module, f"sha256 {sha256(path)[:12]}"


def _load(module: Any, path: Path, architecture: str) -> None:
    """Fill the model from a file; its classifier is not wanted, everything else must be there."""
    state = _read(path)
    classifier = module.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    own = module.state_dict()
    state = {
        name: value
        for name, value in state.items()
        if name in own or not any(name.startswith(f"{head}.") for head in heads)
    }
    misfit = [name for name in own if name in state and own[name].shape != state[name].shape]
    missing, extra = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    # Counters of batch norm are of no use without training, and old checkpoints lack them.
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or extra or misfit:
        what = [
            f"{title} {len(names)} tensors, such as {names[0]}"
            for title, names in (
                ("it lacks", missing),
                ("it has in excess", extra),
                ("of other shape:", misfit),
            )
            if names
        ]
        raise CheckpointError(f"{path}: is no checkpoint of timm's {architecture}: {'; '.join(what)}")
    module.load_state_dict(state, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    """Tensors by name from safetensors or from torch's format, of which nothing is executed."""
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file of weights")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path}: is not a sound safetensors file ({error})") from None
    data = read_checkpoint(path)
    for key in _NESTED:
        if isinstance(data, Mapping) and isinstance(data.get(key), Mapping):
            data = data[key]
            break
    tensors = {str(k).removeprefix("module."): v for k, v in dict(data).items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors by name")
    return tensors

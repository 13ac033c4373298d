"""Unified: a masked autoencoder at known scale, across sensors, whose looks at a place must agree.

Our own composition of the three methods' ideas. Each is a switch, so that what it brings can be measured:

- **Scale** (Scale-MAE): positions are ground distances, and hidden patches are rebuilt in two frequency
  bands. `ViT(scale_aware=False)` turns the first off, `reconstruction_weight` 0 the second.
- **Sensors** (CSMAE): with paired batches the looks are the sensors', and each also rebuilds the others'
  pixels from its own tokens. `cross_weight`.
- **Agreement** (CMID): a place is looked at twice, by two crops of different scale or by two sensors. The
  embeddings of both looks must find each other among those of other places (`global_weight`), and patches
  that show the same ground must be the same prototypes (`local_weight`). The targets come from a *teacher*,
  a slow average of the student (`teacher`), or from the other look itself.

What makes it cheap, and differs from CMID: hidden patches are left out of the encoder, as in a masked
autoencoder, rather than marked in it; so the student works on a quarter of its patches in every loss.

Legend: B places, N patches of a look, K visible ones, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from swath.augmentations.geometric import crop_boxes, paired_random_crop, random_resized_crop
from swath.augmentations.photometric import PhotometricBySensor
from swath.augmentations.photometric_options import Photometric
from swath.datasets.chip import Batch
from swath.datasets.collation import split_by_sensor
from swath.encoders.pooling import mean_std_pool
from swath.errors import ContractError, RecipeError
from swath.keyed_random import uniform
from swath.objectives.losses.contrastive import KeyQueue, Projector, info_nce, nt_xent
from swath.objectives.losses.prototypes import PrototypeHead, PrototypeLoss
from swath.objectives.modules.cell_matching import cell_locations, match_cells, take_cells
from swath.objectives.modules.ema import cosine_momentum, ema_copy, ema_update
from swath.objectives.modules.masking import PatchMasking, random_masking
from swath.objectives.protocol import Losses, register_objective
from swath.objectives.scale_mae import ScaleMAE, ScaleMAEConfig
from swath.sensors.sensor import Sensor

Looks = dict[str, dict[str, Any]]


class UnifiedConfig(ScaleMAEConfig):
    """Options of the unified objective: those of Scale-MAE, and of what is added."""

    reconstruction_weight: float = Field(1.0, ge=0, description="Weight of each look's own reconstruction.")
    cross_weight: float = Field(
        1.0, ge=0, description="Weight of each sensor's reconstruction from another; with pairs of sensors."
    )
    global_weight: float = Field(0.1, ge=0, description="Weight of the agreement of embeddings.")
    local_weight: float = Field(0.0, ge=0, description="Weight of the agreement of patches on prototypes.")

    photometric: Photometric = Field(
        "auto",
        description="Changes of each look: auto, what its sensor's physics allows; a mapping of strengths "
        "(`swath.augmentations.photometric_options.PhotometricStrengths`); none.",
    )
    embedding: Literal["mean", "mean_std"] = Field(
        "mean_std", description="What agrees: the mean of the visible patches, or it and their spread."
    )
    teacher: bool = Field(True, description="The other look is seen by a slow average of the student.")
    teacher_mask_ratio: float = Field(
        0.5, ge=0, lt=1, description="Share of patches hidden from the teacher."
    )
    momentum: float = Field(0.99, ge=0, lt=1, description="Of the teacher at the start; 1 at the end.")

    hidden_dim: int = Field(512, gt=0, description="Hidden width of projector and prototype head.")
    out_dim: int = Field(128, gt=0, description="Length of the projected embedding.")
    temperature: float = Field(0.2, gt=0, description="Of the contrast.")
    queue_size: int = Field(4096, gt=0, description="Keys that contrast is against, with a teacher.")

    prototypes: int = Field(512, gt=1, description="Number of prototypes.")
    bottleneck_dim: int = Field(64, gt=0, description="Length of a prototype.")
    matches: int = Field(8, gt=0, description="Visible patches of a look that are matched.")
    student_temperature: float = Field(0.1, gt=0, description="Of the student's prototypes.")
    teacher_temperature: float = Field(0.05, gt=0, description="Of the teacher's.")

    @model_validator(mode="after")
    def _check_weights(self) -> UnifiedConfig:
        if not self.reconstruction_weight and self.cross_weight and "cross_weight" in self.model_fields_set:
            raise ValueError("cross_weight needs reconstruction_weight; set it, or cross_weight 0")
        if not (self.reconstruction_weight or self.global_weight or self.local_weight):
            raise ValueError(
                "reconstruction_weight, global_weight and local_weight are all 0: nothing is learned"
            )
        if self.local_weight and not self.teacher:
            raise ValueError(
                "local_weight needs a teacher to say which prototype a patch is; set teacher true"
            )
        return self


@register_objective("unified", UnifiedConfig)
class Unified(ScaleMAE):
    """Reconstruction at known scale, across sensors, and agreement of two looks at a place.

    Args:
        encoder: A ViT of this library, for one sensor or several.
        config: Options.

    Raises:
        RecipeError: Encoder and options do not fit together.
    """

    config: UnifiedConfig

    def __init__(self, encoder: nn.Module, config: UnifiedConfig) -> None:
        super().__init__(encoder, config)
        self.compares_samples = bool(config.global_weight)
        self._agrees = bool(config.global_weight or config.local_weight)
        if not config.reconstruction_weight:  # nothing is rebuilt, so nothing is there to do it
            del self.decoder
            if self.texture is not None:
                del self.texture, self.texture_head
                self.texture = None
        self.changes = PhotometricBySensor(config.photometric, "objective.options.photometric")
        if not self._agrees:
            return
        width = self.encoder.embed_dim
        visible = int((config.source_size // self._patch) ** 2 * (1 - config.mask_ratio))
        if config.local_weight and config.matches > visible:
            raise RecipeError(
                f"objective.matches {config.matches} is more than the {visible} visible patches of a look"
            )
        if config.teacher:
            self.teacher = nn.ModuleDict({"encoder": ema_copy(self.encoder)})
        if config.global_weight:
            times = 2 if config.embedding == "mean_std" else 1
            self.projector = Projector(times * width, config.hidden_dim, config.out_dim)
            if config.teacher:
                self.teacher["projector"] = ema_copy(self.projector)
                self.queue = KeyQueue(config.queue_size, config.out_dim)
        if config.local_weight:
            self.prototypes = PrototypeHead(
                width, config.hidden_dim, config.bottleneck_dim, config.prototypes
            )
            self.teacher["prototypes"] = ema_copy(self.prototypes)
            self.agreement = PrototypeLoss(config.prototypes, config.student_temperature)

    def know_sensors(self, sensors: Sequence[Sensor]) -> None:
        """What the images were taken with: it says which photometric changes a look may have."""
        self.changes.know(sensors)

    # ---- what is shown

    def views(self, batch: Batch) -> dict[str, Any]:
        """Normalized batch -> looks at each place: two crops of one sensor, or one crop of every sensor.

        Returns:
            `looks`: name -> a view as of Scale-MAE, with `cells` [B, N, 2], where its patches lie in metres,
            and `teacher_noise` [B, N]; `gsd`: name -> [B]; `index` [B], whose the looks are.
        """
        sensors = split_by_sensor(batch)
        if isinstance(self.encoder.bands, dict) and set(self.encoder.bands) != set(sensors):
            raise ContractError(
                f"the encoder is for {', '.join(self.encoder.bands)}, but the data are of "
                f"{', '.join(sensors)}; name the same sensors in the recipe and in the data"
            )
        looks = self._of_sensors(sensors) if len(sensors) > 1 else self._of_one(next(iter(sensors.values())))
        for name, look in looks.items():
            count = look["noise"].shape[1]
            look["teacher_noise"] = uniform(batch["key"], f"unified/{name}/teacher", count).to(look["noise"])
        gsd = {name: look["gsd"] for name, look in looks.items()}
        return {"looks": looks, "gsd": gsd, "index": batch.get("index")}

    def _of_one(self, source: Batch) -> Looks:
        """Two independent crops; a single one where nothing has to agree."""
        looks: Looks = {}
        height, width = source["image"].shape[-2:]
        for name in ("first", "second") if self._agrees else ("first",):
            stream = f"unified/{name}/crop"
            crop = random_resized_crop(
                source, 2 * self.config.source_size, scale=self.config.crop_scale, stream=stream
            )
            boxes = crop_boxes(source["key"], height, width, scale=self.config.crop_scale, stream=stream)
            looks[name] = self._look(crop, source, boxes, name, f"unified/{name}/orientation")
        return looks

    def _of_sensors(self, sensors: Mapping[str, Batch]) -> Looks:
        """The same crop of what each sensor sees, in the same orientation."""
        cuts = paired_random_crop(
            sensors, size=2 * self.config.source_size, scale=self.config.crop_scale, stream="unified/crop"
        )
        looks: Looks = {}
        for name, crop in cuts.items():
            count = len(crop["image"])
            looks[name] = self._look(crop, crop, [(0, 0, 1, 1)] * count, name, "unified/orientation")
        return looks

    def _look(
        self, crop: Batch, source: Batch, boxes: list[tuple[int, int, int, int]], name: str, stream: str
    ) -> dict[str, Any]:
        if self._agrees:
            crop = self.changes(crop, f"unified/{name}/photometric")
        look = self.view(self.oriented(crop, stream), f"unified/{name}/mask")
        side = self.config.source_size // self._patch
        places = torch.tensor(boxes, dtype=torch.float32)
        places = places * source["gsd"].cpu().float()[:, None]
        cells = cell_locations(places, torch.zeros(len(places), dtype=torch.bool), (side, side))
        # Turned as the image was: a map of places is an image of two bands.
        turned = self.oriented(Batch(image=cells.permute(0, 3, 1, 2), key=crop["key"]), stream)
        look["cells"] = turned["image"].flatten(2).transpose(1, 2).to(crop["image"].device)
        return look

    # ---- what is asked

    def forward(self, views: Mapping[str, Any]) -> Losses:
        """Losses by name; `total` is their weighted sum."""
        config = self.config
        groups = _by_sensor(views["looks"])
        maskings = {k: random_masking(group["noise"], config.mask_ratio) for k, group in groups.items()}
        latents = _encode(self.encoder, groups, maskings)
        total: Any = 0.0
        losses: Losses = {}
        if config.reconstruction_weight:
            value, losses = self._reconstruction(groups, maskings, latents)
            total = total + value
        if self._agrees:
            student = _by_look(groups, maskings, latents)
            teacher = self._taught(groups) if config.teacher else student
            if config.global_weight:
                value = self._global(student, teacher, views.get("index"))
                total = total + config.global_weight * value
                losses["global"] = value.detach()
            if config.local_weight:
                value, apart = self._local(student, teacher)
                total = total + config.local_weight * value
                losses |= {"local": value.detach(), "no_overlap": apart}
        return {"total": total, **losses}

    def _reconstruction(
        self, groups: Looks, maskings: Mapping[str, PatchMasking], latents: Mapping[str, Tensor]
    ) -> tuple[Tensor, Losses]:
        """Each sensor's looks rebuilt from themselves and, where there are several, from the others."""
        total: Any = 0.0
        losses: Losses = {}
        for source, group in groups.items():
            tokens = self.decode(group, maskings[source], latents[source])
            for target, other in groups.items():
                own = source == target
                weight = self.config.reconstruction_weight if own else self.config.cross_weight
                if not weight:
                    continue
                parts = self.compare(tokens, maskings[source], other)
                total = total + weight * parts.pop("total") / len(groups)
                name = "" if len(groups) == 1 else f"{target}_from_{source}/"
                losses |= {f"{name}{part}": value for part, value in parts.items()}
        return total, losses

    @torch.no_grad()
    def _taught(self, groups: Looks) -> dict[str, EncodedView]:
        """What the teacher sees of each look: other patches than the student, and more of them."""
        ratio = self.config.teacher_mask_ratio
        maskings = {k: random_masking(group["teacher_noise"], ratio) for k, group in groups.items()}
        return _by_look(groups, maskings, _encode(self.teacher["encoder"], groups, maskings))

    def _global(
        self, student: Mapping[str, EncodedView], teacher: Mapping[str, EncodedView], owners: Tensor | None
    ) -> Tensor:
        """Contrast of the embeddings of every two looks: against a queue of keys, or in the batch."""
        temperature = self.config.temperature
        query = {name: self.projector(self._embedding(seen.tokens)) for name, seen in student.items()}
        if not self.config.teacher:
            pairs = combinations(query.values(), 2)
            return torch.stack([nt_xent(one, other, temperature) for one, other in pairs]).mean()
        with torch.no_grad():
            projector = self.teacher["projector"]
            key = {name: projector(self._embedding(seen.tokens)) for name, seen in teacher.items()}
        self.queue.hold([(one, owners) for one in key.values()])
        keys, alike = self.queue.keys, self.queue.held_by(owners)
        losses = [info_nce(query[a], key[b], keys, temperature, alike) for a, b in permutations(query, 2)]
        return torch.stack(losses).mean()

    def _embedding(self, patches: Tensor) -> Tensor:
        """Visible patches [B, K, D] -> [B, D], or [B, 2 D] with their spread."""
        return patches.mean(dim=1) if self.config.embedding == "mean" else mean_std_pool(patches, floor=1e-6)

    def _local(
        self, student: Mapping[str, EncodedView], teacher: Mapping[str, EncodedView]
    ) -> tuple[Tensor, Tensor]:
        """Prototypes of visible patches against those of the teacher's that lie nearest on the ground.

        Returns:
            The loss, and the share of patches without a partner that shows the same ground, which have none.
        """
        values, missed = [], []
        for name, other in permutations(student, 2):
            here, there = student[name], teacher[other]
            found = match_cells(here.positions[:, None], there.positions[:, None], self.config.matches)
            own = self.prototypes(take_cells(here.tokens.transpose(1, 2), found.first))
            with torch.no_grad():
                head = self.teacher["prototypes"]
                wanted = head(take_cells(there.tokens.transpose(1, 2), found.second))
            # Farther apart than a patch is wide they show different ground.
            near = (found.distance < here.step[:, None]).float()
            values.append(self.agreement(own, wanted, self.config.teacher_temperature, near))
            missed.append(1 - near.mean())
        return torch.stack(values).mean(), torch.stack(missed).mean()

    # ---- for the engine and for people

    @torch.no_grad()
    def images(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        """Of each look what Scale-MAE shows; names begin with the look's, "first: input"."""
        shown: dict[str, Tensor] = {}
        for name, look in views["looks"].items():
            if not self.config.reconstruction_weight:
                shown[f"{name}: input"] = look["image"]
                continue
            shown |= {f"{name}: {what}": image for what, image in super().images(look).items()}
        return shown

    def after_step(self, step: int, total_steps: int) -> None:
        """The teacher follows, and its keys join the queue."""
        if not (self._agrees and self.config.teacher):
            return
        momentum = cosine_momentum(step - 1, total_steps, self.config.momentum)
        ema_update(self.teacher["encoder"], self.encoder, momentum)
        for name in ("projector", "prototypes"):
            if name in self.teacher:
                ema_update(self.teacher[name], getattr(self, name), momentum)
        if self.config.global_weight:
            self.queue.push_held()


@dataclass(frozen=True, slots=True)
class EncodedView:
    """What a network saw of a look.

    Attributes:
        tokens: [B, K, D] of the visible patches.
        positions: [B, K, 2] where on the ground they lie, in metres.
        step: [B] how far apart neighboring patches are, in metres.
    """

    tokens: Tensor
    positions: Tensor
    step: Tensor


def _by_sensor(looks: Looks) -> Looks:
    """Looks of one sensor stacked to one, to go through the encoder together; with their `names`."""
    names: dict[str, list[str]] = {}
    for name, look in looks.items():
        names.setdefault(look["sensor"] or "", []).append(name)
    return {sensor: {**_stacked([looks[n] for n in ns]), "names": ns} for sensor, ns in names.items()}


def _stacked(looks: list[dict[str, Any]]) -> dict[str, Any]:
    def stack(values: list[Any]) -> Any:
        return torch.cat(values) if len(values) > 1 and isinstance(values[0], Tensor) else values[0]

    return {key: stack([look[key] for look in looks]) for key in looks[0]}


def _encode(encoder: Any, groups: Looks, maskings: Mapping[str, PatchMasking]) -> dict[str, Tensor]:
    """Tokens [B, 1 + K, D] of each group's visible patches, class token first."""
    return {
        k: encoder.encode(group["image"], group["gsd"], group["sensor"], keep=maskings[k].keep)
        for k, group in groups.items()
    }


def _by_look(
    groups: Looks, maskings: Mapping[str, PatchMasking], latents: Mapping[str, Tensor]
) -> dict[str, EncodedView]:
    """The inverse of `_by_sensor`: what was seen of each look."""
    seen: dict[str, EncodedView] = {}
    for k, group in groups.items():
        cells, keep = group["cells"], maskings[k].keep
        places = cells.gather(1, keep[..., None].expand(-1, -1, 2))
        side = round(cells.shape[1] ** 0.5)
        step = (cells[:, -1] - cells[:, 0]).abs().amax(dim=1) / max(1, side - 1)
        parts = (x.chunk(len(group["names"])) for x in (latents[k][:, 1:], places, step))
        seen |= {name: EncodedView(*part) for name, *part in zip(group["names"], *parts, strict=True)}
    return seen

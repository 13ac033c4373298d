"""CMID: contrast and masked reconstruction in one self-distillation (Muhtar et al., arXiv 2304.09670).

Two crops of an image are two views; the second is also changed photometrically. A student looks at both with
most blocks hidden, a teacher, which follows the student slowly, at both whole. Three losses:

1. *Reconstruction*: the student's last map, one linear layer and a shuffle give the view's pixels; hidden
   ones are compared in space, the whole in frequency (`swath.objectives.frequency`).
2. *Global*: the student's embedding of one view is to find the teacher's of the other among a queue of
   earlier ones (`swath.objectives.contrast`).
3. *Local*: cells of the two views that show the same ground are to be the same prototypes
   (`swath.objectives.matching`, `swath.objectives.prototypes`).

Works with every encoder that can mark hidden cells (`swath.encoders.protocol.MaskableEncoder`): CNNs, Swin
and ViT. With a paired batch the two views are the images of two sensors.

Legend: B samples, C bands, H x W pixels of a view, h x w cells of the last map, D its channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from swath.encoders.linear import Linear, linear
from swath.encoders.protocol import Features, MaskableEncoder
from swath.errors import ContractError, RecipeError
from swath.imagery.augment import crop_boxes, photometric_jitter, random_orientation, random_resized_crop
from swath.imagery.chip import Batch
from swath.imagery.samples import by_sensor
from swath.keyed_random import uniform
from swath.objectives.contrast import KeyQueue, info_nce
from swath.objectives.frequency import focal_reconstruction
from swath.objectives.matching import cell_locations, match_cells, take_cells
from swath.objectives.momentum import follow, momentum_at, teacher_of
from swath.objectives.protocol import Losses, ObjectiveConfig, register_objective
from swath.objectives.prototypes import PrototypeHead, PrototypeLoss

VIEWS = ("first", "second")
_ONE_SENSOR = "pixels"  # key of the output layer where the encoder does not tell sensors apart


class CMIDConfig(ObjectiveConfig):
    """Options of CMID; the defaults are the paper's with a Swin-B or a ResNet-50."""

    view_size: int = Field(224, gt=0, description="Side of a view in pixels.")
    crop_scale: tuple[float, float] = Field((0.3, 1.0), description="Range of a crop's share of the image.")
    crop_ratio: tuple[float, float] = Field((0.75, 4 / 3), description="Range of its width / height.")
    flips: Literal["none", "across", "both"] = Field(
        "across", description="Random flips: left to right as in the paper, or along both axes (ours)."
    )
    jitter: float = Field(
        0.4, ge=0, lt=1, description="Contrast and brightness of the second view, up to this."
    )
    mask_block: int = Field(32, gt=0, description="Side of a block that is hidden or not, in pixels.")
    mask_ratio: float = Field(0.6, gt=0, lt=1, description="Share of blocks hidden, rounded up.")
    mask_second: bool = Field(True, description="Hide pixels of the second view too, not only mark them.")

    reconstruction_weight: float = Field(1.0, ge=0, description="Weight of the reconstruction.")
    frequency_weight: float = Field(1.0, ge=0, description="Weight of its part in frequency.")
    global_weight: float = Field(1.0, ge=0, description="Weight of the contrast between views.")
    local_weight: float = Field(1.0, ge=0, description="Weight of the prototypes of matched cells.")

    hidden_dim: int = Field(2048, gt=0, description="Hidden width of projector and prototype head.")
    out_dim: int = Field(256, gt=0, description="Length of the projected embedding.")
    temperature: float = Field(0.2, gt=0, description="Of the contrast.")
    queue_size: int = Field(65536, gt=0, description="Keys that contrast is against.")

    prototypes: int = Field(2048, gt=1, description="Number of prototypes.")
    bottleneck_dim: int = Field(256, gt=0, description="Length of a prototype.")
    local_batch_norm: bool | None = Field(
        None, description="BatchNorm in the prototype head; none: with CNNs, as in the paper."
    )
    matches: int = Field(
        20, gt=0, description="Cells of a view that are matched, those nearest to a partner."
    )
    matching: Literal["pixel", "released"] = Field(
        "pixel",
        description="True places of the crops; or as the released code, which adds offsets as fractions of "
        "the free room and so ignores where the crops lie.",
    )
    student_temperature: float = Field(0.1, gt=0, description="Of the student's prototypes.")
    teacher_temperature: tuple[float, float] = Field(
        (0.04, 0.07), description="Of the teacher's: start, end."
    )
    teacher_warmup: float = Field(0.25, ge=0, le=1, description="Share of the budget from start to end.")
    centre_momentum: float = Field(0.9, ge=0, lt=1, description="Of the prototypes' centre.")
    momentum: float = Field(0.996, ge=0, lt=1, description="Of the teacher at the start; 1 at the end.")
    views_together: bool | None = Field(
        None,
        description="Both views through the encoder as one batch: exact without BatchNorm (and so done "
        "there), quicker but with mixed batch statistics with it. None: where it is exact.",
    )

    @model_validator(mode="after")
    def _check(self) -> CMIDConfig:
        if self.view_size % self.mask_block:
            raise ValueError(f"view_size {self.view_size} must be a multiple of mask_block {self.mask_block}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale must be 0 < low <= high <= 1, not {list(self.crop_scale)}")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            raise ValueError(f"crop_ratio must be 0 < low <= high, not {list(self.crop_ratio)}")
        if min(self.teacher_temperature) <= 0:
            raise ValueError(f"teacher_temperature must be positive, not {list(self.teacher_temperature)}")
        if not (self.reconstruction_weight or self.global_weight or self.local_weight):
            raise ValueError(
                "reconstruction_weight, global_weight and local_weight are all 0: nothing is learned"
            )
        return self


class Projector(nn.Module):
    """Pooled features to the space of the contrast: two linear layers with a ReLU between."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = Linear(inputs, hidden)
        self.fc2 = Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        out: Tensor = self.fc2(F.relu(self.fc1(x)))
        return out


class PixelLayer(nn.Module):
    """One linear layer from a cell to the pixels it stands for: a 1 x 1 convolution and a pixel shuffle."""

    def __init__(self, inputs: int, bands: int, stride: int) -> None:
        super().__init__()
        self.bands, self.stride = bands, stride
        self.proj = nn.Conv2d(inputs, bands * stride * stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, C, h * stride, w * stride]."""
        rows = linear(x.permute(0, 2, 3, 1), self.proj.weight.flatten(1), self.proj.bias)
        return F.pixel_shuffle(rows.permute(0, 3, 1, 2), self.stride)


@register_objective("cmid", CMIDConfig)
class CMID(nn.Module):
    """Contrastive and masked self-distillation, global and local.

    Args:
        encoder: A `MaskableEncoder`. It is the student; what is kept in the end.
        config: Options.

    Raises:
        RecipeError: Encoder and options do not fit together.
    """

    progress: Tensor

    def __init__(self, encoder: nn.Module, config: CMIDConfig) -> None:
        super().__init__()
        if not isinstance(encoder, MaskableEncoder):
            raise RecipeError(
                f"cmid marks hidden cells in the encoder, and {type(encoder).__name__} cannot do that; use a "
                "vit_*, swin_* or resnet*"
            )
        _check_sizes(encoder, config)
        self.encoder: Any = encoder
        self.config = config
        self.compares_samples = True
        width, stride = encoder.channels[-1], encoder.strides[-1]
        bands = getattr(encoder, "bands", None)
        if not isinstance(bands, Mapping):
            bands = {_ONE_SENSOR: bands}
        self._batch_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in encoder.modules())
        self._together = not self._batch_norm if config.views_together is None else config.views_together
        local_bn = self._batch_norm if config.local_batch_norm is None else config.local_batch_norm

        self.mask_token = nn.Parameter(torch.zeros(encoder.mask_token_shape))
        self.teacher = nn.ModuleDict({"encoder": teacher_of(encoder)})
        if config.reconstruction_weight:
            self.pixels = nn.ModuleDict(
                {name: PixelLayer(width, count, stride) for name, count in bands.items()}
            )
        if config.global_weight:
            self.projector = Projector(width, config.hidden_dim, config.out_dim)
            self.teacher["projector"] = teacher_of(self.projector)
            self.queue = KeyQueue(config.queue_size, config.out_dim)
        if config.local_weight:
            self.prototypes = PrototypeHead(
                width, config.hidden_dim, config.bottleneck_dim, config.prototypes, batch_norm=local_bn
            )
            self.teacher["prototypes"] = teacher_of(self.prototypes)
            self.agreement = PrototypeLoss(
                config.prototypes, config.student_temperature, config.centre_momentum
            )
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))  # share of the budget spent

    # ---- what is shown

    def views(self, batch: Batch) -> dict[str, Any]:
        """Normalised batch -> two views, with what is hidden of them and where they were cut.

        Returns:
            Each a mapping "first", "second" -> `image` and `shown` (with hidden blocks filled) [B, C, H, W],
            `gsd` [B], `hidden` [B, H / block, W / block] bool, `valid` [B, H, W], `boxes` [B, 4] (top, left,
            height, width on the ground), `flipped` and `upside_down` [B] bool; and `sensor`, names.
        """
        sensors = list(by_sensor(batch).values())
        if len(sensors) > 2:
            raise ContractError(f"cmid compares two views; with pairs of {len(sensors)} sensors name two")
        size, blocks = self.config.view_size, self.config.view_size // self.config.mask_block
        views: dict[str, Any] = {}
        for turn, name in enumerate(VIEWS):
            source = sensors[min(turn, len(sensors) - 1)]
            crop = random_resized_crop(
                source,
                size,
                scale=self.config.crop_scale,
                ratio=self.config.crop_ratio,
                stream=f"cmid/crop/{name}",
            )
            stream = f"cmid/flip/{name}"
            if self.config.flips != "none":
                both = self.config.flips == "both"
                crop = random_orientation(crop, rotate=both, diagonal=False, stream=stream)
            if turn and self.config.jitter:
                crop = photometric_jitter(
                    crop, gain=self.config.jitter, offset=self.config.jitter, stream="cmid/jitter"
                )
            noise = uniform(source["key"], f"cmid/mask/{name}", blocks * blocks).to(crop["image"].device)
            hidden = _hidden_blocks(noise, self.config.mask_ratio).view(-1, blocks, blocks)
            hides = not turn or self.config.mask_second
            one = {
                "image": crop["image"],
                "shown": _filled(crop["image"], hidden, crop.get("valid")) if hides else crop["image"],
                "gsd": crop["gsd"],
                "valid": crop.get("valid"),
                "hidden": hidden,
                "sensor": source.get("sensor"),
                **self._cut(source, name, stream),
            }
            for key, value in one.items():
                views.setdefault(key, {})[name] = value
        return views

    def _cut(self, source: Batch, name: str, stream: str) -> dict[str, Tensor]:
        """Where a view's crop lies: the same random numbers once more."""
        height, width = source["image"].shape[-2:]
        found = crop_boxes(
            source["key"], height, width, scale=self.config.crop_scale, ratio=self.config.crop_ratio,
            stream=f"cmid/crop/{name}",
        )  # fmt: skip
        boxes = torch.tensor(found, dtype=torch.float32)
        if self.config.matching == "released":
            # Offsets as fractions of the room that the crop leaves, then counted as pixels; on a frame of the
            # view's size.
            room = torch.tensor([height, width]) - boxes[:, 2:]
            boxes = torch.cat(
                [
                    boxes[:, :2] / room.clamp_min(1.0),
                    boxes[:, 2:] * (self.config.view_size / torch.tensor([height, width])),
                ],
                dim=1,
            )
        else:  # on the ground, so that sensors of different resolution agree
            boxes = boxes * source["gsd"].cpu().float()[:, None]
        coin = uniform(source["key"], stream, 3) < 0.5
        device = source["image"].device
        flips = self.config.flips
        return {
            "boxes": boxes.to(device),
            "flipped": (coin[:, 0] & (flips != "none")).to(device),
            "upside_down": (coin[:, 1] & (flips == "both")).to(device),
        }

    # ---- what is asked

    def forward(self, views: Mapping[str, Any]) -> Losses:
        """Losses by name; `total` is the weighted sum of `reconstruction`, `global` and `local`."""
        config = self.config
        student = self._look(views, "shown", self.encoder, masked=True)
        with torch.no_grad():
            # The teacher's batch statistics, where it has any, are those of the batch, as the student's are.
            teacher = self._look(views, "image", self.teacher["encoder"], masked=False)
        total: Any = 0.0
        losses: Losses = {}
        if config.reconstruction_weight:
            spatial, frequency = self._reconstruction(views, student)
            value = spatial + config.frequency_weight * frequency
            total = total + config.reconstruction_weight * value
            losses |= {"spatial": spatial.detach(), "frequency": frequency.detach()}
        if config.global_weight:
            value = self._global(student, teacher)
            total = total + config.global_weight * value
            losses["global"] = value.detach()
        if config.local_weight:
            value, apart = self._local(views, student, teacher)
            total = total + config.local_weight * value
            losses |= {"local": value.detach(), "no_overlap": apart}
        return {"total": total, **losses}

    def _look(self, views: Mapping[str, Any], what: str, encoder: Any, *, masked: bool) -> dict[str, Tensor]:
        """Last map [B, D, h, w] of each view; the teacher sees the second one first, as the released code."""
        sensor = views["sensor"]

        def features(image: Tensor, gsd: Tensor, name: str, hidden: Tensor) -> Tensor:
            if not masked:
                found: Features = encoder(image, gsd, sensor[name])
            else:
                times = self.config.mask_block // encoder.mask_stride
                mask = hidden.repeat_interleave(times, 1).repeat_interleave(times, 2)
                found = encoder.masked(image, gsd, sensor[name], token=self.mask_token, mask=mask)
            return found.maps[-1]

        same = sensor["first"] == sensor["second"]
        if self._together and same:
            image, gsd, hidden = (
                torch.cat([views[key][name] for name in VIEWS]) for key in (what, "gsd", "hidden")
            )
            first, second = features(image, gsd, "first", hidden).chunk(2)
            return {"first": first, "second": second}
        order = VIEWS if masked else VIEWS[::-1]
        return {n: features(views[what][n], views["gsd"][n], n, views["hidden"][n]) for n in order}

    def reconstruct(self, features: Tensor, sensor: str | None) -> Tensor:
        """Last map [B, D, h, w] -> pixels [B, C, H, W]."""
        key = sensor if sensor is not None and sensor in self.pixels else _ONE_SENSOR
        out: Tensor = self.pixels[key](features)
        return out

    def _reconstruction(
        self, views: Mapping[str, Any], student: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        spatial, frequency = [], []
        for name in VIEWS:
            image, valid = views["image"][name], views["valid"][name]
            made = self.reconstruct(student[name], views["sensor"][name])
            hidden = _pixels_of(views["hidden"][name], self.config.mask_block)
            if valid is not None and not (valid.device.type == "cpu" and bool(valid.all())):
                hidden = hidden * valid.unsqueeze(1)
                made = torch.where(valid.unsqueeze(1), made, image.to(made.dtype))
            one, other = focal_reconstruction(made, image, hidden)
            spatial.append(one)
            frequency.append(other)
        return torch.stack(spatial).mean(), torch.stack(frequency).mean()

    def _global(self, student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
        query = {name: self.projector(x.mean(dim=(2, 3))) for name, x in student.items()}
        with torch.no_grad():
            key = {name: self.teacher["projector"](x.mean(dim=(2, 3))) for name, x in teacher.items()}
        negatives, temperature = self.queue.keys.clone(), self.config.temperature
        loss = info_nce(query["first"], key["second"], negatives, temperature) + info_nce(
            query["second"], key["first"], negatives, temperature
        )
        if self.training:
            for name in VIEWS[::-1]:
                self.queue.push(key[name])
        return loss / 2

    def _local(
        self, views: Mapping[str, Any], student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        grid = (student["first"].shape[2], student["first"].shape[3])
        places = {
            name: cell_locations(
                views["boxes"][name], views["flipped"][name], grid, upside_down=views["upside_down"][name]
            )
            for name in VIEWS
        }
        apart = self._apart(views)
        weight = (~apart).float()[:, None]
        temperature = self._teacher_temperature()
        logits = []
        for name, other in (VIEWS, VIEWS[::-1]):
            pairs = match_cells(places[name], places[other], self.config.matches)
            own = self.prototypes(take_cells(student[name], pairs.first))
            with torch.no_grad():
                wanted = self.teacher["prototypes"](take_cells(teacher[other], pairs.second))
            logits.append((own, wanted, weight.expand(-1, pairs.first.shape[1])))
        some = bool(apart.any()) if apart.device.type == "cpu" else True
        losses = [
            self.agreement(own, wanted, temperature, share if some else None) for own, wanted, share in logits
        ]
        return (losses[0] + losses[1]) / 2, apart.float().mean()

    def _apart(self, views: Mapping[str, Any]) -> Tensor:
        """[B] bool: the crops share no ground, so their cells cannot be the same; never with `released`."""
        first, second = (views["boxes"][name] for name in VIEWS)
        if self.config.matching == "released":
            return torch.zeros(len(first), dtype=torch.bool, device=first.device)
        low = torch.maximum(first[:, :2], second[:, :2])
        high = torch.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
        return (high <= low).any(dim=1)

    def _teacher_temperature(self) -> float:
        start, end = self.config.teacher_temperature
        if not self.config.teacher_warmup:
            return end
        return start + (end - start) * min(1.0, float(self.progress) / self.config.teacher_warmup)

    # ---- for the engine and for people

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """The teacher follows the student."""
        momentum = momentum_at(step - 1, total_steps, self.config.momentum)
        follow(self.teacher["encoder"], self.encoder, momentum)
        for name in ("projector", "prototypes"):
            if name in self.teacher:
                follow(self.teacher[name], getattr(self, name), momentum)
        self.progress.fill_(step / total_steps)

    @torch.no_grad()
    def pictures(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
        """For each view its image, what is shown of it, and its reconstruction."""
        if not self.config.reconstruction_weight:
            return {}
        student = self._look(views, "shown", self.encoder, masked=True)
        shown: dict[str, Tensor] = {}
        for name in VIEWS:
            sensor = views["sensor"][name]
            prefix = f"{sensor}: " if views["sensor"]["first"] != views["sensor"]["second"] else f"{name} "
            shown[f"{prefix}view"] = views["image"][name]
            shown[f"{prefix}shown"] = views["shown"][name]
            shown[f"{prefix}rebuilt"] = self.reconstruct(student[name], sensor).float()
        return shown


def _check_sizes(encoder: MaskableEncoder, config: CMIDConfig) -> None:
    stride, cell = encoder.strides[-1], encoder.mask_stride
    if config.view_size % stride:
        near = max(stride, round(config.view_size / stride) * stride)
        raise RecipeError(
            f"objective.view_size {config.view_size} must be a multiple of the encoder's coarsest stride "
            f"{stride}; {near} is"
        )
    if config.mask_block % cell:
        fits = [size for size in range(cell, config.view_size + 1, cell) if config.view_size % size == 0]
        raise RecipeError(
            f"objective.mask_block {config.mask_block} must be a multiple of {cell} pixels, the cells that "
            f"the encoder can mark, and divide view_size {config.view_size}: {', '.join(map(str, fits))} "
            "would fit"
        )
    cells = (config.view_size // stride) ** 2
    if config.local_weight and config.matches > cells:
        raise RecipeError(
            f"objective.matches {config.matches} is more than the {cells} cells of a view "
            f"({config.view_size} pixels at stride {stride})"
        )


def _hidden_blocks(noise: Tensor, ratio: float) -> Tensor:
    """[B, N] bool: the ceil(ratio N) blocks with the smallest noise are hidden."""
    count = -int(-noise.shape[1] * ratio // 1)
    order = noise.argsort(dim=1, stable=True)
    hidden = torch.zeros_like(noise, dtype=torch.bool)
    return hidden.scatter(1, order[:, :count], True)


def _pixels_of(blocks: Tensor, side: int) -> Tensor:
    """Blocks [B, n, n] -> pixels [B, 1, n * side, n * side] float."""
    return blocks.float().repeat_interleave(side, 1).repeat_interleave(side, 2).unsqueeze(1)


def _filled(image: Tensor, hidden: Tensor, valid: Tensor | None) -> Tensor:
    """The image with hidden pixels at the mean that each band has over the whole view."""
    if valid is None:
        mean = image.mean(dim=(2, 3), keepdim=True)
    else:
        weight = valid.unsqueeze(1).to(image.dtype)
        mean = (image * weight).sum(dim=(2, 3), keepdim=True) / weight.sum(
            dim=(2, 3), keepdim=True
        ).clamp_min(1.0)
    mask = _pixels_of(hidden, image.shape[-1] // hidden.shape[-1]) > 0
    return torch.where(mask, mean, image)

"""CMID: contrast and masked reconstruction in one self-distillation (Muhtar et al., arXiv 2304.09670).

Two crops of an image are two views; the second is also changed photometrically. A student looks at both with
most blocks hidden, a teacher, which follows the student slowly, at both whole. Three losses:

1. *Reconstruction*: the student's last map, one linear layer and a shuffle give the view's pixels; hidden
   ones are compared in space, the whole in frequency (`swath.objectives.losses.focal_frequency`).
2. *Global*: the student's embedding of one view is to find the teacher's of the other among a queue of
   earlier ones (`swath.objectives.losses.contrastive`).
3. *Local*: cells of the two views that show the same ground are to be the same prototypes
   (`swath.objectives.modules.cell_matching`, `swath.objectives.losses.prototypes`).

Works with every encoder that can mark hidden cells (`swath.encoders.protocol.MaskableEncoder`): CNNs, Swin
and ViT. With a paired batch the two views are the images of two sensors.

Legend: B samples, C bands, H x W pixels of a view, h x w cells of the last map, D its channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swath.augmentations.geometric import crop_boxes, random_flip_rotate, random_resized_crop
from swath.augmentations.photometric import PhotometricBySensor
from swath.datasets.chip import Batch
from swath.datasets.collation import split_by_sensor
from swath.encoders.pooling import mean_std_pool
from swath.encoders.protocol import EncoderFeatures, MaskableEncoder
from swath.errors import ContractError, RecipeError
from swath.keyed_random import uniform
from swath.objectives.cmid_config import CMIDConfig
from swath.objectives.losses.contrastive import KeyQueue, Projector, info_nce
from swath.objectives.losses.focal_frequency import focal_reconstruction
from swath.objectives.losses.prototypes import PrototypeHead, PrototypeLoss
from swath.objectives.losses.texture import whiten_first_layer
from swath.objectives.modules.cell_matching import cell_locations, match_cells, take_cells
from swath.objectives.modules.ema import cosine_momentum, ema_copy, ema_update
from swath.objectives.modules.masking import fill_with_mean, mask_pixels, random_blocks
from swath.objectives.modules.pixel_decoder import PixelShuffleHead
from swath.objectives.protocol import Losses, register_objective
from swath.sensors.sensor import Sensor

VIEWS = ("first", "second")
_ONE_SENSOR = "pixels"  # key of the output layer where the encoder does not tell sensors apart


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
        local = self._batch_norm if config.local_batch_norm is None else config.local_batch_norm
        self._local_batch_norm = local and bool(config.local_weight)

        self.mask_token = nn.Parameter(torch.zeros(encoder.mask_token_shape))
        self.teacher = nn.ModuleDict({"encoder": ema_copy(encoder)})
        if config.reconstruction_weight:
            self.pixels = nn.ModuleDict(
                {name: PixelShuffleHead(width, count, stride) for name, count in bands.items()}
            )
        if config.global_weight:
            times = 2 if config.embedding == "mean_std" else 1
            self.projector = Projector(times * width, config.hidden_dim, config.out_dim)
            self.teacher["projector"] = ema_copy(self.projector)
            self.queue = KeyQueue(config.queue_size, config.out_dim)
        if config.local_weight:
            self.prototypes = PrototypeHead(
                width, config.hidden_dim, config.bottleneck_dim, config.prototypes, batch_norm=local
            )
            self.teacher["prototypes"] = ema_copy(self.prototypes)
            self.agreement = PrototypeLoss(
                config.prototypes, config.student_temperature, config.center_momentum
            )
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64))  # share of the budget spent
        self.changes = PhotometricBySensor(config.photometric, "objective.options.photometric")

    def know_sensors(self, sensors: Sequence[Sensor]) -> None:
        """What the images were taken with: it says which photometric changes the second view may have."""
        self.changes.know(sensors[1:2] or sensors)

    # ---- what is shown

    def views(self, batch: Batch) -> dict[str, Any]:
        """Normalized batch -> two views, with what is hidden of them and where their cells lie.

        Returns:
            Each a mapping "first", "second" -> `image` and `shown` (with hidden blocks filled) [B, C, H, W],
            `gsd` [B], `hidden` [B, H / block, W / block] bool, `valid` [B, H, W], `places` [B, h, w, 2] (row
            and column of each cell's centre on the ground) and `sensor`, names; besides `apart` [B] bool (the
            two crops share no ground) and `index` [B], whose the views are.
        """
        sensors = list(split_by_sensor(batch).values())
        if len(sensors) > 2:
            raise ContractError(f"cmid compares two views; with pairs of {len(sensors)} sensors name two")
        config = self.config
        blocks, cells = config.view_size // config.mask_block, config.view_size // self.encoder.strides[-1]
        views: dict[str, Any] = {}
        boxes: dict[str, Tensor] = {}
        for turn, name in enumerate(VIEWS):
            source = sensors[min(turn, len(sensors) - 1)]
            crop = random_resized_crop(
                source,
                config.view_size,
                scale=config.crop_scale,
                ratio=config.crop_ratio,
                stream=f"cmid/crop/{name}",
            )
            if config.flips != "none":
                both = config.flips == "both"
                crop = random_flip_rotate(crop, rotate=both, diagonal=False, stream=f"cmid/flip/{name}")
            if turn:
                crop = self.changes(crop, "cmid/photometric")
            image, valid = crop["image"], crop.get("valid")
            noise = uniform(source["key"], f"cmid/mask/{name}", blocks * blocks).to(image.device)
            hidden = random_blocks(noise, config.mask_ratio).view(-1, blocks, blocks)
            hides = not turn or config.mask_second
            boxes[name] = self._box(source, name)
            across, over = self._flipped(source, name)
            one = {
                "image": image,
                "shown": fill_with_mean(image, self._pixels_of(hidden), valid) if hides else image,
                "gsd": crop["gsd"],
                "valid": valid,
                "hidden": hidden,
                "places": cell_locations(boxes[name], across, (cells, cells), upside_down=over),
                "sensor": source.get("sensor"),
            }
            for key, value in one.items():
                views.setdefault(key, {})[name] = value
        views["apart"] = _apart(boxes["first"], boxes["second"])
        if config.matching == "released":  # where the crops truly lie is not looked at
            views["apart"] = torch.zeros_like(views["apart"])
        views["index"] = batch.get("index")  # whose keys they will be
        return views

    def _box(self, source: Batch, name: str) -> Tensor:
        """[B, 4] top, left, height, width of a view's crop: the same random numbers once more."""
        height, width = source["image"].shape[-2:]
        found = crop_boxes(
            source["key"], height, width, scale=self.config.crop_scale, ratio=self.config.crop_ratio,
            stream=f"cmid/crop/{name}",
        )  # fmt: skip
        boxes = torch.tensor(found, dtype=torch.float32)
        if self.config.matching == "released":
            # Offsets as fractions of the room that the crop leaves, then counted as pixels; on a frame of the
            # view's size.
            frame = torch.tensor([height, width])
            offsets = boxes[:, :2] / (frame - boxes[:, 2:]).clamp_min(1.0)
            boxes = torch.cat([offsets, boxes[:, 2:] * (self.config.view_size / frame)], dim=1)
        else:  # on the ground, so that crops and sensors of different resolution agree
            boxes = boxes * source["gsd"].cpu().float()[:, None]
        return boxes.to(source["image"].device)

    def _flipped(self, source: Batch, name: str) -> tuple[Tensor, Tensor]:
        """[B] bool each: a view's crop was flipped left to right, and up to down; as `_box`."""
        coin = uniform(source["key"], f"cmid/flip/{name}", 3) < 0.5
        across = coin[:, 0] & (self.config.flips != "none")
        over = coin[:, 1] & (self.config.flips == "both")
        return across.to(source["image"].device), over.to(source["image"].device)

    def _pixels_of(self, blocks: Tensor) -> Tensor:
        """Blocks [B, n, n] bool -> pixels [B, 1, H, W] bool."""
        return mask_pixels(blocks.flatten(1), (blocks.shape[1], blocks.shape[2]), self.config.mask_block)

    @torch.no_grad()
    def prepare(self, batch: Batch) -> None:
        """Fit what is fitted to data before the first step; see `CMIDConfig.first_layer`.

        Args:
            batch: Some hundred normalized samples, the same on every rank.
        """
        if self.config.first_layer == "random":
            return
        views = self.views(batch)
        name_of = {views["sensor"][name]: name for name in reversed(VIEWS)}
        networks: tuple[Any, ...] = (self.encoder, self.teacher["encoder"])
        for network in networks:
            for sensor, name in name_of.items():
                whiten_first_layer(network.first_convolution(sensor), views["image"][name])

    # ---- what is asked

    def forward(self, views: Mapping[str, Any]) -> Losses:
        """Losses by name; `total` is the weighted sum of `reconstruction`, `global` and `local`.

        Raises:
            ContractError: BatchNorm would have to normalize a single value.
        """
        config = self.config
        self._check_batch(len(views["apart"]))
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
            value = self._global(views, student, teacher)
            total = total + config.global_weight * value
            losses["global"] = value.detach()
        if config.local_weight:
            value, apart = self._local(views, student, teacher)
            total = total + config.local_weight * value
            losses |= {"local": value.detach(), "no_overlap": apart}
        return {"total": total, **losses}

    def _check_batch(self, count: int) -> None:
        """Where there is BatchNorm, refuse a batch of one whose maps or matches are one cell."""
        cells = (self.config.view_size // self.encoder.strides[-1]) ** 2
        values = [count * cells] * self._batch_norm + [count * self.config.matches] * self._local_batch_norm
        if self.training and values and min(values) < 2:
            raise ContractError(
                f"a batch of {count}, a last map of {cells} cells and {self.config.matches} matches leave "
                "BatchNorm a single value; use a larger batch, a larger view_size or more matches"
            )

    def _look(self, views: Mapping[str, Any], what: str, encoder: Any, *, masked: bool) -> dict[str, Tensor]:
        """Last map [B, D, h, w] of each view; the teacher sees the second one first, as the released code."""
        sensor = views["sensor"]

        def features(image: Tensor, gsd: Tensor, name: str, hidden: Tensor) -> Tensor:
            if not masked:
                found: EncoderFeatures = encoder(image, gsd, sensor[name])
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
        config = self.config
        spatial, frequency = [], []
        for name in VIEWS:
            image, valid = views["image"][name], views["valid"][name]
            made = self.reconstruct(student[name], views["sensor"][name])
            hidden = self._pixels_of(views["hidden"][name]).float()
            if valid is not None and not (valid.device.type == "cpu" and bool(valid.all())):
                hidden = hidden * valid.unsqueeze(1)
                made = torch.where(valid.unsqueeze(1), made, image.to(made.dtype))
            everyone = config.frequency_over == "batch"
            one, other = focal_reconstruction(
                made, image, hidden, alpha=config.focal_alpha, gamma=config.focal_gamma,
                visible=config.visible_weight, over_ranks=everyone,
            )  # fmt: skip
            spatial.append(one)
            frequency.append(other)
        return torch.stack(spatial).mean(), torch.stack(frequency).mean()

    def _global(
        self, views: Mapping[str, Any], student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
    ) -> Tensor:
        query = {name: self.projector(self._embedding(x)) for name, x in student.items()}
        with torch.no_grad():
            key = {name: self.teacher["projector"](self._embedding(x)) for name, x in teacher.items()}
        owners, temperature = views.get("index"), self.config.temperature
        negatives, alike = self.queue.keys, self.queue.held_by(owners)
        loss = info_nce(query["first"], key["second"], negatives, temperature, alike) + info_nce(
            query["second"], key["first"], negatives, temperature, alike
        )
        self.queue.hold([(key["second"], owners), (key["first"], owners)])
        return loss / 2

    def _embedding(self, x: Tensor) -> Tensor:
        """Last map [B, D, h, w] -> [B, D], or [B, 2 D] with the spread over cells."""
        if self.config.embedding == "mean":
            return x.mean(dim=(2, 3))
        return mean_std_pool(x.flatten(2).transpose(1, 2), floor=1e-6)

    def _local(
        self, views: Mapping[str, Any], student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        places, apart = views["places"], views["apart"]
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

    def _teacher_temperature(self) -> float:
        start, end = self.config.teacher_temperature
        if not self.config.teacher_warmup:
            return end
        return start + (end - start) * min(1.0, float(self.progress) / self.config.teacher_warmup)

    # ---- for the engine and for people

    @torch.no_grad()
    def after_step(self, step: int, total_steps: int) -> None:
        """The teacher follows the student, and its keys join the queue."""
        momentum = cosine_momentum(step - 1, total_steps, self.config.momentum)
        ema_update(self.teacher["encoder"], self.encoder, momentum)
        for name in ("projector", "prototypes"):
            if name in self.teacher:
                ema_update(self.teacher[name], getattr(self, name), momentum)
        if self.config.global_weight:
            self.queue.push_held()
        self.progress.fill_(step / total_steps)

    @torch.no_grad()
    def images(self, views: Mapping[str, Any]) -> dict[str, Tensor]:
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


def _apart(first: Tensor, second: Tensor) -> Tensor:
    """[B] bool: crops [B, 4] share no ground, so that no cells of theirs can be the same."""
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    return (high <= low).any(dim=1)

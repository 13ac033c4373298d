"""Options of CMID."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from swath.augmentations.photometric_options import Photometric
from swath.objectives.protocol import ObjectiveConfig


class CMIDConfig(ObjectiveConfig):
    """Options of CMID; the defaults are the paper's with a Swin-B or a ResNet-50."""

    view_size: int = Field(224, gt=0, description="Side of a view in pixels.")
    crop_scale: tuple[float, float] = Field((0.3, 1.0), description="Range of a crop's share of the image.")
    crop_ratio: tuple[float, float] = Field((0.75, 4 / 3), description="Range of its width / height.")
    flips: Literal["none", "across", "both"] = Field(
        "across", description="Random flips: left to right as in the paper, or along both axes (ours)."
    )
    photometric: Photometric = Field(
        "auto",
        description="Changes of the second view: auto, what its sensor's physics allows; a mapping of "
        "strengths (`swath.augmentations.PhotometricStrengths`); paper, as the authors on RGB "
        "photographs; none.",
    )
    mask_block: int = Field(32, gt=0, description="Side of a block that is hidden or not, in pixels.")
    mask_ratio: float = Field(0.6, gt=0, lt=1, description="Share of blocks hidden, rounded up.")
    mask_second: bool = Field(True, description="Hide pixels of the second view too, not only mark them.")

    reconstruction_weight: float = Field(1.0, ge=0, description="Weight of the reconstruction.")
    frequency_weight: float = Field(1.0, ge=0, description="Weight of its part in frequency.")
    focal_alpha: float = Field(
        0.2, ge=0, description="How steeply the weight of a hidden pixel's error rises with that error."
    )
    focal_gamma: float = Field(1.0, ge=0, description="Power of that weight; 0 is a plain absolute error.")
    visible_weight: float = Field(
        0.001, ge=0, le=1, description="Share of the gradient that visible pixels keep in frequency."
    )
    frequency_over: Literal["batch", "process"] = Field(
        "batch",
        description="Spectra are averaged over the samples of all processes; or over each process's own, as "
        "in the released code, where the loss depends on their number.",
    )
    global_weight: float = Field(1.0, ge=0, description="Weight of the contrast between views.")
    local_weight: float = Field(1.0, ge=0, description="Weight of the prototypes of matched cells.")

    embedding: Literal["mean", "mean_std"] = Field(
        "mean", description="What is contrasted: the mean over cells, or it and their spread (ours)."
    )
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
    center_momentum: float = Field(0.9, ge=0, lt=1, description="Of the prototypes' center.")
    momentum: float = Field(0.996, ge=0, lt=1, description="Of the teacher at the start; 1 at the end.")
    first_layer: Literal["random", "whitened"] = Field(
        "random",
        description="The encoder's first layer begins as usual, or as whitened patches of the data (ours).",
    )
    views_together: bool | None = Field(
        None,
        description="Both views through the encoder as one batch: exact without BatchNorm (and so done "
        "there), quicker but with mixed batch statistics with it. None: where it is exact.",
    )

    @model_validator(mode="after")
    def _check(self) -> CMIDConfig:
        if self.view_size % self.mask_block:
            near = self.view_size // self.mask_block * self.mask_block
            fits = " or ".join(str(size) for size in (near, near + self.mask_block) if size)
            raise ValueError(
                f"view_size {self.view_size} must be a multiple of mask_block {self.mask_block}; {fits} "
                "would fit"
            )
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

"""The sections of a recipe that all runs share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator


class RecipeSection(BaseModel):
    """A part of a recipe. Strict: "50" is not a number; extra keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(RecipeSection):
    """How the folder given by ``--data`` is read; defaults are those of `open_dataset`.

    Attributes:
        layout: ``auto`` looks at what is there; or chips, class_folder, csv, hdf5, images; for a list
            of sensors pairs, bigearthnet, sen12ms, ssl4eo, sen1floods11.
        gsd: Metres per pixel, ``relative`` (1.0 at native resolution), or a column of the CSV table;
            left out: from each file's georeference.
        size: Pixels (side, or height and width) that whole images are brought to by `fit`.
        resize_mode: center_crop, random_crop or resize.
        cache: ``memory`` decodes every image once, at the start.
        max_pixels: Largest whole image accepted.
        image_root: Folder that a CSV table's file names are relative to.
        file_column: Column of file names.
        label_column: Column of class names; of HDF5, the data set of class indices.
        hdf5_group: Of HDF5, the data set or group of the images, where there are others.
        split: Keep the rows with this value in the column ``split``.
        filter: Keep the rows with these values: ``{scale: "0"}``.
        sampling: Chips on a ``grid`` or at ``random``.
        chip_size: Side of a chip in native pixels.
        chip_metres: Side of a chip on the ground, instead of `chip_size`.
        stride: Step of the grid in pixels.
        chips_per_epoch: Chips of an epoch of random sampling.
        min_valid: Minimum fraction of valid pixels in a chip.
        align_to_blocks: Whether random chips start on the files' block boundaries.
        pattern: Take only scenes whose path below the folder matches, such as ``*/s2.tif``.
        classes: Class folders in the order of their indices; left out: all, sorted.
        subset: ``ben14k`` of BigEarthNet.
        offset_dn: Added to stored values before scaling, for Sentinel-2 files that do not say their
            processing baseline: -1000 from baseline 04.00, 0 before.
    """

    layout: Literal[
        "auto", "chips", "class_folder", "csv", "hdf5", "images",
        "pairs", "bigearthnet", "sen12ms", "ssl4eo", "sen1floods11",
    ] = "auto"  # fmt: skip
    gsd: float | str | None = None
    size: int | Annotated[tuple[int, int], Strict(False)] | None = None
    resize_mode: Literal["center_crop", "random_crop", "resize"] | None = None
    cache: Literal["none", "memory"] | None = None
    max_pixels: int | None = None
    image_root: str | None = None
    file_column: str | None = None
    label_column: str | None = None
    hdf5_group: str | None = None
    split: str | None = None
    filter: dict[str, str | list[str]] | None = None
    sampling: Literal["grid", "random"] | None = None
    chip_size: int | None = Field(default=None, gt=0)
    chip_metres: float | None = Field(default=None, gt=0)
    stride: int | None = Field(default=None, gt=0)
    chips_per_epoch: int | None = Field(default=None, gt=0)
    min_valid: float | None = Field(default=None, ge=0, le=1)
    align_to_blocks: bool | None = None
    pattern: str | None = None
    classes: list[str] | None = None
    subset: str | None = None
    offset_dn: float | None = None


class ComponentConfig(RecipeSection):
    """A registered name and its options."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class ContractConfig(RecipeSection):
    """What the model will promise beside its sensor.

    Attributes:
        gsd_mode: ``metres`` or ``relative``; left out: relative if ``data.gsd`` is, else metres.
        reference_gsd: Positions are scaled by gsd / reference_gsd.
        reference_size: Relative mode: side in pixels at which an image's GSD counts as 1.
    """

    gsd_mode: Literal["metres", "relative"] | None = None
    reference_gsd: float = Field(default=1.0, gt=0)
    reference_size: int | None = Field(default=None, gt=0)


_BETAS: dict[str, tuple[float, ...]] = {"adamw": (0.9, 0.95), "adan": (0.98, 0.92, 0.99)}


class OptimizerConfig(RecipeSection):
    """The optimizer; its schedule is `TrainingConfig.schedule`.

    Attributes:
        name: ``adamw`` (Loshchilov and Hutter 2019), or ``adan`` (Xie et al. 2022), CMID's.
        lr: Peak learning rate, or
        blr: the same for a batch of 256; the rate used is blr x batch_size / 256.
        min_lr_ratio: Share of the peak that the cosine ends at.
        betas: Decay rates: AdamW's two moments (0.9, 0.95 where not given), or Adan's gradient, change of
            gradient and second moment (0.98, 0.92, 0.99).
        eps: Added to the root of the second moment.
        weight_decay: Applied to matrices and kernels; never to biases, norms and other 1-D parameters.
        decay_tokens: Whether learned tokens (class, mask) decay too, as in MAE and Scale-MAE.
        decay_norm_and_bias: Whether everything that is trained decays, biases and norms too, as in CSMAE's
        runs.
    """

    name: Literal["adamw", "adan"] = "adamw"
    lr: float | None = Field(default=None, gt=0)
    blr: float | None = Field(default=None, gt=0)
    min_lr_ratio: float = Field(default=0.0, ge=0, le=1)
    betas: Annotated[tuple[float, ...], Strict(False)] | None = None
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    decay_tokens: bool = True
    decay_norm_and_bias: bool = False

    @model_validator(mode="before")
    @classmethod
    def _usual_betas(cls, data: Any) -> Any:
        """Put numbers for the default that depends on the optimizer, so that a stored recipe shows them."""
        if isinstance(data, Mapping) and data.get("betas") is None:
            data = {**data, "betas": _BETAS.get(data.get("name", "adamw"), _BETAS["adamw"])}
        return data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _one_of(self, ("lr", "blr"))
        assert self.betas is not None
        if len(self.betas) != len(_BETAS[self.name]):
            raise ValueError(f"{self.name} has {len(_BETAS[self.name])} betas, not {list(self.betas)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas lie in [0, 1), not {list(self.betas)}")
        return self


class TrainingConfig(RecipeSection):
    """The budget, the size of a step, and what is watched.

    Attributes:
        steps: Budget as optimizer steps, or
        epochs: as passes over the data, or
        cpu_minutes: as CPU time of the process; the schedule then follows the fraction spent. The number of
            steps depends on the machine, so such a run resumes but is not bit-reproducible.
        batch_size: Samples of one optimizer step, over all ranks and accumulated parts together.
        gradient_accumulation_steps: Parts in which a rank computes its samples of a step: same result, less
            memory.
        warmup_steps: Steps of linear warm-up, or
        warmup_epochs: epochs of it, or
        warmup_fraction: fraction of the budget (default 5 %).
        schedule: ``cosine``: linear warm-up and half a cosine over the budget;
            ``cosine_bolts``: the same in whole steps from rate 0, as lightning-bolts counts them (CSMAE);
            ``cosine_scaled``: a cosine over the whole run, scaled down while it warms up (CMID).
        max_grad_norm: Maximum gradient norm; none disables clipping.
        precision: fp32; bf16 (autocast); fp16 (autocast and loss scaling, GPU only).
        device: ``auto`` takes a GPU if there is one.
        compile: Compile the objective with torch.compile.
        parallel: Under torchrun: ``ddp`` replicates the weights, ``fsdp`` shards them (FSDP2).
        sync_batch_norm: Under torchrun, BatchNorm takes its statistics over the samples of all processes
            rather than of each one. ``auto``: where that is possible, which is on GPUs; true insists on it.
            Everything that has BatchNorm follows, a teacher too. (PyTorch's SyncBatchNorm runs on GPUs only.)
        find_unused_parameters: DDP looks for parameters that a step does not use; for objectives that have
            such.
        deterministic: Only deterministic kernels, so that a resumed run is bit-identical. Default: on a CPU
            yes, on a GPU no (slower there).
        workers: Loader processes; 0 loads in the training process. Default: 0 if the data are cached in
            memory or the budget is CPU time, else one less than the CPUs, at most 8.
        checkpoint_every: Steps between checkpoints.
        keep_checkpoints: Checkpoints kept.
        log_every: Steps between lines of metrics.
        images_every: Write images of reconstructions every N steps; 0 disables it.
        monitor_every: Check for collapse (feature std, RankMe) every N steps; 0 disables it.
        monitor_images: Size of the fixed batch for that check.
        tensorboard: Whether to write TensorBoard files too.
    """

    steps: int | None = Field(default=None, gt=0)
    epochs: int | None = Field(default=None, gt=0)
    cpu_minutes: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=64, gt=0)
    gradient_accumulation_steps: int = Field(default=1, gt=0)
    warmup_steps: int | None = Field(default=None, ge=0)
    warmup_epochs: float | None = Field(default=None, ge=0)
    warmup_fraction: float | None = Field(default=None, ge=0, lt=1)
    schedule: Literal["cosine", "cosine_bolts", "cosine_scaled"] = "cosine"
    max_grad_norm: float | None = Field(default=None, gt=0)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    sync_batch_norm: bool | Literal["auto"] = "auto"
    find_unused_parameters: bool = False
    deterministic: bool | None = None
    workers: int | None = Field(default=None, ge=0)
    checkpoint_every: int = Field(default=500, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    log_every: int = Field(default=10, gt=0)
    images_every: int = Field(default=500, ge=0)
    monitor_every: int = Field(default=500, ge=0)
    monitor_images: int = Field(default=128, ge=4)
    tensorboard: bool = True

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        _one_of(self, ("steps", "epochs", "cpu_minutes"))
        _one_of(self, ("warmup_steps", "warmup_epochs", "warmup_fraction"), none=True)
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size {self.batch_size} is not divisible by gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps}"
            )
        if self.cpu_minutes is not None:
            if self.warmup_steps is not None or self.warmup_epochs is not None:
                raise ValueError(
                    "with a budget in cpu_minutes the number of steps is not known; use warmup_fraction"
                )
            if self.schedule != "cosine":
                raise ValueError(
                    f"schedule {self.schedule} counts steps; with a budget in cpu_minutes use cosine"
                )
            if self.workers:
                raise ValueError("with a budget in cpu_minutes set workers to 0: theirs would not be counted")
        return self


def _one_of(section: BaseModel, names: tuple[str, ...], none: bool = False) -> None:
    given = [name for name in names if getattr(section, name) is not None]
    if len(given) > 1 or (not given and not none):
        found = f"{' and '.join(given)} are given" if given else "none is"
        raise ValueError(f"give {'at most' if none else 'exactly'} one of {', '.join(names)} ({found})")

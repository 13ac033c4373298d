"""Options of CSMAE."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from swath.objectives.protocol import ObjectiveConfig


class CSMAEConfig(ObjectiveConfig):
    """Options of CSMAE.

    `masking` says how the sensors' hidden patches correspond; `reconstruction` which patches a *cross-modal*
    reconstruction puts its tokens at and is scored at (a uni-modal one: where its own are hidden):

    - ``source``: tokens at the source sensor's places, scored where the *source* is hidden. The released
      code's default (`reconstruction_strategy: disjoint`), so what its weights were trained with.
    - ``target``: tokens at the source's places, scored where the *target* is hidden, as the paper's figure
      draws it. The one that works between different grids.
    - ``opposite``: the released code's `reconstruction_strategy: identical`. With random or disjoint masks
      the source's tokens are put at the *target's* visible places (so they stand at wrong places); with
      identical masks both are exchanged: tokens at hidden places, scored at visible ones.
    """

    decoder: Literal["specific", "common"] = Field("common", description="A decoder a target sensor, or one.")
    decoder_dim: int = Field(512, gt=0, description="Width of a decoder.")
    decoder_depth: int = Field(8, gt=0, description="Its blocks.")
    decoder_heads: int = Field(16, gt=0, description="Its attention heads.")

    mask_ratio: float = Field(0.5, gt=0, lt=1, description="Share of each image's patches that is hidden.")
    masking: Literal["random", "identical", "disjoint"] = Field(
        "random",
        description="Every sensor has its own random mask; all the same; or the second shows what the first "
        "hides (two sensors; the second's ratio is 1 - mask_ratio).",
    )
    reconstruction: Literal["source", "target", "opposite"] = Field("source", description="See above.")

    unimodal: bool = Field(True, description="Rebuild each sensor from itself (UMR).")
    crossmodal: bool = Field(True, description="Rebuild each sensor from every other (CMR).")
    pixel_loss: Literal["l2", "l1"] = Field("l2", description="Squared (the paper) or absolute error.")
    norm_pix: bool = Field(False, description="Standardize each target patch over its pixels and bands.")
    target_weights: dict[str, float] = Field(
        default_factory=dict,
        description="Weight of a sensor's reconstruction losses, by sensor; 1 where not given. A sensor of "
        "weight 0 is never rebuilt.",
    )
    mim_weight: float = Field(1.0, ge=0, description="Weight of the contrast between sensors (MIM, NT-Xent).")
    temperature: float = Field(0.5, gt=0, description="Its temperature.")
    mde_weight: float = Field(
        0.0, ge=0, description="Weight of MDE, minus the softplus of paired cosines; the paper's runs have 0."
    )

    crop_scale: tuple[float, float] | None = Field(
        None, description="Range of a random crop's share of the image, resized back; none: whole images."
    )
    orientation: Literal["none", "flips", "dihedral"] = Field(
        "flips", description="Flips along both axes, jointly for all sensors; dihedral: and quarter turns."
    )

    @model_validator(mode="after")
    def _check(self) -> CSMAEConfig:
        if self.decoder_dim % self.decoder_heads or self.decoder_dim % 4:
            raise ValueError(
                f"decoder_dim {self.decoder_dim} must be a multiple of decoder_heads {self.decoder_heads} "
                "and of 4"
            )
        if not (self.unimodal or self.crossmodal):
            raise ValueError("unimodal and crossmodal are both off: nothing is reconstructed")
        if (
            not self.crossmodal
            and "reconstruction" in self.model_fields_set
            and self.reconstruction != "source"
        ):
            raise ValueError("reconstruction is about cross-modal losses, and crossmodal is off; remove it")
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale must be 0 < low <= high <= 1, not {list(self.crop_scale)}")
        wrong = {name: weight for name, weight in self.target_weights.items() if weight < 0}
        if wrong:
            raise ValueError(f"target_weights are not negative, but there is {wrong}")
        return self

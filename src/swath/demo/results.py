"""The results of the demo, which its report shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swath.evaluation.protocols.frozen import EvaluationResult


@dataclass(slots=True)
class DemoResults:
    """Results of all stages of the demo.

    Attributes:
        out: Output folder.
        seconds: Duration of each stage by name.
        catalog: One row per real scene: file, pixels, bands, type, GSD, driver.
        metrics: Logged metrics of the training run.
        evaluation: kNN scores over image sizes, the model first.
        searches: (caption, contact sheet) of each search.
        precision: Mean precision at 10 over all simulated chips, and its chance level.
        refusal: The error for imagery of another sensor.
        embedded: Number of chips in the archive.
        about: Model, machine and software versions, for the footer.
    """

    out: Path
    seconds: dict[str, float] = field(default_factory=dict)
    catalog: list[dict[str, Any]] = field(default_factory=list)
    metrics: list[dict[str, Any]] = field(default_factory=list)
    evaluation: EvaluationResult | None = None
    searches: list[tuple[str, Path]] = field(default_factory=list)
    precision: tuple[float, float] = (0.0, 0.0)
    refusal: str = ""
    embedded: int = 0
    about: dict[str, Any] = field(default_factory=dict)

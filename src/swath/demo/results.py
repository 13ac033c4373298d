"""What a walk through the demo has measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from swath.evaluation.protocols.frozen import EvaluationResult


@dataclass(slots=True)
class DemoResults:
    """What the demo did and saw; `page.py` tells it.

    Attributes:
        out: Folder of everything.
        seconds: Duration of each stage by name.
        catalog: A row a real scene: file, pixels, bands, CRS, GSD in metres.
        metrics: The logged steps of the run.
        evaluation: kNN scores over scales, the model first.
        searches: (what was asked, picture) of each search.
        precision: Share of same-class answers among ten, over all simulated queries, and by chance.
        refusal: What the contract said to imagery of another sensor.
        embedded: Chips in the archive.
        about: Model, machine and software, for the foot of the page.
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

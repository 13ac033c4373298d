"""What an archive holds, in a few numbers and words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, slots=True)
class ArchiveSummary:
    """What an archive holds, in a few numbers."""

    rows: int
    sensors: Mapping[str, int]  # name -> chips
    gsd: tuple[float, float] | None  # smallest, largest
    time: tuple[datetime, datetime] | None  # first, last, of the chips that have a time
    bounds: tuple[float, float, float, float] | None  # west, south, east, north, of those with a footprint
    placed: int  # chips that have a footprint

    def text(self) -> dict[str, str]:
        """For the terminal and notebooks: name -> value, of what is known."""
        listed = ", ".join(f"{name} ({count:,})" for name, count in self.sensors.items())
        words = {"chips": f"{self.rows:,}", "sensors": listed or "none"}
        if self.gsd:
            words["gsd"] = f"{self.gsd[0]:.4g} to {self.gsd[1]:.4g}"
        if self.time:
            words["time"] = f"{self.time[0]:%Y-%m-%d} to {self.time[1]:%Y-%m-%d}"
        if self.bounds:
            west, south, east, north = self.bounds
            words["place"] = f"{west:.4f} to {east:.4f} E, {south:.4f} to {north:.4f} N"
        if self.placed < self.rows:
            words["without footprint"] = f"{self.rows - self.placed:,}"
        return words


def summary_of(table: pa.Table) -> ArchiveSummary:
    """The summary of rows with the columns ``sensor``, ``gsd``, ``datetime`` and ``bbox``."""
    counted = table["sensor"].value_counts().to_pylist()
    sensors = {entry["values"]: entry["counts"] for entry in counted}
    gsd = pc.min_max(table["gsd"]).as_py()
    time = pc.min_max(table["datetime"]).as_py()
    boxes = table["bbox"].drop_null()
    bounds = None
    if len(boxes):
        flat = pa.Table.from_struct_array(boxes)
        bounds = (
            pc.min(flat["xmin"]).as_py(),
            pc.min(flat["ymin"]).as_py(),
            pc.max(flat["xmax"]).as_py(),
            pc.max(flat["ymax"]).as_py(),
        )
    return ArchiveSummary(
        rows=table.num_rows,
        sensors=dict(sorted(sensors.items(), key=lambda item: -item[1])),
        gsd=(gsd["min"], gsd["max"]) if gsd["min"] is not None else None,
        time=(time["min"], time["max"]) if time["min"] is not None else None,
        bounds=bounds,
        placed=len(boxes),
    )

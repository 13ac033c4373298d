"""The sample imagery that ships with Swath: a few real scenes, small and under open licences.

`PROVENANCE.md` in this folder says where each file is from, under which licence, and what was done to it.
The demo, the tutorial and the tests use them; they are far too few to measure a method on.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def samples_dir(part: str | None = None) -> Path:
    """Folder of the sample imagery, or of one part of it.

    Args:
        part: `"aerial"` (RGB GeoTIFFs at 0.1 m), `"aerial_without_gsd"` (RGB pictures that carry no
            georeference) or `"sentinel2"` (four bands at 10 m). None: the folder that holds all parts.

    Raises:
        ValueError: No part of that name.
    """
    if part is None:
        return _HERE
    if part not in ("aerial", "aerial_without_gsd", "sentinel2"):
        raise ValueError(f"no sample part {part!r}; there are aerial, aerial_without_gsd and sentinel2")
    return _HERE / part


def tree_boxes() -> Path:
    """CSV of hand-drawn tree crowns in the aerial samples: file, xmin, ymin, xmax, ymax (pixels)."""
    return _HERE / "tree_boxes.csv"

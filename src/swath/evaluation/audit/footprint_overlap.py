"""Which images lie on the same ground, by their georeference.

Pixels cannot tell that a query of this year and a train image of last year show one field; footprints can.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from swath.errors import ImageryError
from swath.rasters.pillow_reader import TIFF_SUFFIXES

Ring = Sequence[tuple[float, float]]


def read_footprints(paths: Sequence[str]) -> list[Ring | None]:
    """Ring of (longitude, latitude) of each file, None where it has no georeference."""
    from swath.rasters.header import read_header

    found: list[Ring | None] = []
    for path in paths:
        ring: Ring | None = None
        if Path(path).suffix.lower() in TIFF_SUFFIXES:
            try:
                ring = read_header(path).footprint
            except ImageryError:
                ring = None  # the data set reports what cannot be opened
        found.append(ring)
    return found


def footprint_overlaps(
    test: Sequence[Ring | None], train: Sequence[Ring | None], *, minimum: float = 0.01
) -> list[tuple[int, int, float]]:
    """(query, train image, share): pairs whose footprints overlap.

    Args:
        test: Rings in degrees; None is passed over.
        train: Rings.
        minimum: Share of the smaller footprint from which an overlap counts. (Tiles that merely touch share
            an edge, and by rounding a sliver.)

    A footprint that spans more than half the globe in longitude crosses the antimeridian; it is compared
    with its negative longitudes moved by 360 degrees, and so is every other one then.
    """
    import shapely

    places = [(i, ring) for i, ring in enumerate(train) if ring is not None]
    asked = [(i, ring) for i, ring in enumerate(test) if ring is not None]
    if not places or not asked:
        return []
    across = any(_spans(ring) > 180 for _, ring in (*places, *asked))

    def polygon(ring: Ring) -> Any:
        return shapely.Polygon([((x + 360) if across and x < 0 else x, y) for x, y in ring])

    shapes = [polygon(ring) for _, ring in places]
    tree = shapely.STRtree(shapes)
    found = []
    for query, ring in asked:
        own = polygon(ring)
        for j in sorted(tree.query(own, predicate="intersects").tolist()):
            smaller = min(own.area, shapes[j].area)
            fraction = own.intersection(shapes[j]).area / smaller if smaller > 0 else 0.0
            if fraction >= minimum:
                found.append((query, places[j][0], float(fraction)))
    return found


def _spans(ring: Ring) -> float:
    longitudes = [x for x, _ in ring]
    return max(longitudes) - min(longitudes)

"""Which scenes of two archives show the same ground at about the same time, and on which grid.

    found = pair_archives("s1/", "s2/", sensors=("sentinel1_grd", "sentinel2_l2a"), grid="sentinel2_l2a",
                          days=3, chip_size=120)
    write_pairs(found, "pairs.parquet")
    open_pairs("pairs.parquet", sensors=("sentinel1_grd", "sentinel2_l2a"))

Candidates are found by a tree of footprints, so that archives may be large; overlap is then measured on the
grid itself. The grid is that of one of the two sensors' scenes, or a UTM grid of stated pixel size whose
pixel edges lie on multiples of it. Nothing is resampled here: reading a pair warps a window
(`swath.rasters.warp`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from swath.catalog.catalog import Progress, build_catalog, open_catalog
from swath.datasets.pairs.unmatched import _Why
from swath.errors import ImageryError, Problem, suggest
from swath.geo.crs import utm_crs
from swath.geo.grid import PixelGrid, crs_transformer
from swath.geo.transform import window_transform
from swath.rasters.header import SceneHeader
from swath.sensors.registry import get_sensor
from swath.sensors.sensor import Sensor
from swath.sensors.sentinel2_offset import detect_offset_dn

# Pixels by which a chip may stick out of the common ground: the centers of its border pixels still lie
# within, and grids that are shifted by part of a pixel do not lose their first chips.
_EDGE = 0.499


@dataclass(frozen=True, slots=True)
class JoinedPair:
    """One place that both sensors see.

    Attributes:
        id: Names of the two scenes, and where on the grid.
        scenes: The two scenes, in the order of the sensors.
        grid: Where they are to be read.
        overlap: Share of the smaller scene that the other covers.
        days: Days between the two acquisitions; None where a time is unknown.
        footprint: Closed ring of (longitude, latitude).
    """

    id: str
    scenes: tuple[SceneHeader, SceneHeader]
    grid: PixelGrid
    overlap: float
    days: float | None
    footprint: tuple[tuple[float, float], ...]


@dataclass(slots=True)
class PairJoinResult:
    """What `pair_archives` has found.

    Attributes:
        sensors: The two.
        pairs: Places, in the order of the first archive.
        unpaired: (sensor name, path, why) of every scene in no pair.
        offsets: Path of a Sentinel-2 scene -> its offset, where something says it.
    """

    sensors: tuple[Sensor, Sensor]
    pairs: list[JoinedPair] = field(default_factory=list)
    unpaired: list[tuple[str, str, str]] = field(default_factory=list)
    offsets: dict[str, float] = field(default_factory=dict)


def join_catalogs(
    a: str | Path,
    b: str | Path,
    *,
    sensors: Sequence[str | Path | Sensor],
    grid: str | float,
    max_days: float | None = 7.0,
    min_overlap: float = 0.5,
    chip_size: int | None = None,
    all_partners: bool = False,
    patterns: Sequence[str | None] = (None, None),
    workers: int | None = None,
    progress: Progress | None = None,
) -> PairJoinResult:
    """Join two archives.

    Args:
        a: The first sensor's folder, catalog (``.parquet``), STAC file or image.
        b: The second sensor's; may be the same folder.
        sensors: The two sensors.
        grid: Name of one of them, to use its scenes' own grid; or metres per pixel, for UTM.
        max_days: Most days between the acquisitions; None to pass over times.
        min_overlap: Least share of the smaller scene that the other has to cover, above 0.
        chip_size: Cut the common ground into chips of this many pixels of the grid; None makes one place of
            it.
        all_partners: Keep all partners of a scene instead of the nearest in time.
        patterns: Take only files of `a`, of `b`, whose path matches.
        workers: Threads that read headers.
        progress: Called with (scenes joined, scenes in all).

    Raises:
        ImageryError: An archive cannot be read, an option is wrong, or there is no pair at all, and why.
    """
    first, second = (get_sensor(sensor) for sensor in _two(sensors))
    if first.name == second.name:
        raise ImageryError(f"both sensors are {first.name!r}; a pair is of two")
    if isinstance(grid, str) and grid not in (first.name, second.name):
        raise ImageryError(
            f"grid={grid!r}: neither of the sensors and no number of metres."
            f"{suggest(grid, [first.name, second.name])}"
        )
    if not isinstance(grid, str) and not (0 < grid < 1e5):
        raise ImageryError(f"grid={grid}: not a sensible number of metres per pixel")
    if not 0 < min_overlap <= 1:
        raise ImageryError(f"min_overlap={min_overlap}: a share above 0 and up to 1 is wanted")
    if chip_size is not None and chip_size < 1:
        raise ImageryError(f"chip_size={chip_size}: at least 1 pixel is wanted")
    found = PairJoinResult((first, second))
    scenes = []
    problems: list[list[Problem]] = []
    for path, sensor, pattern in ((a, first, patterns[0]), (b, second, patterns[1])):
        good, bad = _scenes(path, sensor, pattern, workers)
        scenes.append(good)
        problems.append(bad)
    for i, sensor in enumerate((first, second)):
        taken = {scene.path for scene in scenes[1 - i]}
        for path, why in problems[i]:
            if path not in taken:  # of the other sensor, in a folder with both: no problem
                found.unpaired.append((sensor.name, path, why))
    join = _Join(found, scenes[0], scenes[1], grid, max_days, min_overlap, chip_size, all_partners)
    join.run(progress)
    return found


def _two(sensors: Sequence[str | Path | Sensor]) -> Sequence[str | Path | Sensor]:
    if isinstance(sensors, str) or len(sensors) != 2:
        raise ImageryError("two sensors are wanted, in the order of the two archives")
    return sensors


def _scenes(
    path: str | Path, sensor: Sensor, pattern: str | None, workers: int | None
) -> tuple[list[SceneHeader], list[Problem]]:
    if Path(path).suffix.lower() in (".parquet", ".geoparquet"):
        return open_catalog(path, sensor=sensor, pattern=pattern)
    catalog = build_catalog(path, sensor=sensor, pattern=pattern, workers=workers)
    return catalog.scenes, catalog.problems


# ---------------------------------------------------------------------------------------------------- joining


class _Join:
    def __init__(
        self,
        found: PairJoinResult,
        a: Sequence[SceneHeader],
        b: Sequence[SceneHeader],
        grid: str | float,
        days: float | None,
        min_overlap: float,
        chip: int | None,
        every: bool,
    ) -> None:
        self.found, self.grid, self.days, self.min_overlap = found, grid, days, min_overlap
        self.chip, self.every = chip, every
        # Whose lattice chips lie on: a place is used once of each of its scenes.
        self.owner = 1 if grid == found.sensors[1].name else 0
        self.scenes = [self._placed(0, a), self._placed(1, b)]
        self.why: list[dict[str, _Why]] = [defaultdict(_Why), defaultdict(_Why)]
        self.paired: list[set[str]] = [set(), set()]
        self._outlines: dict[tuple[str, str], Any] = {}

    def _placed(self, side: int, scenes: Sequence[SceneHeader]) -> list[SceneHeader]:
        name = self.found.sensors[side].name
        for scene in scenes:
            if scene.footprint is None:
                why = "has no georeference, so nobody knows what it shows"
                self.found.unpaired.append((name, scene.path, f"{scene.path}: {why}"))
        return [scene for scene in scenes if scene.footprint is not None]

    def run(self, progress: Progress | None) -> None:
        mine, others = self.scenes[self.owner], self.scenes[1 - self.owner]
        self._check_any()
        for i, (scene, partners) in enumerate(_candidates(mine, others)):
            self._places(scene, partners)
            if progress is not None:
                progress(i + 1, len(mine))
        self._explain()
        if not self.found.pairs:
            raise self._nothing()
        order = {scene.path: i for i, scene in enumerate(self.scenes[0])}
        self.found.pairs.sort(key=lambda pair: (order[pair.scenes[0].path], pair.id))
        for sensor, side in ((self.found.sensors[0], 0), (self.found.sensors[1], 1)):
            if sensor.unit == "reflectance":
                for scene in {
                    pair.scenes[side].path: pair.scenes[side] for pair in self.found.pairs
                }.values():
                    known = detect_offset_dn(tags=scene.tags, path=scene.path)
                    if known is not None:
                        self.found.offsets[scene.path] = known[0]

    def _check_any(self) -> None:
        for sensor, scenes in zip(self.found.sensors, self.scenes, strict=True):
            if not scenes:
                mine = [why for name, _, why in self.found.unpaired if name == sensor.name]
                first = f" The first of {len(mine)} problems: {mine[0]}" if mine else ""
                raise ImageryError(f"no usable scene of {sensor.name}.{first}")

    def _places(self, scene: SceneHeader, partners: Sequence[SceneHeader]) -> None:
        """All places of one scene whose lattice counts, with their partners, the nearest in time first."""
        crs, transform = self._lattice(scene)
        outline = self._outline(scene, crs)
        used: set[tuple[int, int]] = set()
        ranked = sorted(partners, key=lambda other: (_gap(scene, other) is None, _gap(scene, other) or 0.0))
        for other in ranked:
            theirs = self._outline(other, crs)
            common = outline.intersection(theirs)
            fraction = common.area / max(min(outline.area, theirs.area), 1e-300)
            gap = _gap(scene, other)
            both = (self.why[self.owner][scene.path], self.why[1 - self.owner][other.path])
            for why in both:
                why.fraction = max(why.fraction, fraction)
            if fraction < self.min_overlap:
                continue
            if self.days is not None and (gap is None or gap > self.days):
                for why in both:
                    why.no_time |= gap is None
                    if gap is not None:
                        why.gap = gap if why.gap is None else min(why.gap, gap)
                continue
            common = _in_pixels(common, transform)
            boxes = list(_chips(common, self.chip)) if self.chip else [_whole(common)]
            boxes = [box for box in boxes if box[2] > 0 and box[3] > 0]
            fresh = [box for box in boxes if self.every or (box[:2] if self.chip else (0, 0)) not in used]
            for why in both:
                why.small |= not boxes
                why.taken |= bool(boxes) and not fresh
            for column, row, width, height in fresh:
                used.add((column, row) if self.chip else (0, 0))
                grid = PixelGrid(crs, window_transform(transform, column, row), width, height)
                self._add(scene, other, grid, (column, row), fraction, gap)

    def _outline(self, scene: SceneHeader, crs: str) -> Any:
        """A scene's outline as a polygon in a CRS, made once."""
        key = (scene.path, crs)
        if key not in self._outlines:
            self._outlines[key] = scene_outline(scene, crs)
        return self._outlines[key]

    def _lattice(self, scene: SceneHeader) -> tuple[str, Any]:
        assert scene.crs is not None
        assert scene.transform is not None
        if isinstance(self.grid, str):
            return scene.crs, scene.transform
        assert scene.footprint is not None
        lon, lat = np.mean(scene.footprint[:-1], axis=0)
        return utm_crs(float(lon), float(lat)), (self.grid, 0.0, 0.0, 0.0, -self.grid, 0.0)

    def _add(
        self,
        scene: SceneHeader,
        other: SceneHeader,
        grid: PixelGrid,
        at: tuple[int, int],
        fraction: float,
        gap: float | None,
    ) -> None:
        pair = (scene, other) if self.owner == 0 else (other, scene)
        for side, one in enumerate(pair):
            self.paired[side].add(one.path)
        names = [_name(one) for one in pair]
        place = f"{names[0]}+{names[1]}" + (f"@{at[0]},{at[1]}" if self.chip else "")
        self.found.pairs.append(JoinedPair(place, pair, grid, fraction, gap, _ring(grid)))

    # ---- what could not be paired

    def _explain(self) -> None:
        for side, sensor in enumerate(self.found.sensors):
            for scene in self.scenes[side]:
                if scene.path not in self.paired[side]:
                    reason = self._reason(self.why[side].get(scene.path, _Why()), side)
                    self.found.unpaired.append((sensor.name, scene.path, f"{scene.path}: {reason}"))

    def _reason(self, why: _Why, side: int) -> str:
        other = self.found.sensors[1 - side].name
        if why.fraction == 0:
            return f"no scene of {other} overlaps it"
        if why.fraction < self.min_overlap:
            return (
                f"the best scene of {other} has an overlap of {why.fraction:.1%} of the smaller one "
                f"({self.min_overlap:.0%} are wanted: --min-overlap)"
            )
        if why.taken:
            return "every place is paired with a scene that is nearer in time (--all-partners keeps all)"
        if why.small:
            return f"what {other} has in common is smaller than a chip of {self.chip} pixels (--chip-size)"
        if why.gap is not None:
            return f"the nearest scene of {other} is {why.gap:.1f} days apart (--max-days {self.days:g})"
        return f"it, or the scenes of {other} over it, have no acquisition time (--max-days any allows it)"

    def _nothing(self) -> ImageryError:
        first, second = self.found.sensors
        spans = [_span([scene.time for scene in scenes]) for scenes in self.scenes]
        gaps = [why.gap for side in self.why for why in side.values() if why.gap is not None]
        if gaps:
            return ImageryError(
                f"no two scenes that overlap were taken within {self.days:g} days: {first.name} {spans[0]}, "
                f"{second.name} {spans[1]}; the nearest two are {min(gaps):.1f} days apart. Give imagery of "
                f"one period, or allow more: --max-days {int(np.ceil(min(gaps)))}"
            )
        reasons: dict[str, list[str]] = {}
        for _, path, why in self.found.unpaired:
            reasons.setdefault(why.replace(path, "").lstrip(": "), []).append(path)
        listed = "".join(f"\n  {len(paths)} x {why} ({paths[0]})" for why, paths in list(reasons.items())[:5])
        return ImageryError(
            f"no pair of {first.name} ({len(self.scenes[0])} scenes, {spans[0]}) and {second.name} "
            f"({len(self.scenes[1])} scenes, {spans[1]}):{listed}"
        )


def _candidates(
    mine: Sequence[SceneHeader], others: Sequence[SceneHeader]
) -> Iterator[tuple[SceneHeader, list[SceneHeader]]]:
    """For each of my scenes the others whose footprint may overlap; also across the antimeridian."""
    import shapely

    shapes, numbers = [], []
    for number, scene in enumerate(others):
        ring = np.asarray(scene.footprint)
        for turn in (-360.0, 0.0, 360.0):
            moved_ring = ring + np.array([turn, 0.0])
            if turn == 0 or (moved_ring[:, 0].max() > -360 and moved_ring[:, 0].min() < 360):
                shapes.append(shapely.Polygon(moved_ring))
                numbers.append(number)
    tree = shapely.STRtree(shapes)
    polygons = [shapely.Polygon(np.asarray(scene.footprint)) for scene in mine]
    found: dict[int, set[int]] = defaultdict(set)
    for i, j in tree.query(polygons, predicate="intersects").T.tolist():
        found[i].add(numbers[j])
    for i, scene in enumerate(mine):
        yield scene, [others[j] for j in sorted(found[i])]


def scene_outline(scene: SceneHeader, crs: str) -> Any:
    """A scene's outline as a shapely polygon in a CRS; edges are followed in small steps."""
    import shapely

    assert scene.crs is not None
    assert scene.transform is not None
    steps = np.linspace(0, 1, 17)[:-1]
    ends = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=np.float64)
    corners = np.concatenate(
        [p + (q - p) * steps[:, None] for p, q in zip(ends, np.roll(ends, -1, axis=0), strict=True)]
    )
    column, row = corners[:, 0] * scene.width, corners[:, 1] * scene.height
    a, b, c, d, e, f = scene.transform
    x, y = a * column + b * row + c, d * column + e * row + f
    if crs != scene.crs:
        x, y = crs_transformer(scene.crs, crs).transform(x, y)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return shapely.Polygon()  # it reaches to where this CRS is not defined: nothing in common there
    return shapely.Polygon(np.stack([x, y], axis=1)).buffer(0)


def _in_pixels(polygon: Any, transform: Any) -> Any:
    """A polygon of CRS coordinates in pixels of a grid."""
    import shapely

    a, b, c, d, e, f = transform
    area = a * e - b * d

    def to_pixel(xy: Any) -> Any:
        x, y = xy[:, 0] - c, xy[:, 1] - f
        return np.stack([(e * x - b * y) / area, (a * y - d * x) / area], axis=1)

    return shapely.transform(polygon, to_pixel)


def _whole(common: Any) -> tuple[int, int, int, int]:
    """The whole pixels of the common ground's bounding box: column, row, width, height."""
    left, top, right, bottom = common.bounds
    left, top = np.ceil(left - _EDGE), np.ceil(top - _EDGE)
    right, bottom = np.floor(right + _EDGE), np.floor(bottom + _EDGE)
    return int(left), int(top), int(right - left), int(bottom - top)


def _chips(common: Any, chip: int) -> Iterator[tuple[int, int, int, int]]:
    """Chips of the lattice that lie within the common ground."""
    import shapely

    left, top, right, bottom = common.bounds
    columns = np.arange(np.ceil((left - _EDGE) / chip), np.floor((right + _EDGE) / chip)) * chip
    rows = np.arange(np.ceil((top - _EDGE) / chip), np.floor((bottom + _EDGE) / chip)) * chip
    if not len(columns) or not len(rows):
        return
    column, row = (one.ravel() for one in np.meshgrid(columns, rows))
    ground = common.buffer(_EDGE, join_style="mitre")
    shapely.prepare(ground)
    inside = shapely.covers(ground, shapely.box(column, row, column + chip, row + chip))
    for x, y in zip(column[inside].tolist(), row[inside].tolist(), strict=True):
        yield int(x), int(y), chip, chip


def _ring(grid: PixelGrid) -> tuple[tuple[float, float], ...]:
    a, b, c, d, e, f = grid.transform
    corners = ((0, 0), (0, grid.height), (grid.width, grid.height), (grid.width, 0), (0, 0))
    x = [a * i + b * j + c for i, j in corners]
    y = [d * i + e * j + f for i, j in corners]
    lon, lat = crs_transformer(grid.crs, "OGC:CRS84").transform(x, y)
    return tuple((float(p), float(q)) for p, q in zip(lon, lat, strict=True))


def _gap(a: SceneHeader, b: SceneHeader) -> float | None:
    """Days between two scenes."""
    if a.time is None or b.time is None:
        return None
    return abs((a.time - b.time).total_seconds()) / 86400


def _span(times: Sequence[datetime | None]) -> str:
    known = sorted(time for time in times if time is not None)
    if not known:
        return "at unknown times"
    return f"from {known[0]:%Y-%m-%d} to {known[-1]:%Y-%m-%d}"


def _name(scene: SceneHeader) -> str:
    """A short name of a scene: its file, with the folder's name where files have none of their own."""
    path = Path(scene.path)
    name = path.stem if len(scene.files) == 1 else path.name
    return f"{path.parent.name}/{name}" if len(name) < 8 and path.parent.name else name

// Boxes, rings and grids in longitude and latitude. Pure functions; a box is [west, south, east, north] and
// crosses the antimeridian where west > east, as in RFC 7946.

const EARTH_RADIUS = 6371008.8; // metres, mean

/** A longitude within [-180, 180); 180 itself stays. */
export function wrapLongitude(lon) {
  if (lon >= -180 && lon <= 180) return lon;
  return ((((lon + 180) % 360) + 360) % 360) - 180;
}

/** Bounds of a map view, whose longitudes may run on beyond 180, as a box. */
export function viewBox([west, south, east, north]) {
  const [s, n] = [Math.max(-90, south), Math.min(90, north)];
  return east - west >= 360 ? [-180, s, 180, n] : [wrapLongitude(west), s, wrapLongitude(east), n];
}

/** The same box with east >= west, its east perhaps beyond 180: what a map can be fitted to. */
export const unwrapBox = ([w, s, e, n]) => [w, s, e < w ? e + 360 : e, n];

/** What is wrong with four numbers as a box, in words; null where nothing is. */
export function boxProblem([w, s, e, n]) {
  if (![w, s, e, n].every(Number.isFinite)) return "Give all four edges in degrees.";
  if (Math.abs(w) > 180 || Math.abs(e) > 180) return "West and east lie between −180 and 180.";
  if (Math.abs(s) > 90 || Math.abs(n) > 90) return "South and north lie between −90 and 90.";
  if (s >= n) return "South must be less than north.";
  if (w === e) return "West and east are the same.";
  return null;
}

/** A box as a GeoJSON Polygon, or a MultiPolygon of two where it crosses the antimeridian. */
export function boxPolygon(box) {
  const [w, s, e, n] = unwrapBox(box);
  return polygonOf([[w, s], [e, s], [e, n], [w, n]]);
}

/**
 * Corners, in order, as a GeoJSON Polygon, counter-clockwise and closed; cut into a MultiPolygon at the
 * antimeridian. Longitudes go on beyond 180 where the line crosses it. Null with fewer than three corners
 * or no area.
 */
export function polygonOf(corners) {
  let ring = corners.filter((p, i) => i === 0 || p[0] !== corners[i - 1][0] || p[1] !== corners[i - 1][1]);
  if (ring.length > 1 && ring[0][0] === ring.at(-1)[0] && ring[0][1] === ring.at(-1)[1]) ring = ring.slice(0, -1);
  if (ring.length < 3 || signedArea(ring) === 0) return null;
  if (signedArea(ring) < 0) ring = ring.toReversed();
  const lons = ring.map(([lon]) => lon);
  const turn = Math.floor((Math.min(...lons) + 180) / 360) * 360; // of the western end
  ring = ring.map(([lon, lat]) => [lon - turn, Math.max(-90, Math.min(90, lat))]);
  if (Math.max(...lons) - turn <= 180) return { type: "Polygon", coordinates: [closed(ring)] };
  const west = clip(ring, 180, true);
  const east = clip(ring, 180, false).map(([lon, lat]) => [lon - 360, lat]);
  return { type: "MultiPolygon", coordinates: [[closed(west)], [closed(east)]] };
}

const closed = (ring) => [...ring, ring[0]];

const signedArea = (ring) =>
  ring.reduce((sum, [x, y], i) => {
    const [u, v] = ring[(i + 1) % ring.length];
    return sum + x * v - u * y;
  }, 0) / 2;

/** The part of a ring on one side of a meridian (Sutherland and Hodgman). */
function clip(ring, meridian, keepWest) {
  const inside = ([lon]) => (keepWest ? lon <= meridian : lon >= meridian);
  const out = [];
  ring.forEach((point, i) => {
    const next = ring[(i + 1) % ring.length];
    if (inside(point)) out.push(point);
    if (inside(point) !== inside(next)) {
      const t = (meridian - point[0]) / (next[0] - point[0]);
      out.push([meridian, point[1] + t * (next[1] - point[1])]);
    }
  });
  return out;
}

/** The outer rings of a Polygon or MultiPolygon, without their closing corner. */
export function ringsOf(geometry) {
  if (!geometry) return [];
  const polygons = geometry.type === "MultiPolygon" ? geometry.coordinates : [geometry.coordinates];
  return polygons.map(([outer]) => outer.slice(0, -1));
}

/** The box around a Polygon or MultiPolygon; across the antimeridian if its parts meet there. */
export function geometryBox(geometry) {
  const boxes = ringsOf(geometry).map((ring) => {
    const [lons, lats] = [ring.map((p) => p[0]), ring.map((p) => p[1])];
    return [Math.min(...lons), Math.min(...lats), Math.max(...lons), Math.max(...lats)];
  });
  return boxes.length ? unionBox(boxes) : null;
}

/** The smallest box around boxes, the short way round the Earth. */
export function unionBox(boxes) {
  const flat = boxes.map(unwrapBox);
  const south = Math.min(...flat.map((b) => b[1]));
  const north = Math.max(...flat.map((b) => b[3]));
  // Sorted by their western edge, the widest gap between two neighbours is what the union leaves out.
  const sorted = flat.map(([w, , e]) => [w, e]).sort((a, b) => a[0] - b[0]);
  let [reach, gap, after] = [sorted[0][1], -Infinity, 0];
  sorted.forEach(([w, e], i) => {
    if (i > 0 && w - reach > gap) [gap, after] = [w - reach, i];
    reach = Math.max(reach, e);
  });
  const last = sorted[0][0] + 360 - reach; // the gap across the antimeridian
  if (last >= gap) return [sorted[0][0], south, wrapLongitude(reach), north];
  const end = Math.max(...sorted.slice(0, after).map(([, e]) => e));
  return [sorted[after][0], south, wrapLongitude(end), north];
}

/** The middle of a geometry's box. */
export function centerOf(geometry) {
  const [w, s, e, n] = unwrapBox(geometryBox(geometry));
  return [wrapLongitude((w + e) / 2), (s + n) / 2];
}

/** Square metres on the sphere. */
export function areaOf(geometry) {
  const rad = Math.PI / 180;
  return ringsOf(geometry).reduce((total, ring) => {
    const sum = ring.reduce((acc, [lon, lat], i) => {
      const [lon2, lat2] = ring[(i + 1) % ring.length];
      return acc + (lon2 - lon) * rad * (2 + Math.sin(lat * rad) + Math.sin(lat2 * rad));
    }, 0);
    return total + Math.abs((sum * EARTH_RADIUS ** 2) / 2);
  }, 0);
}

/** If a geometry is a box: the box; else null. */
export function asBox(geometry) {
  const box = geometry && geometryBox(geometry);
  if (!box) return null;
  const key = (ring) => ring.map((p) => p.map((v) => v.toFixed(9)).join()).sort().join(" ");
  const rings = (g) => ringsOf(g).map(key).sort().join(" | ");
  return rings(boxPolygon(box)) === rings(geometry) ? box : null;
}

const STEPS = [90, 45, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4];

/** Step of a graticule in degrees, for about `lines` lines over `span` degrees; and its decimals. */
export function graticuleStep(span, lines = 5) {
  const step = STEPS.find((s) => span / s >= lines) ?? STEPS.at(-1);
  return { step, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

/** Multiples of `step` within [from, to]. */
export function ticks(from, to, step) {
  const first = Math.ceil(from / step - 1e-9);
  const count = Math.floor(to / step + 1e-9) - first + 1;
  return Array.from({ length: Math.max(0, count) }, (_, i) => (first + i) * step);
}

/**
 * Gathers points that lie near each other on the screen.
 *
 * points: [{x, y, ...}] in pixels; reach: pixels from a group's first point within which others join it.
 * Returns [{x, y, members}], x and y the mean of the members.
 */
export function gather(points, reach) {
  const cells = new Map(); // of side `reach`: whoever is near has its first point in this cell or one beside it
  const groups = [];
  for (const point of points) {
    const [column, row] = [Math.floor(point.x / reach), Math.floor(point.y / reach)];
    const around = [-1, 0, 1].flatMap((i) => [-1, 0, 1].flatMap((j) => cells.get(`${column + i},${row + j}`) ?? []));
    const near = around.find(([first]) => Math.hypot(first.x - point.x, first.y - point.y) <= reach);
    if (near) near.push(point);
    else {
      const group = [point];
      groups.push(group);
      const key = `${column},${row}`;
      cells.set(key, [...(cells.get(key) ?? []), group]);
    }
  }
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  return groups.map((members) => ({ x: mean(members.map((p) => p.x)), y: mean(members.map((p) => p.y)), members }));
}

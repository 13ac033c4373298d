// The query and the filters, and their form in the address of the page: a search can be shared as a link.
// It is written after the #, which browsers do not send: no proxy logs it and no server limits its length.
// Pure functions. The token and uploaded images are never part of it.

import { asBox, boxPolygon, boxProblem, polygonOf, ringsOf, wrapLongitude } from "./geo.js";

/** @returns {object} A state without a query. */
export const emptyState = () => ({
  like: [], // ids of chips
  unlike: [],
  place: null, // [longitude, latitude]
  area: null, // GeoJSON: search by the chips inside
  filters: { sensors: [], gsd: null, time: null, area: null, minValid: 0 },
  k: 20,
  diverse: false,
  groupByLocation: false,
  view: null, // {lon, lat, zoom}
  compare: null, // {before, after} days
});

/** Whether there is something to search by. */
export const hasQuery = (state) => state.like.length > 0 || state.place !== null || state.area !== null;

/** How many filters are set. */
export function filterCount({ sensors, gsd, time, area, minValid }) {
  return [sensors.length > 0, gsd, time, area, minValid > 0].filter(Boolean).length;
}

const MAX_EXAMPLES = 100; // of either sign; the limit of the server
const GSD_RANGE = [1e-6, 1e7]; // replaces an open end; metres per pixel

/** ["2020-01-01", null] -> "2020-01-01/..", as in a STAC API. */
const interval = (days) => days && days.map((day) => day ?? "..").join("/");

/** The body of POST api/search; the server takes examples, a place or an area, one of the three. */
export function searchBody(state) {
  const { sensors, gsd, time, area, minValid } = state.filters;
  const filters = {};
  if (sensors.length) filters.sensors = sensors;
  if (gsd) filters.gsd = gsd.map((limit, end) => limit ?? GSD_RANGE[end]);
  if (time) filters.datetime = interval(time);
  if (area) filters.intersects = area;
  if (minValid > 0) filters.min_valid = minValid;
  return {
    like: state.like.slice(-MAX_EXAMPLES),
    unlike: state.unlike.slice(-MAX_EXAMPLES),
    place: state.place,
    area: state.area,
    k: state.k,
    filters,
    diverse: state.diverse,
    group_by_location: state.groupByLocation,
  };
}

/** Filters as parameters of GET api/footprints and api/chips, which support one sensor and no area. */
export function filterParams({ sensors, gsd, time }) {
  return {
    sensor: sensors.length === 1 ? sensors[0] : null,
    gsd_min: gsd?.[0],
    gsd_max: gsd?.[1],
    datetime: interval(time),
  };
}

/** State -> "like=a&like=b&gsd=1..10&at=..." without the #. */
export function toFragment(state) {
  const out = new URLSearchParams();
  state.like.forEach((id) => out.append("like", id));
  state.unlike.forEach((id) => out.append("unlike", id));
  if (state.place) out.set("place", state.place.map(degrees).join());
  if (state.area) out.set("there", areaText(state.area));
  const { sensors, gsd, time, area, minValid } = state.filters;
  sensors.forEach((name) => out.append("sensor", name));
  if (gsd) out.set("gsd", range(gsd));
  if (time) out.set("time", range(time));
  if (area) out.set("within", areaText(area));
  if (minValid > 0) out.set("valid", String(minValid));
  if (state.k !== 20) out.set("k", String(state.k));
  if (state.diverse) out.set("diverse", "1");
  if (state.groupByLocation) out.set("places", "1");
  if (state.compare) out.set("compare", range([state.compare.before, state.compare.after]));
  const { view } = state;
  if (view) out.set("at", [degrees(view.lon), degrees(view.lat), Number(view.zoom.toFixed(2))].join());
  return out.toString().replaceAll("%2C", ",").replaceAll("%3B", ";");
}

/**
 * The state of an address. Parameters that cannot be read are ignored and listed in `problems`.
 *
 * @returns {{state: object, problems: string[]}}
 */
export function fromFragment(fragment) {
  const params = new URLSearchParams(fragment);
  const state = emptyState();
  const problems = [];
  const read = (key, make) => {
    const text = params.get(key);
    if (text === null) return null;
    const value = make(text);
    if (value === null) problems.push(`${key}=${text}`);
    return value;
  };
  state.like = params.getAll("like").filter(Boolean);
  state.unlike = params.getAll("unlike").filter(Boolean);
  state.place = read("place", (text) => position(text));
  state.area = read("there", areaOfText);
  state.filters = {
    sensors: params.getAll("sensor").filter(Boolean),
    gsd: read("gsd", (text) => rangeOf(text, numberOrNull)),
    time: read("time", (text) => rangeOf(text, dayOrNull)),
    area: read("within", areaOfText),
    minValid: read("valid", (text) => within(Number(text), 0, 1)) ?? 0,
  };
  state.k = read("k", (text) => (/^\d+$/.test(text) && Number(text) > 0 ? Number(text) : null)) ?? 20;
  state.diverse = params.get("diverse") === "1";
  state.groupByLocation = params.get("places") === "1";
  const days = read("compare", (text) => rangeOf(text, dayOrNull));
  state.compare = days?.every(Boolean) ? { before: days[0], after: days[1] } : null;
  state.view = read("at", (text) => {
    const [lon, lat, zoom] = text.split(",").map(Number);
    const sound = within(lat, -90, 90) !== null && Number.isFinite(lon) && within(zoom, 0, 24) !== null;
    return sound ? { lon: wrapLongitude(lon), lat, zoom } : null;
  });
  return { state, problems };
}

const degrees = (value) => Number(value.toFixed(6));
const within = (value, low, high) => (Number.isFinite(value) && value >= low && value <= high ? value : null);
const numberOrNull = (text) => (text !== "" && Number(text) > 0 ? Number(text) : undefined);
const dayOrNull = (text) => (/^\d{4}-\d{2}-\d{2}$/.test(text) && !Number.isNaN(Date.parse(text)) ? text : undefined);

/** [1, null] -> "1..". */
const range = ([low, high]) => `${low ?? ""}..${high ?? ""}`;

function rangeOf(text, one) {
  const parts = text.split("..");
  if (parts.length !== 2) return null;
  const ends = parts.map((part) => (part === "" ? null : one(part)));
  if (ends.includes(undefined) || ends.every((end) => end === null)) return null;
  return ends[0] !== null && ends[1] !== null && ends[0] > ends[1] ? null : ends;
}

function position(text) {
  const [lon, lat, ...more] = text.split(",").map(Number);
  const sound = within(lon, -180, 180) !== null && within(lat, -90, 90) !== null && more.length === 0;
  return sound ? [lon, lat] : null;
}

/** A box as "w,s,e,n"; other outlines as corners "lon,lat;lon,lat;...", rings separated by "!". */
function areaText(geometry) {
  const box = asBox(geometry);
  if (box) return box.map(degrees).join();
  return ringsOf(geometry).map((ring) => ring.map((point) => point.map(degrees).join()).join(";")).join("!");
}

function areaOfText(text) {
  if (!text.includes(";")) {
    const box = text.split(",").map(Number);
    return box.length === 4 && boxProblem(box) === null ? boxPolygon(box) : null;
  }
  const polygons = text.split("!").map((ring) => {
    const corners = ring.split(";").map((pair) => pair.split(",").map(Number));
    const sound = corners.every((c) => c.length === 2 && c.every(Number.isFinite) && Math.abs(c[1]) <= 90);
    return sound ? polygonOf(corners) : null;
  });
  if (polygons.some((polygon) => polygon?.type !== "Polygon")) return polygons.length === 1 ? polygons[0] : null;
  if (polygons.length === 1) return polygons[0];
  return { type: "MultiPolygon", coordinates: polygons.map((polygon) => polygon.coordinates) };
}

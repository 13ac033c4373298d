// The map: coast, graticule, the archive's own imagery, footprints, results. Nothing is loaded from other hosts.

import * as maplibre from "../vendor/maplibre/maplibre-gl.mjs";
import { byId, cssToken, debounce, h, reducedMotion } from "./dom.js";
import { formatCount, formatLat, formatLon, formatLonLat, plural } from "./format.js";
import { centerOf, gather, geometryBox, graticuleStep, ticks, unionBox, unwrapBox, viewBox } from "./geo.js";
import { filterParams } from "./state.js";

const LIMIT = 2000; // footprints per request
const CELL = 44; // pixels: footprints closer than this are grouped while they are too small to see
const APART = 19; // pixels: points of results closer than this would overlap
const VISIBLE = 9; // pixels: a footprint narrower than this is too small to see
const NOTHING = { type: "FeatureCollection", features: [] };
const FONT = ["system-ui", "sans-serif"];

export const collection = (features) => ({ type: "FeatureCollection", features });
const feature = (geometry, properties = {}, id = undefined) => ({ type: "Feature", id, geometry, properties });
const point = (coordinates, properties) => feature({ type: "Point", coordinates }, properties);

/** Paint from the style sheet's custom properties, so that both color schemes are defined in one place. */
const paints = () => [
  ["sea", "background-color", ["interpolate", ["linear"], ["zoom"], 6, cssToken("sea"), 8, cssToken("land")]],
  ["land", "fill-color", cssToken("land")],
  ["coast", "line-color", cssToken("coast")],
  ["graticule", "line-color", cssToken("graticule")],
  ["footprints-fill", "fill-color", cssToken("footprint")],
  ["footprints", "line-color", cssToken("footprint")],
  ["groups", "circle-color", cssToken("sheet")],
  ["groups", "circle-stroke-color", cssToken("footprint")],
  ["groups-count", "text-color", cssToken("ink")],
  ["changes", "fill-color", ["interpolate", ["linear"], ["get", "fraction"], 0, cssToken("change-low"), 1, cssToken("change-high")]],
  ["changes-halo", "line-color", cssToken("sheet")],
  ["changes-line", "line-color", cssToken("change-high")],
  ["area", "line-color", cssToken("ink")],
  ["area-halo", "line-color", cssToken("sheet")],
  ["results-halo", "line-color", cssToken("sheet")],
  ["results", "line-color", cssToken("accent")],
  ["results-fill", "fill-color", cssToken("accent")],
  ["result-points", "circle-color", cssToken("accent")],
  ["result-points", "circle-stroke-color", cssToken("sheet")],
  ["ranks", "text-color", cssToken("on-accent")],
  ["examples", "line-color", cssToken("ink")],
  ["examples-halo", "line-color", cssToken("sheet")],
  ["draft", "line-color", cssToken("accent")],
  ["draft-fill", "fill-color", cssToken("accent")],
];

/** The base style: sea, land, imagery. The second map of a comparison has only these. */
export function baseStyle(tiles, bounds, maxzoom) {
  const sources = {
    land: { type: "geojson", data: new URL("page/land.json", document.baseURI).href },
    imagery: { type: "raster", tiles: [tiles], tileSize: 256, maxzoom, ...(bounds ? { bounds } : {}) },
  };
  // The coastline is coarse (1:110 million) and wrong at close range, so it fades out.
  const fade = (full) => ["interpolate", ["linear"], ["zoom"], 6, full, 8, 0];
  const layers = [
    { id: "sea", type: "background" },
    { id: "land", type: "fill", source: "land", paint: { "fill-opacity": fade(1), "fill-antialias": false } },
    { id: "coast", type: "line", source: "land", paint: { "line-width": 0.75, "line-opacity": fade(1) } },
    { id: "imagery", type: "raster", source: "imagery", layout: { visibility: "none" }, paint: { "raster-fade-duration": reducedMotion() ? 0 : 200, "raster-resampling": "linear" } },
  ];
  return { version: 8, sources, layers };
}

const byFraction = (low, high) => ["interpolate", ["linear"], ["get", "fraction"], 0, low, 1, high];

/** Changes above the imagery of both dates, stronger color for larger changes. */
export const changeLayers = () => [
  { id: "changes", type: "fill", source: "changes", paint: { "fill-opacity": byFraction(0.05, 0.55) } },
  { id: "changes-halo", type: "line", source: "changes", paint: { "line-width": 4.5, "line-opacity": byFraction(0.35, 0.9) } },
  { id: "changes-line", type: "line", source: "changes", layout: { "line-join": "round" }, paint: { "line-width": 2, "line-opacity": byFraction(0.4, 1) } },
];

/** Changes of the server's response, each with its score scaled to 0 to 1. */
export function changeFeatures(features) {
  const scores = features.map((f) => f.properties.score);
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  return features.map((f) => feature(f.geometry, { ...f.properties, fraction: high > low ? (f.properties.score - low) / (high - low) : 1 }));
}

/** A style with the current colors filled in. */
export function painted(style) {
  const layers = new Map(style.layers.map((layer) => [layer.id, layer]));
  for (const [id, property, value] of paints()) if (layers.has(id)) (layers.get(id).paint ??= {})[property] = value;
  return style;
}

/** Updates the colors of an existing map when the color scheme changes. */
export const repaint = (map) => {
  for (const [layer, property, value] of paints()) if (map.getLayer(layer)) map.setPaintProperty(layer, property, value);
};

export const requests = (api) => (url) => ({ url, headers: url.startsWith(api.base.href) ? api.headers : {} });

export class ChipMap {
  /**
   * app: {api, archive, state, relative, examples: {searchPlace(lonlat)}, pick(id), hover(chip|null), onViewChange(view), report(text)}
   */
  constructor(app) {
    this.app = app;
    this.finest = app.relative || !app.archive.gsd ? 21 : Math.min(22, Math.max(6, Math.ceil(Math.log2(156543 / app.archive.gsd[0])) + 1));
    this.results = [];
    const { archive, state } = app;
    const start = state.view
      ? { center: [state.view.lon, state.view.lat], zoom: state.view.zoom }
      : { bounds: archive.bounds ? unwrapBox(archive.bounds) : [-180, -60, 180, 75], fitBoundsOptions: { padding: this.padding(), maxZoom: this.finest } };
    this.map = new maplibre.Map({
      container: "map", style: painted(this.#style()), ...start, attributionControl: false, maxZoom: 23, dragRotate: false, pitchWithRotate: false,
      touchPitch: false, renderWorldCopies: true, fadeDuration: reducedMotion() ? 0 : 150, transformRequest: requests(app.api),
      canvasContextAttributes: { preserveDrawingBuffer: false },
    });
    this.map.touchZoomRotate.disableRotation();
    this.map.keyboard.disableRotation();
    this.map.addControl(new maplibre.ScaleControl({ maxWidth: 96 }), "bottom-left");
    this.ready = new Promise((resolve) => this.map.once("load", resolve));
    this.ready.then(() => this.#listen());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => repaint(this.map));
    // Errors of single tiles go to the console only.
    this.map.on("error", ({ error }) => console.debug(error?.message));
  }

  /** Pixels of the map that the sheet of a small screen covers. */
  padding() {
    const sheet = matchMedia("(width < 720px)").matches ? byId("panels").offsetHeight : 0;
    return { top: 56, left: 72, right: 64, bottom: 48 + sheet };
  }

  fit(boxes, maxZoom = this.finest) {
    if (boxes.length) this.map.fitBounds(unwrapBox(unionBox(boxes)), { padding: this.padding(), maxZoom, animate: !reducedMotion(), duration: 700 });
  }

  /** URL template of the imagery that matches the filters, or of one day. */
  tiles(day = null) {
    const { sensor, datetime } = filterParams(this.app.state.filters);
    return this.app.api.tiles({ sensor, datetime: day ?? datetime });
  }

  setDay(day) {
    // A comparison of two dates is shown without footprints.
    for (const id of ["footprints", "footprints-fill"]) this.map.setLayoutProperty(id, "visibility", day ? "none" : "visible");
    this.map.getSource("imagery").setTiles([this.tiles(day)]);
  }

  setImagery(on) {
    this.imageryOn = on;
    this.#showImagery();
  }

  async refresh() {
    await this.ready;
    const bounds = this.map.getBounds().toArray().flat();
    this.request?.abort();
    this.request = new AbortController();
    let response;
    try {
      const bbox = viewBox(bounds).map((v) => Number(v.toFixed(6))).join();
      response = await this.app.api.get("footprints", { bbox, limit: LIMIT, ...filterParams(this.app.state.filters) }, this.request.signal);
    } catch (error) {
      if (error.name !== "AbortError") this.#note(error.detail ?? String(error));
      return;
    }
    const chosen = this.app.state.filters.sensors;
    this.footprints = response.features.filter((f) => f.geometry && (chosen.length < 2 || chosen.includes(f.properties.sensor)));
    this.truncated = response.truncated;
    this.#showFootprints(response.total / Math.max(1, response.features.length));
    if (response.truncated) this.#note(`${formatCount(response.features.length)} of ${formatCount(response.total)} footprints in view. Zoom in to see all.`);
    else if (!response.total) this.#note("No footprints in view");
    else this.#note(null);
    this.app.report(plural(response.total, "footprint") + " in view");
  }

  /** Days of the chips in view, oldest first; with `here` only of chips at the center of the map. */
  days(here = false) {
    const { lng, lat } = this.map.getCenter().wrap();
    const below = ([w, s, e, n]) => s <= lat && lat <= n && (w <= e ? w <= lng && lng <= e : lng >= w || lng <= e);
    const seen = (this.footprints ?? []).filter((f) => !here || below(f.properties.bbox ?? geometryBox(f.geometry)));
    return [...new Set(seen.map((f) => f.properties.time?.slice(0, 10)).filter(Boolean))].sort();
  }

  showResults(results) {
    this.results = results.filter((chip) => chip.geometry);
    const shapes = this.results.map((chip, i) => feature(chip.geometry, { chip: chip.id, rank: chip.rank }, i + 1));
    this.#set("results", shapes);
    this.#showRanks();
  }

  /** A numbered point on each result; of overlapping ones only the best, with a plus sign. */
  #showRanks() {
    const points = this.results.map((chip) => ({ ...this.map.project(centerOf(chip.geometry)), chip }));
    const best = gather(points, APART).map(({ members: [{ chip }, ...more] }) =>
      point(centerOf(chip.geometry), { chip: chip.id, text: `${chip.rank}${more.length ? "+" : ""}` }));
    this.#set("result-points", best.reverse());
  }

  showExamples(geometries) {
    this.#set("examples", geometries.filter(Boolean).map((geometry) => feature(geometry)));
  }

  showArea(geometry) {
    this.#set("area", geometry ? [feature(geometry)] : []);
  }

  showDraft(geometry) {
    this.#set("draft", geometry ? [feature(geometry)] : []);
  }

  showChanges(changed) {
    this.#set("changes", changed);
  }

  /** Highlights a result. */
  highlight(id) {
    this.ready.then(() => {
      const i = this.results.findIndex((chip) => chip.id === id);
      this.map.removeFeatureState({ source: "results" });
      if (i >= 0) this.map.setFeatureState({ source: "results", id: i + 1 }, { highlighted: true });
    });
  }

  #set(source, features) {
    this.ready.then(() => this.map.getSource(source).setData(collection(features)));
  }

  #style() {
    const style = baseStyle(this.tiles(), null, this.finest);
    const empty = () => ({ type: "geojson", data: NOTHING });
    for (const name of ["graticule", "footprints", "groups", "changes", "area", "examples", "results", "result-points", "draft"]) style.sources[name] = empty();
    const line = (id, width, more = {}, source = id.split("-")[0]) => ({ id, type: "line", source, layout: { "line-join": "round" }, paint: { "line-width": width, ...more } });
    const highlighted = (yes, no) => ["case", ["boolean", ["feature-state", "highlighted"], false], yes, no];
    style.layers.splice(3, 0, line("graticule", 0.75));
    style.layers.push(
      { id: "footprints-fill", type: "fill", source: "footprints", paint: { "fill-opacity": 0.04 } },
      line("footprints", 0.75, { "line-opacity": 0.6 }),
      ...changeLayers(),
      line("area-halo", 4), line("area", 1.75, { "line-dasharray": [3, 2] }),
      line("examples-halo", 6), line("examples", 3),
      { id: "results-fill", type: "fill", source: "results", paint: { "fill-opacity": highlighted(0.4, 0.12) } },
      line("results-halo", highlighted(7, 4.5)), line("results", highlighted(4, 2.25)),
      { id: "groups", type: "circle", source: "groups", paint: { "circle-radius": ["interpolate", ["linear"], ["log10", ["get", "count"]], 0, 5, 1, 11, 3, 17, 5, 24], "circle-stroke-width": 1.25, "circle-opacity": 0.92 } },
      { id: "groups-count", type: "symbol", source: "groups", filter: [">", ["get", "count"], 1], layout: { "text-field": ["get", "text"], "text-size": 11, "text-font": FONT, "text-allow-overlap": true, "text-ignore-placement": true } },
      { id: "result-points", type: "circle", source: "result-points", paint: { "circle-radius": ["interpolate", ["linear"], ["length", ["get", "text"]], 2, 9, 4, 14], "circle-stroke-width": 1.5 } },
      { id: "ranks", type: "symbol", source: "result-points", layout: { "text-field": ["get", "text"], "text-size": 11, "text-font": FONT, "text-allow-overlap": true, "text-ignore-placement": true } },
      { id: "draft-fill", type: "fill", source: "draft", filter: ["==", ["geometry-type"], "Polygon"], paint: { "fill-opacity": 0.12 } },
      line("draft", 2),
    );
    return style;
  }

  #listen() {
    const { map, app } = this;
    const canvas = map.getCanvas();
    canvas.setAttribute("aria-label", "Map. Arrows move, plus and minus zoom, Enter searches by the place at the center.");
    canvas.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.#activateAt(map.project(map.getCenter()));
    });
    canvas.addEventListener("focus", () => byId("map-part").classList.toggle("aimed", canvas.matches(":focus-visible")));
    canvas.addEventListener("blur", () => byId("map-part").classList.remove("aimed"));
    const refresh = debounce(() => this.refresh(), 120);
    map.on("moveend", () => {
      const { lng, lat } = map.getCenter().wrap();
      app.onViewChange({ lon: lng, lat, zoom: map.getZoom() });
      this.#showRanks();
      refresh();
    });
    map.on("move", () => this.#graticule());
    map.on("resize", () => this.#graticule());
    map.on("click", (event) => this.#activateAt(event.point));
    map.on("mousemove", (event) => {
      byId("reading").textContent = formatLonLat(event.lngLat.toArray(), graticuleStep(map.getBounds().getEast() - map.getBounds().getWest()).digits + 2);
      const [hit] = this.#hits(event.point, ["result-points", "results-fill", "groups", "footprints-fill"]);
      canvas.style.cursor = hit ? "pointer" : "";
      const id = hit?.source.startsWith("result") ? hit.properties.chip : null;
      if (id !== this.pointed) app.hover(this.results.find((chip) => chip.id === (this.pointed = id)) ?? null);
    });
    map.on("mouseout", () => (byId("reading").textContent = ""));
    this.#graticule();
    this.refresh();
  }

  #hits(at, layers) {
    return this.map.queryRenderedFeatures(at, { layers: layers.filter((id) => this.map.getLayoutProperty(id, "visibility") !== "none") });
  }

  /** Handles a click or Enter at a point of the screen. */
  #activateAt(at) {
    const [hit] = this.#hits(at, ["result-points", "results-fill", "groups"]);
    if (hit?.layer.id === "groups") this.fit([JSON.parse(hit.properties.box)]);
    else if (hit) this.app.pick(hit.properties.chip);
    else if (this.truncated || this.#hits(at, ["footprints-fill"]).length) this.app.examples.searchPlace(this.map.unproject(at).wrap().toArray());
    else this.app.report("There are no chips at this place.", true);
  }

  #showFootprints(weight) {
    const { map } = this;
    const boxes = this.footprints.map((f) => unwrapBox(f.properties.bbox ?? geometryBox(f.geometry)));
    const perDegree = (512 * 2 ** map.getZoom()) / 360;
    const widths = boxes.map(([w, , e]) => (e - w) * perDegree).sort((a, b) => a - b);
    this.seen = widths.length > 0 && widths[Math.floor(widths.length / 2)] >= VISIBLE;
    const points = boxes.map(([w, s, e, n]) => ({ ...map.project([(w + e) / 2, (s + n) / 2]), box: [w, s, e, n] }));
    const groups = this.seen ? [] : gather(points.map(({ x, y, box }) => ({ x, y, box })), CELL);
    map.getSource("footprints").setData(this.seen ? collection(this.footprints.map((f) => feature(f.geometry, { chip: f.properties.id }))) : NOTHING);
    map.getSource("groups").setData(collection(groups.map(({ x, y, members }) => {
      const count = Math.round(members.length * weight);
      return point(map.unproject([x, y]).toArray(), { count, text: formatCount(count), box: JSON.stringify(unionBox(members.map((m) => m.box))) });
    })));
    for (const id of ["result-points", "ranks"]) map.setLayoutProperty(id, "visibility", widths.length && this.seen && widths[0] > 48 ? "none" : "visible");
    this.#showImagery();
  }

  /** Shows imagery only when zoomed in: tiles of a whole continent would have to read every file. */
  #showImagery() {
    const on = this.imageryOn !== false && this.seen;
    this.map.setLayoutProperty("imagery", "visibility", on ? "visible" : "none");
    this.map.setPaintProperty("footprints", "line-opacity", on ? 0.3 : 0.6);
  }

  #note(text) {
    byId("map-note").hidden = !text;
    byId("map-note").textContent = text ?? "";
  }

  /** Meridians and parallels, with their degrees along the edges. */
  #graticule() {
    const { map } = this;
    const [[w, s], [e, n]] = map.getBounds().toArray();
    const { clientWidth: width, clientHeight: height } = map.getCanvas();
    const lon = graticuleStep(e - w, Math.max(2, width / 180));
    const lat = graticuleStep(n - s, Math.max(2, height / 180));
    const [lons, lats] = [ticks(w, e, lon.step), ticks(s, n, lat.step)];
    map.getSource("graticule").setData(collection([
      ...lons.map((x) => feature({ type: "LineString", coordinates: [[x, s], [x, n]] })),
      ...lats.map((y) => feature({ type: "LineString", coordinates: [[w, y], [e, y]] })),
    ]));
    const label = (text, kind, at) => {
      const tick = h(`span.tick.${kind}`, {}, text);
      tick.style[kind === "lon" ? "left" : "top"] = `${at}px`;
      return tick;
    };
    const mid = (n + s) / 2;
    byId("ticks").replaceChildren(
      ...lons.map((x) => [map.project([x, mid]).x, x]).filter(([at]) => at > 56 && at < width - 72)
        .map(([at, x]) => label(formatLon(((((x + 180) % 360) + 360) % 360) - 180, lon.digits), "lon", at)),
      ...lats.map((y) => [map.project([w, y]).y, y]).filter(([at]) => at > 32 && at < height - this.padding().bottom - 8)
        .map(([at, y]) => label(formatLat(y, lat.digits), "lat", at)));
  }
}

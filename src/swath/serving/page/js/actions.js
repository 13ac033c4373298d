// What the tools of the page do: drawing, comparing, saving, sharing; by button, by key, and by dropped files.

import { byId, h, icon, toast } from "./dom.js";
import { draw } from "./draw.js";
import { plural } from "./format.js";
import { searchBody } from "./state.js";

export const compareTool = () => byId("tool-compare");

/** The groups of buttons over the map. */
export function mapTools(app) {
  const { map } = app.chips;
  const tool = (id, symbol, text, onclick, pressed) => h("button", { type: "button", id, title: text, "aria-label": text, "aria-pressed": pressed, onclick }, icon(symbol));
  const imagery = tool("tool-imagery", "layers", "Imagery", () => {
    const on = imagery.getAttribute("aria-pressed") !== "true";
    imagery.setAttribute("aria-pressed", String(on));
    app.chips.setImagery(on);
  }, "true");
  const groups = [
    [tool("zoom-in", "plus", "Zoom in", () => map.zoomIn()), tool("zoom-out", "minus", "Zoom out", () => map.zoomOut()), tool("tool-all", "fit", "Zoom to the whole archive", () => app.archive.bounds && app.chips.fit([app.archive.bounds]))],
    [imagery],
    [tool("tool-box", "box", "Draw a rectangle (R)", () => drawArea(app, "box")), tool("tool-outline", "outline", "Draw a polygon (P)", () => drawArea(app, "outline"))],
    app.archive.time ? [tool("tool-compare", "swipe", "Compare two dates (C)", () => toggleComparison(app), "false")] : [],
  ];
  return groups.filter((group) => group.length).map((group) => h("div.tool-group", {}, group));
}

export async function drawArea(app, kind) {
  if (!app.chips) return;
  app.drawing?.stop();
  app.sheet.set("low");
  app.drawing = draw(app.chips, kind);
  const area = await app.drawing.done;
  app.drawing = null;
  if (!area) return;
  app.state.filters.area = area;
  byId("filters-box").open = true;
  app.filters.render();
  app.sheet.raise();
  app.onFilterChange();
}

export async function toggleComparison(app) {
  if (app.compare.open) return app.compare.stop();
  if (!app.chips.footprints) await app.chips.refresh(); // their days are offered
  if (app.compare.start()) {
    app.onCompareChange();
    app.sheet.set("low");
  } else toast("All chips in view are from one day. Zoom out or widen the time filter.");
}

export function exportGeoJson({ archive, examples, response, state }) {
  if (!response?.results.length) return;
  const features = response.results.map(({ geometry, bbox, ...properties }) => ({ type: "Feature", id: properties.id, ...(bbox ? { bbox } : {}), geometry, properties }));
  const query = { ...searchBody(state), ...(examples.image ? { image: examples.image.name } : {}) };
  const about = { archive: archive.name, archive_version: archive.version, model_id: archive.model_id, query, saved: response.time.toISOString() };
  const blob = new Blob([JSON.stringify({ type: "FeatureCollection", features, swath: about })], { type: "application/geo+json" });
  const link = h("a", { href: URL.createObjectURL(blob), download: `${archive.name}-results.geojson` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  toast(`${plural(features.length, "result")} saved as ${link.download}`);
}

export async function shareLink({ examples }) {
  const copied = await navigator.clipboard?.writeText(window.location.href).then(() => true, () => false);
  const image = examples.image ? " It does not include the uploaded image." : "";
  toast(copied ? `Link copied.${image}` : `Copy the link from the address bar.${image}`);
}

/** Searches by an image that is dropped or pasted anywhere on the page. */
export function listenForFiles({ examples }) {
  let depth = 0; // dragenter and dragleave fire for every element below the pointer
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const showTarget = (on) => (byId("drop").hidden = !on);
  document.addEventListener("dragenter", (event) => hasFiles(event) && showTarget(++depth > 0));
  document.addEventListener("dragleave", (event) => hasFiles(event) && showTarget(--depth > 0));
  document.addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    showTarget((depth = 0) > 0);
    if (event.dataTransfer.files[0]) examples.upload(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (file) examples.upload(file);
  });
}

export function listenForKeys(app) {
  const actions = {
    "?": () => byId("help").showModal(),
    "/": () => app.archive.capabilities.image && app.query.choose(),
    f: () => {
      const box = byId("filters-box");
      box.open = true;
      app.sheet.raise();
      box.querySelector("summary").focus();
    },
    m: () => app.chips?.map.getCanvas().focus({ focusVisible: true }),
    a: () => (app.gallery.list.querySelector(".frame") ?? byId("results")).focus(),
    s: () => app.examples.refine(),
    r: () => drawArea(app, "box"),
    p: () => drawArea(app, "outline"),
    c: () => app.chips && app.archive.time && toggleComparison(app),
    e: () => exportGeoJson(app),
  };
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (app.drawing) app.drawing.stop();
      else app.compare?.stop();
      return;
    }
    const action = event.target.closest("input, select, textarea") ? null : actions[event.key.toLowerCase()];
    if (!action) return;
    action();
    event.preventDefault();
  });
}

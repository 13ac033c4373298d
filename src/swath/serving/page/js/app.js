// The page: its state, the current results, and the panels that show them.

import { compareTool, drawArea, exportGeoJson, listenForFiles, listenForKeys, mapTools, shareLink, toggleComparison } from "./actions.js";
import { Api, ApiError, takeToken } from "./api.js";
import { announce, byId, debounce, h, icon, reducedMotion, toast } from "./dom.js";
import { Examples } from "./examples.js";
import { FilterPanel } from "./filters.js";
import { formatCount, formatGsd, formatYears, plural } from "./format.js";
import { Detail, Gallery } from "./gallery.js";
import { fillHelp } from "./help.js";
import { QueryPanel } from "./query.js";
import { Sheet } from "./sheet.js";
import { filterParams, fromFragment, hasQuery, searchBody, toFragment } from "./state.js";

const SAMPLE = { map: 24, gallery: 60 }; // chips shown while there is no query

class App {
  constructor(archive, api) {
    this.api = api;
    this.archive = archive;
    this.relative = archive.gsd_mode === "relative";
    this.chipsById = new Map(); // chips received so far
    this.response = null; // {results, query, time} of the last search
    const { state, problems } = fromFragment(window.location.hash.slice(1));
    this.state = state;
    this.ignoredParameters = problems;
    state.k = Math.min(state.k, archive.limits?.k ?? state.k);
    this.examples = new Examples(this);
  }

  async start() {
    const { archive } = this;
    document.body.dataset.layout = archive.with_footprint ? "map" : "gallery";
    document.title = `${archive.name} · Swath`;
    byId("title").textContent = archive.name;
    byId("facts").textContent = [
      plural(archive.rows, "chip"),
      archive.sensors.length > 2 ? plural(archive.sensors.length, "sensor") : archive.sensors.map((s) => s.name).join(", "),
      archive.gsd && !this.relative ? [...new Set(archive.gsd.map((gsd) => formatGsd(gsd)))].join(" – ") : null,
      archive.time ? formatYears(archive.time) : null,
      archive.model_id,
    ].filter(Boolean).join(" · ");
    byId("facts").title = byId("facts").textContent;
    this.sheet = new Sheet();
    this.gallery = new Gallery(this);
    this.query = new QueryPanel(this);
    this.filters = new FilterPanel(this);
    this.detail = new Detail(this);
    fillHelp(archive.with_footprint > 0);
    this.#resultTools();
    byId("share").addEventListener("click", () => shareLink(this));
    byId("help-open").addEventListener("click", () => byId("help").showModal());
    window.addEventListener("popstate", () => this.#restore());
    listenForKeys(this);
    listenForFiles(this);
    if (archive.with_footprint) await this.#startMap();
    this.query.render();
    if (this.ignoredParameters.length) toast(`Ignored unknown link parameters: ${this.ignoredParameters.join(", ")}.`);
    await this.run();
  }

  // ------------------------------------------------------------------------------------------ searching

  /** Searches by the state, or shows a sample without a query; a newer search cancels an older one. */
  async run() {
    this.running?.abort();
    const current = (this.running = new AbortController());
    this.gallery.wait();
    this.query.render();
    this.chips?.showArea(this.state.filters.area);
    try {
      if (hasQuery(this.state) || this.examples.image) {
        byId("results-facts").textContent = "Searching …";
        const response = await this.#search(current.signal);
        if (current === this.running) this.#showResults(response);
      } else {
        const params = { limit: SAMPLE[document.body.dataset.layout], ...filterParams(this.state.filters) };
        const { chips, total } = await this.api.get("chips", params, current.signal);
        if (current === this.running) this.#showSample(chips, total);
      }
    } catch (error) {
      if (error.name !== "AbortError" && current === this.running) this.showError(error);
    }
  }

  #search(signal) {
    const body = searchBody(this.state);
    if (!this.examples.image) return this.api.post("search", body, signal);
    const { file, sensor, gsd } = this.examples.image;
    const form = new FormData();
    form.append("file", file);
    form.append("options", JSON.stringify({ ...body, place: undefined, area: undefined, sensor, gsd }));
    return this.api.post("search/image", form, signal);
  }

  #showResults({ results, k, returned, notes, took_ms: took, query }) {
    this.response = { results, query, time: new Date() };
    this.examples.used = this.state.like.length ? [] : (query?.like ?? []);
    this.#remember(results);
    byId("results-title").textContent = "Results";
    byId("results-facts").textContent = `${returned < k ? `${returned} of ${k} requested` : plural(returned, "chip")} of ${formatCount(this.archive.rows)}${took == null ? "" : ` · ${Math.max(1, Math.round(took))} ms`}`;
    const explanations = notes.map((note) => (/^cent(red|ered):/.test(note) ? "Each sensor's mean is subtracted, so that scores compare across sensors." : note));
    if (!results.length) explanations.unshift("No chips match these filters. Widen them or start over.");
    else if (returned < k && !explanations.length) explanations.push(`Only ${plural(returned, "chip")} match the filters.`);
    this.#fill(results, explanations);
    announce(results.length ? `${plural(returned, "result")}.` : "No results.");
    this.query.render();
    this.chips?.showResults(results);
    this.#outlineExamples();
    this.sheet.raise();
    // Where query and results share one column, scroll the results into view.
    const { panels } = this.sheet;
    if (panels.scrollHeight > panels.clientHeight) byId("results").scrollIntoView({ block: "start", behavior: reducedMotion() ? "auto" : "smooth" });
  }

  #showSample(chips, total) {
    this.response = null;
    this.examples.used = [];
    this.#remember(chips);
    byId("results-title").textContent = "Browse the archive";
    byId("results-facts").textContent = total ? `${formatCount(chips.length)} of ${plural(total, "chip")}` : "";
    this.#fill(chips, total ? [] : ["No chips match the filters."]);
    this.chips?.showResults([]);
    this.#outlineExamples();
  }

  #fill(chips, notes) {
    byId("problem").replaceChildren();
    byId("notes").replaceChildren(...notes.map((note) => h("li", {}, note)));
    this.gallery.show(chips);
    byId("save").disabled = byId("fit").disabled = !this.response?.results.length;
    byId("grip-text").textContent = this.response ? plural(chips.length, "result") : "Search and results";
  }

  #remember(chips) {
    for (const chip of chips) this.chipsById.set(chip.id, chip);
  }

  /** Outlines the examples of the search on the map; fetches chips that were not received yet. */
  async #outlineExamples() {
    if (!this.chips) return;
    const ids = [...this.state.like, ...this.examples.used].slice(0, 50);
    const missing = ids.filter((id) => !this.chipsById.has(id));
    await Promise.all(missing.map((id) => this.api.get(`chips/${encodeURIComponent(id)}`).then((chip) => this.chipsById.set(id, chip), () => null)));
    this.chips.showExamples([...ids.map((id) => this.chipsById.get(id)?.geometry), this.state.area]);
  }

  showError(error) {
    if (!(error instanceof ApiError)) console.error(error);
    const needsGsd = this.examples.image && this.examples.image.gsd === null && /\bGSD\b/.test(error.detail ?? "");
    if (needsGsd) error.fix = "Enter its ground sample distance (metres per pixel).";
    byId("problem").replaceChildren(...errorText(error));
    byId("results-facts").textContent = "";
    byId("notes").replaceChildren();
    this.response = null;
    this.gallery.show([]);
    this.chips?.showResults([]);
    byId("save").disabled = byId("fit").disabled = true;
    this.sheet.raise();
    if (needsGsd) byId("image-gsd")?.focus();
  }

  // ------------------------------------------------------------------------------------------ map

  async #startMap() {
    byId("map-part").hidden = false;
    const [{ ChipMap }, { Compare }] = await Promise.all([import("./map.js"), import("./compare.js")]);
    try {
      this.chips = new ChipMap(this);
    } catch (error) {
      // Without WebGL everything but the map still works.
      console.warn(error);
      byId("map-part").replaceChildren(h("p.map-none", {}, "This browser cannot draw the map (no WebGL). Searching by image or chip and filtering by coordinates still work."));
      return;
    }
    this.compare = new Compare(this);
    byId("map-tools").replaceChildren(...mapTools(this));
    if (this.state.compare) this.chips.ready.then(() => this.chips.refresh()).then(() => toggleComparison(this));
  }

  get hasChanges() {
    return Boolean(this.archive.time);
  }

  draw = (kind) => drawArea(this, kind);
  pick = (id) => this.open(this.chipsById.get(id));
  open = (chip) => this.detail.open(chip);
  hover = (chip) => (this.gallery.highlight(chip?.id), this.chips?.highlight(chip?.id));

  get showOnMap() {
    return this.chips ? (chip) => {
      this.chips.fit([chip.bbox], this.chips.finest - 2);
      if (this.sheet.at === "high") this.sheet.set("half");
    } : null;
  }

  get compareAt() {
    return this.chips && this.archive.time ? (chip) => {
      this.chips.fit([chip.bbox], this.chips.finest - 2);
      this.sheet.set("low");
      this.chips.map.once("moveend", () => this.chips.refresh().then(() => toggleComparison(this)));
    } : null;
  }

  onViewChange(view) {
    this.state.view = view;
    this.updateAddress(false);
  }

  onCompareChange() {
    compareTool().setAttribute("aria-pressed", String(this.compare.open));
    this.updateAddress(false);
  }

  /** A message of the map: for screen readers, and with `visible` also on the screen. */
  report(text, visible = false) {
    if (visible) toast(text);
    else announce(text);
  }

  // ------------------------------------------------------------------------------------------ filters and address

  onFilterChange = debounce(() => {
    this.updateAddress(false);
    if (this.chips && !this.compare.open) this.chips.setDay(null);
    this.chips?.refresh();
    this.run();
  }, 200);

  /** Writes the state to the address; `step` adds an entry to the history. */
  updateAddress(step) {
    const fragment = toFragment(this.state);
    if (fragment === window.location.hash.slice(1)) return;
    const url = `${window.location.pathname}${window.location.search}${fragment ? `#${fragment}` : ""}`;
    window.history[step ? "pushState" : "replaceState"](null, "", url);
  }

  #restore() {
    const { view } = this.state;
    this.state = { ...fromFragment(window.location.hash.slice(1)).state, view };
    this.examples.reset();
    this.compare?.stop();
    this.filters.render();
    this.run();
  }

  #resultTools() {
    const tool = (id, symbol, text, onclick) => h("button.tool", { type: "button", id, title: text, "aria-label": text, disabled: true, onclick }, icon(symbol));
    byId("results-tools").replaceChildren(
      this.archive.with_footprint ? tool("fit", "fit", "Show all results on the map", () => this.chips?.fit(this.response.results.map((chip) => chip.bbox).filter(Boolean))) : h("span", { id: "fit", hidden: true }),
      tool("save", "save", "Save the results as GeoJSON (E)", () => exportGeoJson(this)),
    );
  }
}

function errorText(error) {
  const fix = error.fix ?? (error.detail ? null : String(error));
  return [h("p", {}, error.detail ?? "Something went wrong on this page."), ...(fix ? [h("p.facts", {}, fix)] : [])];
}

async function start() {
  const api = new Api(takeToken());
  try {
    await new App(await api.get("archive"), api).start();
  } catch (error) {
    document.body.dataset.layout = "gallery";
    byId("results-facts").textContent = "";
    byId("search").hidden = true;
    byId("problem").replaceChildren(...errorText(error));
    if (!(error instanceof ApiError)) throw error;
  }
}

start();

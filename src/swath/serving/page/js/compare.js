// Two dates of a place side by side: a second map over the first, clipped at the handle.

import * as maplibre from "../vendor/maplibre/maplibre-gl.mjs";
import { announce, byId, h, icon } from "./dom.js";
import { formatDeviations, plural } from "./format.js";
import { changeFeatures, changeLayers, collection, baseStyle, painted, repaint, requests } from "./map.js";

export class Compare {
  /** app: {api, state, chips: ChipMap, hasChanges, onCompareChange()} */
  constructor(app) {
    this.app = app;
    this.bar = byId("compare");
    this.over = byId("map-after");
  }

  get open() {
    return !this.bar.hidden;
  }

  /** Opens with the two days of the state, or the first and last day in view; false if there is one day only. */
  start() {
    const { chips, state } = this.app;
    const days = chips.days();
    const given = state.compare;
    if (given) days.push(...[given.before, given.after].filter((day) => !days.includes(day)));
    days.sort();
    if (days.length < 2) return false;
    const here = chips.days(true);
    const [first, last] = here.length > 1 ? [here[0], here.at(-1)] : [days[0], days.at(-1)];
    state.compare = given ?? { before: first, after: last };
    this.bar.hidden = this.over.hidden = false;
    byId("map-part").classList.add("comparing");
    this.#controls(days);
    this.#addSecondMap();
    this.#update();
    this.place(50);
    return true;
  }

  stop() {
    if (!this.open) return;
    const { chips, state } = this.app;
    this.bar.hidden = this.over.hidden = true;
    byId("map-part").classList.remove("comparing");
    this.handle.remove();
    chips.map.off("move", this.follow);
    matchMedia("(prefers-color-scheme: dark)").removeEventListener("change", this.recolor);
    this.map.remove();
    chips.setDay(null);
    chips.showChanges([]);
    state.compare = null;
    this.app.onCompareChange();
  }

  /** Moves the handle to `percent` of the width. */
  place(percent) {
    this.percent = Math.max(0, Math.min(100, percent));
    this.handle.style.left = `${this.percent}%`;
    this.handle.setAttribute("aria-valuenow", String(Math.round(this.percent)));
    this.over.style.clipPath = `inset(0 0 0 ${this.percent}%)`;
  }

  #addSecondMap() {
    const { chips, api } = this.app;
    const { map } = chips;
    this.over.replaceChildren();
    const view = () => ({ center: map.getCenter(), zoom: map.getZoom() });
    const style = baseStyle(chips.tiles(this.app.state.compare.after), null, chips.finest);
    style.sources.changes = { type: "geojson", data: collection([]) };
    style.layers.push(...changeLayers());
    this.map = new maplibre.Map({
      container: this.over, style: painted(style), ...view(),
      interactive: false, attributionControl: false, fadeDuration: 0, maxZoom: 23, transformRequest: requests(api),
    });
    this.map.on("error", ({ error }) => console.debug(error?.message));
    this.map.getCanvas().setAttribute("aria-label", "The later date");
    this.map.getCanvas().tabIndex = -1;
    this.loaded = new Promise((resolve) => this.map.once("load", () => {
      this.map.setLayoutProperty("imagery", "visibility", "visible");
      resolve();
    }));
    this.recolor = () => repaint(this.map);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", this.recolor);
    this.follow = () => this.map.jumpTo(view());
    map.on("move", this.follow);
    this.handle = h("div.swipe", {
      role: "slider", tabindex: "0", "aria-label": "Divider between the two dates", "aria-valuemin": "0", "aria-valuemax": "100", "aria-orientation": "horizontal",
      onkeydown: (event) => {
        const step = { ArrowLeft: -2, ArrowRight: 2, PageDown: -10, PageUp: 10 }[event.key];
        const end = { Home: 0, End: 100 }[event.key];
        if (step === undefined && end === undefined) return;
        this.place(end ?? this.percent + step);
        event.preventDefault();
      },
      onpointerdown: (event) => {
        this.handle.setPointerCapture(event.pointerId);
        this.dragging = true;
        event.preventDefault();
        this.handle.focus();
      },
      onpointermove: (event) => {
        if (!this.dragging) return;
        const { left, width } = byId("map-part").getBoundingClientRect();
        this.place((100 * (event.clientX - left)) / width);
      },
      onpointerup: () => (this.dragging = false),
    }, h("span.swipe-grip", {}, icon("swipe")), this.left = h("span.swipe-day.left", {}), this.right = h("span.swipe-day.right", {}));
    byId("map-part").append(this.handle);
  }

  #controls(days) {
    const { app } = this;
    const select = (key, text) => {
      const box = h("select", { id: `compare-${key}`, onchange: () => ((app.state.compare[key] = box.value), this.#update()) }, days.map((day) => h("option", { value: day, selected: day === app.state.compare[key] }, day)));
      return h("div", {}, h("label.label", { for: `compare-${key}` }, text), box);
    };
    this.showsChanges = app.hasChanges ? h("input", { type: "checkbox", onchange: () => this.#changes() }) : null;
    this.legend = h("span.facts", {});
    this.bar.replaceChildren(
      select("before", "Before"), select("after", "After"),
      ...(this.showsChanges ? [h("div.compare-changes", {}, h("label.line", {}, this.showsChanges, "Largest changes"), this.legend)] : []),
      h("button.tool", { type: "button", "aria-label": "Close the comparison", title: "Close (Esc)", onclick: () => this.stop() }, icon("close")));
  }

  #update() {
    const { chips, state } = this.app;
    chips.setDay(state.compare.before);
    this.loaded.then(() => this.map.getSource("imagery").setTiles([chips.tiles(state.compare.after)]));
    this.left.textContent = state.compare.before;
    this.right.textContent = state.compare.after;
    this.handle.setAttribute("aria-valuetext", `${state.compare.before} to the left, ${state.compare.after} to the right`);
    this.#changes();
    this.app.onCompareChange();
  }

  async #changes() {
    const { api, state } = this.app;
    if (!this.showsChanges?.checked) {
      this.#draw([]);
      this.legend.textContent = "";
      return;
    }
    this.legend.textContent = "Loading …";
    try {
      const sensor = state.filters.sensors.length === 1 ? state.filters.sensors[0] : null;
      const { features } = await api.get("changes", { ...state.compare, sensor, limit: 100 });
      this.#draw(changeFeatures(features));
      const top = features[0]?.properties.score;
      this.legend.textContent = features.length ? `${plural(features.length, "place")}, up to ${formatDeviations(top)} σ` : "No place was imaged on both days.";
      this.legend.title = "Change score: standard deviations above the local median";
    } catch (error) {
      this.#draw([]);
      this.legend.textContent = [error.detail ?? String(error), error.fix].filter(Boolean).join("; ");
    }
    announce(this.legend.textContent);
  }

  /** Draws the changes on both maps, so that they are visible on either side of the handle. */
  #draw(changed) {
    this.app.chips.showChanges(changed);
    const { map } = this;
    this.loaded.then(() => map === this.map && this.open && map.getSource("changes").setData(collection(changed)));
  }
}

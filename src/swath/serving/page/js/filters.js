// Sensor, GSD, time, area and the form of the results. Every change is reported at once; the caller debounces.

import { byId, h, icon } from "./dom.js";
import { formatArea, formatCount, formatDate, formatGsd } from "./format.js";
import { areaOf, asBox, boxPolygon, boxProblem, geometryBox } from "./geo.js";
import { filterCount } from "./state.js";

const STOPS = 200; // steps of the GSD sliders

export class FilterPanel {
  /** app: {archive, relative, state, examples, onFilterChange(), draw(kind)} */
  constructor(app) {
    this.app = app;
    this.form = byId("filters");
    this.form.addEventListener("submit", (event) => event.preventDefault());
    // Open where there is room beside the map.
    byId("filters-box").open = matchMedia("(width >= 1200px)").matches;
    this.render();
  }

  render() {
    const { archive, relative } = this.app;
    const [low, high] = archive.gsd ?? [0, 0];
    this.form.replaceChildren(...[
      archive.sensors.length > 1 ? this.#sensors() : null,
      !relative && high > low * 1.001 ? this.#gsd(low, high) : null,
      archive.time ? this.#time() : null,
      archive.with_footprint ? this.#area() : null,
      this.#resultOptions(),
    ].filter(Boolean));
    const set = filterCount(this.app.state.filters);
    byId("filters-count").hidden = set === 0;
    byId("filters-count").textContent = `${set} set`;
  }

  #changed() {
    const set = filterCount(this.app.state.filters);
    byId("filters-count").hidden = set === 0;
    byId("filters-count").textContent = `${set} set`;
    this.app.onFilterChange();
  }

  #sensors() {
    const { filters } = this.app.state;
    const boxes = this.app.archive.sensors.map(({ name, title, rows, centered }) => {
      const box = h("input", { type: "checkbox", name: "sensor", value: name, checked: !filters.sensors.length || filters.sensors.includes(name) });
      return h("label.line", { title: centered ? title : `${title}. Its embeddings are not centered: scores across sensors are less comparable.` }, box, name, h("span.end", {}, formatCount(rows)));
    });
    const group = h("fieldset", { onchange: () => {
      const on = [...group.querySelectorAll("input:checked")].map((box) => box.value);
      filters.sensors = on.length === boxes.length ? [] : on;
      warn.hidden = on.length > 0;
      if (on.length) this.#changed();
    } }, h("legend.label", {}, "Sensor"), boxes);
    const warn = h("p.hint", { hidden: true, role: "alert" }, "Select at least one sensor.");
    group.append(warn);
    return group;
  }

  /** Two thumbs over the archive's GSD range, logarithmic. */
  #gsd(low, high) {
    const { filters } = this.app.state;
    const metres = (stop) => (stop <= 0 ? low : stop >= STOPS ? high : low * (high / low) ** (stop / STOPS));
    const stop = (value, other) => (value == null ? other : Math.round((STOPS * Math.log(value / low)) / Math.log(high / low)));
    const thumb = (which, label) => h("input", { type: "range", min: 0, max: STOPS, step: 1, "aria-label": label, value: stop(filters.gsd?.[which], which ? STOPS : 0) });
    const [from, to] = [thumb(0, "Finest metres per pixel"), thumb(1, "Coarsest metres per pixel")];
    const text = h("output.end", {});
    const track = h("div.range-track", {});
    const read = () => {
      const [a, b] = [Number(from.value), Number(to.value)];
      text.textContent = a <= 0 && b >= STOPS ? "any" : `${formatGsd(metres(a))} – ${formatGsd(metres(b))}`;
      from.setAttribute("aria-valuetext", formatGsd(metres(a)));
      to.setAttribute("aria-valuetext", formatGsd(metres(b)));
      track.style.setProperty("--from", `${(100 * a) / STOPS}%`);
      track.style.setProperty("--to", `${(100 * b) / STOPS}%`);
      return [a, b];
    };
    const onInput = (event) => {
      const [a, b] = [Number(from.value), Number(to.value)];
      if (a > b) event.target.value = event.target === from ? b : a;
      read();
    };
    const onChange = () => {
      const [a, b] = read();
      // Rounded outwards, so that a chip exactly at a limit as displayed is included.
      filters.gsd = a <= 0 && b >= STOPS ? null : [a <= 0 ? null : Number((metres(a) * 0.999).toPrecision(4)), b >= STOPS ? null : Number((metres(b) * 1.001).toPrecision(4))];
      this.#changed();
    };
    const group = h("fieldset", { oninput: onInput, onchange: onChange }, h("legend.label.split", {}, "Metres per pixel", text),
      h("div.range", {}, track, from, to));
    read();
    return group;
  }

  #time() {
    const { filters } = this.app.state;
    const [first, last] = this.app.archive.time.map(formatDate);
    const day = (which, id) => h("input", { type: "date", id, min: first, max: last, value: filters.time?.[which] ?? "" });
    const [from, to] = [day(0, "time-from"), day(1, "time-to")];
    const warn = h("p.hint", { hidden: true, role: "alert" }, "The first day is later than the last.");
    return h("fieldset", { onchange: () => {
      const [a, b] = [from.value || null, to.value || null];
      warn.hidden = !(a && b && a > b);
      if (!warn.hidden) return;
      filters.time = a || b ? [a, b] : null;
      this.#changed();
    } }, h("legend.label", {}, `Time, ${first} to ${last}`),
      h("div.pair", {}, h("div", {}, h("label.unseen", { for: "time-from" }, "From day"), from), h("div", {}, h("label.unseen", { for: "time-to" }, "To day"), to)), warn);
  }

  #area() {
    const { app } = this;
    const { filters } = app.state;
    const box = filters.area ? geometryBox(filters.area) : null;
    const edge = (id, text, value) => h("div", {}, h("label.label", { for: id }, text), h("input", { id, type: "text", inputmode: "decimal", value: value === undefined ? "" : String(Number(value.toFixed(5))) }));
    const fields = ["West", "South", "East", "North"].map((text, i) => edge(`edge-${text.toLowerCase()}`, text, box?.[i]));
    const warn = h("p.hint.warn", { role: "alert" });
    const apply = () => {
      const numbers = fields.map((field) => {
        const text = field.lastChild.value.trim().replace(",", ".").replace("−", "-");
        return text === "" ? NaN : Number(text);
      });
      warn.textContent = boxProblem(numbers) ?? "";
      if (warn.textContent) return;
      filters.area = boxPolygon(numbers);
      this.render();
      this.#changed();
    };
    const tool = (kind, symbol, text) => h("button", { type: "button", onclick: () => app.draw(kind) }, icon(symbol), text);
    const current = filters.area
      ? h("div.item", {}, h("span.item-icon", {}, icon(asBox(filters.area) ? "box" : "outline")), h("div", {}, h("p.item-title", {}, "Only inside this area"), h("p.facts", {}, formatArea(areaOf(filters.area)))),
          h("button.tool", { type: "button", "aria-label": "Remove the area", title: "Remove", onclick: () => { filters.area = null; this.render(); this.#changed(); } }, icon("close")))
      : null;
    return h("fieldset", { id: "area-fields" }, h("legend.label", {}, "Area"), current,
      h("div.pair", {}, tool("box", "box", "Rectangle"), tool("outline", "outline", "Polygon")),
      current ? h("button.plain.wide", { type: "button", onclick: () => app.examples.searchArea() }, "Search by this place") : null,
      h("details.edges", { open: this.edges, ontoggle: (event) => (this.edges = event.target.open) }, h("summary", {}, "By coordinates"),
        h("div.quad", { onkeydown: (event) => event.key === "Enter" && apply() }, fields), warn,
        h("button.wide", { type: "button", onclick: apply }, "Use this box")));
  }

  #resultOptions() {
    const { state, archive } = this.app;
    const maxResults = archive.limits?.k ?? 100;
    const counts = [...new Set([10, 20, 50, 100, 200, state.k].filter((k) => k <= maxResults))].sort((a, b) => a - b);
    const select = (id, text, options, value, set) => h("div", {}, h("label.label", { for: id }, text),
      h("select", { id, onchange: (event) => { set(Number(event.target.value)); this.#changed(); } }, options.map(([v, t]) => h("option", { value: v, selected: v === value }, t))));
    const toggle = (text, hint, on, set) => h("label.line", { title: hint }, h("input", { type: "checkbox", checked: on, onchange: (event) => { set(event.target.checked); this.#changed(); } }), text);
    return h("fieldset", {}, h("legend.label", {}, "Results"),
      h("div.pair", {},
        select("k", "How many", counts.map((k) => [k, k]), state.k, (k) => (state.k = k)),
        select("valid", "Valid pixels", [[0, "any"], [0.5, "≥ 50 %"], [0.9, "≥ 90 %"], [1, "all"]], state.filters.minValid, (v) => (state.filters.minValid = v))),
      toggle("Diverse", "Show fewer near-duplicate results", state.diverse, (on) => (state.diverse = on)),
      archive.with_footprint ? toggle("One result per place", "Show only the best match of each place", state.groupByLocation, (on) => (state.groupByLocation = on)) : null);
  }
}

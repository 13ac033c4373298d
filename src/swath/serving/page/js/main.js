// The page: what is asked (state), what came back (answers), and who shows it.

import { Api, ApiError, takeToken } from "./api.js";
import { byId, calm, h, icon, say, settled } from "./dom.js";
import { draw } from "./draw.js";
import { FilterPanel } from "./filters.js";
import { formatBytes, formatCount, formatGsd, formatYears, plural } from "./format.js";
import { Detail, Gallery } from "./gallery.js";
import { fillHelp } from "./help.js";
import { QueryPanel } from "./query.js";
import { Sheet } from "./sheet.js";
import { asks, filterParams, fromFragment, searchBody, toFragment } from "./state.js";

const SAMPLE = { map: 24, gallery: 60 }; // chips shown while nothing is asked

class App {
  constructor(archive, api) {
    this.api = api;
    this.archive = archive;
    this.relative = archive.gsd_mode === "relative";
    this.image = null; // {file, name, size, url, sensor, gsd}
    this.marks = new Map(); // id -> 1 or -1: marked, not yet searched with
    this.used = []; // ids that stood for a place or an area in the last search
    this.known = new Map(); // id -> chip, as far as seen
    this.answer = null;
    const { state, problems } = fromFragment(window.location.hash.slice(1));
    this.state = state;
    this.unread = problems;
    state.k = Math.min(state.k, archive.limits?.k ?? state.k);
  }

  async start() {
    const { archive } = this;
    document.body.dataset.layout = archive.placed ? "map" : "gallery";
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
    fillHelp(archive.placed > 0);
    this.#answerTools();
    this.#listen();
    if (archive.placed) await this.#startMap();
    this.query.render();
    if (this.unread.length) this.#trouble(new ApiError(`Not understood in the address: ${this.unread.join(", ")}.`, "The rest of it was used."));
    await this.run();
  }

  // ------------------------------------------------------------------------------------------ searching

  /** Asks what the state says, or shows a sample if nothing is asked; never two at once. */
  async run() {
    this.running?.abort();
    const mine = (this.running = new AbortController());
    this.gallery.wait();
    this.query.render();
    this.chips?.showArea(this.state.filters.area);
    try {
      if (asks(this.state) || this.image) {
        byId("answers-facts").textContent = "Searching …";
        const answer = await this.#ask(mine.signal);
        if (mine === this.running) this.#show(answer);
      } else {
        const params = { limit: SAMPLE[document.body.dataset.layout], ...filterParams(this.state.filters) };
        const { chips, total } = await this.api.get("chips", params, mine.signal);
        if (mine === this.running) this.#showSample(chips, total);
      }
    } catch (error) {
      if (error.name !== "AbortError" && mine === this.running) this.#trouble(error);
    }
  }

  #ask(signal) {
    const body = searchBody(this.state);
    if (!this.image) return this.api.post("search", body, signal);
    const { file, sensor, gsd } = this.image;
    const form = new FormData();
    form.append("file", file);
    form.append("options", JSON.stringify({ ...body, place: undefined, area: undefined, sensor, gsd }));
    return this.api.post("search/image", form, signal);
  }

  #show({ results: answers, k: asked, returned: found, notes, took_ms: took, query }) {
    this.answer = { answers, query, time: new Date() };
    const like = Array.isArray(query) ? query : (query?.like ?? []);
    this.used = this.state.like.length ? [] : like;
    this.#remember(answers);
    byId("answers-title").textContent = "Answers";
    byId("answers-facts").textContent = `${found < asked ? `${found} of ${asked} asked for` : plural(found, "chip")} of ${formatCount(this.archive.rows)}${took == null ? "" : ` · ${Math.max(1, Math.round(took))} ms`}`;
    const why = notes.map((note) => (note.startsWith("centered:") ? "Each sensor's mean is taken off first, so that scores compare across sensors." : note));
    if (!answers.length) why.unshift("Nothing passes: widen the filters, or begin anew.");
    else if (found < asked && !why.length) why.push(`Only ${plural(found, "chip")} pass the filters.`);
    this.#fill(answers, why);
    say(answers.length ? `${plural(found, "answer")}.` : "No answers.");
    this.query.render();
    this.chips?.showAnswers(answers);
    this.#showAsked();
    this.sheet.raise();
    // Where question and answers share one column, the answers come into sight.
    const { panels } = this.sheet;
    if (panels.scrollHeight > panels.clientHeight) byId("answers").scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
  }

  #showSample(chips, total) {
    this.answer = null;
    this.used = [];
    this.#remember(chips);
    byId("answers-title").textContent = "A look into the archive";
    byId("answers-facts").textContent = total ? `${formatCount(chips.length)} of ${plural(total, "chip")}` : "";
    this.#fill(chips, total ? [] : ["No chip passes the filters: widen them."]);
    this.chips?.showAnswers([]);
    this.#showAsked();
  }

  #fill(chips, notes) {
    byId("problem").replaceChildren();
    byId("notes").replaceChildren(...notes.map((note) => h("li", {}, note)));
    this.gallery.show(chips);
    byId("save").disabled = byId("fit").disabled = !this.answer?.answers.length;
    byId("grip-text").textContent = this.answer ? plural(chips.length, "answer") : "Search and answers";
  }

  #remember(chips) {
    for (const chip of chips) this.known.set(chip.id, chip);
  }

  /** Outlines of what the search went by; chips not seen yet are fetched. */
  async #showAsked() {
    if (!this.chips) return;
    const ids = [...this.state.like, ...this.used].slice(0, 50);
    const missing = ids.filter((id) => !this.known.has(id));
    await Promise.all(missing.map((id) => this.api.get(`chips/${encodeURIComponent(id)}`).then((chip) => this.known.set(id, chip), () => null)));
    this.chips.showAsked([...ids.map((id) => this.known.get(id)?.geometry), this.state.area]);
  }

  #trouble(error) {
    if (!(error instanceof ApiError)) console.error(error);
    const scaleless = this.image && this.image.gsd === null && /\bGSD\b/.test(error.what ?? "");
    if (scaleless) error.fix = "Say under “Metres per pixel” how much ground one pixel of it shows.";
    byId("problem").replaceChildren(h("p", {}, error.what ?? "The page has a fault."), error.fix || !error.what ? h("p.facts", {}, error.fix ?? String(error)) : null);
    byId("answers-facts").textContent = "";
    byId("notes").replaceChildren();
    this.answer = null;
    this.gallery.show([]);
    this.chips?.showAnswers([]);
    byId("save").disabled = byId("fit").disabled = true;
    this.sheet.raise();
    if (scaleless) byId("image-gsd")?.focus();
  }

  /** A new question: a step of the history, so that Back returns to the one before. */
  #question(change) {
    change();
    this.marks.clear();
    this.#offerRefining();
    this.#address(true);
    return this.run();
  }

  ask(place) {
    this.#question(() => (this.#forgetExamples(), (this.state.place = place)));
  }

  searchBy = (chip) => this.#question(() => (this.#forgetExamples(), (this.state.like = [chip.id])));

  searchArea() {
    this.#question(() => {
      this.#forgetExamples();
      [this.state.area, this.state.filters.area] = [this.state.filters.area, null];
      this.filters.render();
    });
  }

  upload(file) {
    const most = this.archive.limits?.upload_bytes;
    if (!this.archive.searches.image) return this.#trouble(new ApiError("This service has no model loaded, so that it cannot look at images.", "Search by a place or a chip, or start it with a model."));
    if (most && file.size > most) return this.#trouble(new ApiError(`${file.name} has ${formatBytes(file.size)}; at most ${formatBytes(most)} are taken.`, "Cut out what matters, or make it smaller."));
    this.#question(() => {
      this.#forgetExamples();
      const gsd = this.#usualGsd(file);
      this.image = { file, name: file.name, size: file.size, url: URL.createObjectURL(file), sensor: this.archive.sensors[0]?.name ?? null, gsd, guessed: gsd !== null };
    });
  }

  /** The scale of a picture that cannot say its own, where all chips of the archive have one. */
  #usualGsd(file) {
    const [low, high] = this.archive.gsd ?? [0, Infinity];
    const silent = ["image/png", "image/jpeg", "image/webp"].includes(file.type);
    return silent && !this.relative && high <= low * 1.001 ? low : null;
  }

  setImage(change) {
    Object.assign(this.image, change, { guessed: false });
    this.run();
  }

  /** The marks join the examples; for a place or an area, the chips that stood for it become examples. */
  refine() {
    if (!this.marks.size) return;
    const marks = new Map(this.marks);
    this.#question(() => {
      const { state } = this;
      const signed = (sign) => [...marks].filter(([, s]) => s === sign).map(([id]) => id);
      const kept = (ids) => ids.filter((id) => !marks.has(id));
      const before = state.place || state.area ? this.used : state.like;
      Object.assign(state, { place: null, area: null });
      state.like = [...kept(before), ...signed(1)];
      state.unlike = [...kept(state.unlike), ...signed(-1)];
    });
  }

  clear() {
    this.#question(() => {
      this.#forgetExamples();
      this.used = [];
    });
  }

  /** Takes one thing out of the question. */
  drop(kind, id) {
    if (kind === "mark") {
      this.marks.delete(id);
      this.gallery.remark();
      this.query.render();
      this.#offerRefining();
      return;
    }
    this.#question(() => {
      const { state } = this;
      if (kind === "place") state.place = null;
      else if (kind === "area") state.area = null;
      else if (kind === "image") this.#forgetImage();
      else [state.like, state.unlike] = [state.like.filter((other) => other !== id), state.unlike.filter((other) => other !== id)];
      if (!state.like.length && !this.image) state.unlike = []; // nothing is less like nothing
    });
  }

  #forgetExamples() {
    Object.assign(this.state, { like: [], unlike: [], place: null, area: null });
    this.#forgetImage();
  }

  #forgetImage() {
    if (this.image) URL.revokeObjectURL(this.image.url);
    this.image = null;
  }

  // ------------------------------------------------------------------------------------------ marks

  marked = (id) => this.marks.get(id) ?? 0;

  mark = (chip, sign) => {
    if (this.marked(chip.id) === sign) this.marks.delete(chip.id);
    else this.marks.set(chip.id, sign);
    this.gallery.remark();
    this.query.render();
    const sum = this.marked(chip.id);
    say(sum === 0 ? "Mark taken back." : `Marked ${sum > 0 ? "more" : "less"} like this. ${plural(this.marks.size, "mark")}; press S to search again.`);
    this.#offerRefining();
  };

  /** On the sheet of a small screen the button above may be out of sight: one at hand below. */
  #offerRefining() {
    byId("more").replaceChildren(...(this.marks.size ? [h("button.primary.wide", { type: "button", onclick: () => this.refine() }, `Search again with ${plural(this.marks.size, "mark")}`)] : []));
  }

  // ------------------------------------------------------------------------------------------ map

  async #startMap() {
    byId("map-part").hidden = false;
    const [{ ChipMap }, { Compare }] = await Promise.all([import("./map.js"), import("./compare.js")]);
    try {
      this.chips = new ChipMap(this);
    } catch (error) {
      // No WebGL: everything but the map still works.
      console.warn(error);
      byId("map-part").replaceChildren(h("p.map-none", {}, "This browser cannot draw the map (no WebGL). Search by image, by chip and by the coordinates in the filters still works."));
      return;
    }
    this.compare = new Compare(this);
    this.#mapTools();
    if (this.state.compare) this.chips.ready.then(() => this.chips.refresh()).then(() => this.#compare());
  }

  get hasChanges() {
    return Boolean(this.archive.time);
  }

  #mapTools() {
    const { map } = this.chips;
    const tool = (id, symbol, text, onclick, pressed) => h("button", { type: "button", id, title: text, "aria-label": text, "aria-pressed": pressed, onclick }, typeof symbol === "string" ? icon(symbol) : symbol);
    const imagery = tool("tool-imagery", "layers", "Imagery", () => {
      const on = imagery.getAttribute("aria-pressed") !== "true";
      imagery.setAttribute("aria-pressed", String(on));
      this.chips.setImagery(on);
    }, "true");
    const groups = [
      [tool("zoom-in", "plus", "Zoom in", () => map.zoomIn()), tool("zoom-out", "minus", "Zoom out", () => map.zoomOut()), tool("tool-all", "fit", "The whole archive", () => this.archive.bounds && this.chips.fit([this.archive.bounds]))],
      [imagery],
      [tool("tool-box", "box", "Draw a rectangle (R)", () => this.draw("box")), tool("tool-outline", "outline", "Draw a polygon (P)", () => this.draw("outline"))],
      this.archive.time ? [tool("tool-compare", "swipe", "Compare two dates (C)", () => this.#compare(), "false")] : [],
    ];
    byId("map-tools").replaceChildren(...groups.filter((group) => group.length).map((group) => h("div.tool-group", {}, group)));
  }

  pick = (id) => this.open(this.known.get(id));
  open = (chip) => this.detail.open(chip);
  hover = (chip) => (this.gallery.light(chip?.id), this.chips?.light(chip?.id));

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
      this.chips.map.once("moveend", () => this.chips.refresh().then(() => this.#compare()));
    } : null;
  }

  moved(view) {
    this.state.view = view;
    this.#address(false);
  }

  /** A word from the map: to screen readers, and if `loud` also for the eye. */
  told(text, loud = false) {
    say(text);
    if (loud) this.#toast(text);
  }

  async draw(kind) {
    if (!this.chips) return;
    this.drawing?.stop();
    this.sheet.set("low");
    this.drawing = draw(this.chips, kind);
    const area = await this.drawing.done;
    this.drawing = null;
    if (!area) return;
    this.state.filters.area = area;
    byId("filters-box").open = true;
    this.filters.render();
    this.sheet.raise();
    this.changed();
  }

  async #compare() {
    const button = byId("tool-compare");
    if (this.compare.open) return this.compare.stop();
    if (!this.chips.footprints) await this.chips.refresh(); // whose days are offered
    if (this.compare.start()) {
      button.setAttribute("aria-pressed", "true");
      this.sheet.set("low");
    }
    else this.told("Places in view were seen on one day only: zoom out, or widen the time filter.", true);
  }

  /** Something stands in the address that asks for no new search, such as the days that are compared. */
  noted() {
    this.#address(false);
  }

  /** The comparison was closed. */
  closed() {
    byId("tool-compare").setAttribute("aria-pressed", "false");
    this.#address(false);
  }

  // ------------------------------------------------------------------------------------------ filters, address, export

  changed = settled(() => {
    this.#address(false);
    if (this.chips && !this.compare.open) this.chips.setDay(null);
    this.chips?.refresh();
    this.run();
  }, 200);

  #address(step) {
    const fragment = toFragment(this.state);
    if (fragment === window.location.hash.slice(1)) return;
    const url = `${window.location.pathname}${window.location.search}${fragment ? `#${fragment}` : ""}`;
    window.history[step ? "pushState" : "replaceState"](null, "", url);
  }

  #return() {
    const { view } = this.state;
    this.state = { ...fromFragment(window.location.hash.slice(1)).state, view };
    this.#forgetImage();
    this.marks.clear();
    this.#offerRefining();
    this.compare?.stop();
    this.filters.render();
    this.run();
  }

  #answerTools() {
    const tool = (id, symbol, text, onclick) => h("button.tool", { type: "button", id, title: text, "aria-label": text, disabled: true, onclick }, icon(symbol));
    byId("answers-tools").replaceChildren(...[
      this.archive.placed ? tool("fit", "fit", "Show all answers on the map", () => this.chips?.fit(this.answer.answers.map((chip) => chip.bbox).filter(Boolean))) : h("span", { id: "fit", hidden: true }),
      tool("save", "save", "Save the answers as GeoJSON (E)", () => this.#save()),
    ]);
  }

  #save() {
    if (!this.answer?.answers.length) return;
    const features = this.answer.answers.map(({ geometry, bbox, ...properties }) => ({ type: "Feature", id: properties.id, ...(bbox ? { bbox } : {}), geometry, properties }));
    const { archive, answer, image } = this;
    const about = { archive: archive.name, archive_version: archive.version, model_id: archive.model_id, asked: { ...searchBody(this.state), ...(image ? { image: image.name } : {}) }, saved: answer.time.toISOString() };
    const blob = new Blob([JSON.stringify({ type: "FeatureCollection", features, swath: about })], { type: "application/geo+json" });
    const link = h("a", { href: URL.createObjectURL(blob), download: `${archive.name}-answers.geojson` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    this.#toast(`${plural(features.length, "answer")} saved as ${link.download}`);
  }

  async #share() {
    const text = window.location.href;
    const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
    const more = this.image ? " The uploaded image is not part of it." : "";
    this.#toast(copied ? `Link copied.${more}` : `The address bar holds the link.${more}`);
  }

  #toast(text) {
    const toast = byId("toast");
    say(text);
    toast.textContent = text;
    toast.hidden = false;
    clearTimeout(this.toasting);
    this.toasting = setTimeout(() => (toast.hidden = true), 4000);
  }

  // ------------------------------------------------------------------------------------------ events of the page

  #listen() {
    byId("share").addEventListener("click", () => this.#share());
    byId("help-open").addEventListener("click", () => byId("help").showModal());
    window.addEventListener("popstate", () => this.#return());
    document.addEventListener("keydown", (event) => this.#onKey(event));
    let depth = 0; // dragenter and dragleave come for every element below the pointer
    const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
    const over = (on) => (byId("drop").hidden = !on);
    document.addEventListener("dragenter", (event) => files(event) && over(++depth > 0));
    document.addEventListener("dragleave", (event) => files(event) && over(--depth > 0));
    document.addEventListener("dragover", (event) => files(event) && event.preventDefault());
    document.addEventListener("drop", (event) => {
      if (!files(event)) return;
      event.preventDefault();
      over((depth = 0) > 0);
      if (event.dataTransfer.files[0]) this.upload(event.dataTransfer.files[0]);
    });
    document.addEventListener("paste", (event) => {
      const [file] = event.clipboardData?.files ?? [];
      if (file) this.upload(file);
    });
  }

  #onKey(event) {
    if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      if (this.drawing) this.drawing.stop();
      else this.compare?.stop();
      return;
    }
    if (event.target.closest("input, select, textarea")) return;
    const act = {
      "?": () => byId("help").showModal(),
      "/": () => this.archive.searches.image && this.query.choose(),
      f: () => {
        const box = byId("filters-box");
        box.open = true;
        this.sheet.raise();
        box.querySelector("summary").focus();
      },
      m: () => this.chips?.map.getCanvas().focus({ focusVisible: true }),
      a: () => (this.gallery.list.querySelector(".frame") ?? byId("answers")).focus(),
      s: () => this.refine(),
      r: () => this.draw("box"),
      p: () => this.draw("outline"),
      c: () => this.chips && this.archive.time && this.#compare(),
      e: () => this.#save(),
    }[event.key.toLowerCase()];
    if (!act) return;
    act();
    event.preventDefault();
  }
}

async function begin() {
  const api = new Api(takeToken());
  try {
    await new App(await api.get("archive"), api).start();
  } catch (error) {
    document.body.dataset.layout = "gallery";
    byId("answers-facts").textContent = "";
    byId("ask").hidden = true;
    byId("problem").replaceChildren(h("p", {}, error.what ?? "The page has a fault."), h("p.facts", {}, error.fix ?? String(error)));
    if (!(error instanceof ApiError)) throw error;
  }
}

begin();

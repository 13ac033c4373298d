// The results as cards, and one of them enlarged in a dialog.

import { byId, h, icon } from "./dom.js";
import { formatDate, formatGsd, formatLonLat, formatScore, formatTime, plural } from "./format.js";
import { centerOf } from "./geo.js";

const THUMB = 256;
const LARGE = 512;

/** Loads a chip's image into an <img>; an image that is not available is replaced by a text. */
export function showImage(img, api, id, size = THUMB) {
  img.addEventListener("error", () => img.replaceWith(h("span.no-image", {}, "No image")), { once: true });
  api.image(id, size).then((url) => (img.src = url), () => img.dispatchEvent(new Event("error")));
  return img;
}

/** The accessible name of a chip: "Result 3, score 0.87, rgb_aerial, 10 m, 2017-10-15". */
export function describe(chip, relative) {
  const facts = [chip.label, chip.sensor, formatGsd(chip.gsd, relative), formatDate(chip.time)];
  const rank = chip.rank ? [`Result ${chip.rank}`, `score ${formatScore(chip.score)}`] : ["Chip"];
  return [...rank, ...facts].filter(Boolean).join(", ");
}

export class Gallery {
  /**
   * app: {api, relative, examples: {mark(id, sign), markOf(id) -> 1|-1|0}, open(chip), hover(chip|null)}
   */
  constructor(app) {
    this.app = app;
    this.list = byId("gallery");
    this.chips = [];
    this.list.addEventListener("keydown", (event) => this.#onKey(event));
  }

  show(chips) {
    this.chips = chips;
    this.list.setAttribute("aria-busy", "false");
    this.list.replaceChildren(...chips.map((chip) => this.#card(chip)));
  }

  /** Placeholders while results load; existing cards stay, dimmed. */
  wait() {
    this.list.setAttribute("aria-busy", "true");
    if (!this.chips.length) {
      this.list.replaceChildren(...Array.from({ length: 6 }, () => h("li.card.ghost", { "aria-hidden": "true" }, h("div.frame"))));
    }
  }

  /** Updates which cards are marked. */
  showMarks() {
    for (const card of this.list.children) {
      const sign = this.app.examples.markOf(card.dataset.id);
      card.dataset.mark = sign > 0 ? "plus" : sign < 0 ? "minus" : "";
      card.querySelector(".plus")?.setAttribute("aria-pressed", String(sign > 0));
      card.querySelector(".minus")?.setAttribute("aria-pressed", String(sign < 0));
    }
  }

  /** Highlights the card of a chip, e.g. the one below the pointer on the map. */
  highlight(id) {
    for (const card of this.list.children) card.classList.toggle("highlighted", card.dataset.id === id);
  }

  focus(id) {
    this.list.querySelector(`[data-id="${CSS.escape(id)}"] .frame`)?.focus();
  }

  #card(chip) {
    const { app } = this;
    const name = describe(chip, app.relative);
    // The bar is relative to the best result: relevance feedback changes the scale of the scores.
    const best = this.chips[0]?.score ?? 0;
    const fraction = best > 0 ? Math.max(0, Math.min(1, chip.score / best)) : 0;
    const bar = chip.rank ? h("span.bar-score", { "aria-hidden": "true" }, h("span", { dataset: { fraction } })) : null;
    if (bar) bar.firstChild.style.width = `${100 * fraction}%`;
    const mark = (sign, kind, word) =>
      h(`button.mark-button.${kind}`, {
        type: "button", "aria-pressed": String(app.examples.markOf(chip.id) === sign), "aria-label": `${word} like ${name}`, title: `${word} like this`,
        onclick: () => app.examples.mark(chip, sign),
      }, icon(kind));
    const card = h("li.card", {
      dataset: { id: chip.id, mark: app.examples.markOf(chip.id) > 0 ? "plus" : app.examples.markOf(chip.id) < 0 ? "minus" : "" },
      onpointerenter: () => app.hover(chip), onpointerleave: () => app.hover(null),
      onfocusin: () => app.hover(chip), onfocusout: () => app.hover(null),
    },
      h("div.thumbnail", {},
        h("button.frame", { type: "button", "aria-label": `${name}. Open details`, onclick: () => app.open(chip) },
          showImage(h("img", { alt: "", loading: "lazy", width: THUMB, height: THUMB }), app.api, chip.id)),
        chip.rank ? h("span.rank", { "aria-hidden": "true" }, chip.rank) : null,
        h("div.marks", {}, mark(1, "plus", "More"), mark(-1, "minus", "Less"))),
      h("div.caption", {},
        h("p.lead", {}, h("span.lead-text", {}, formatDate(chip.time) || chip.label || chip.source), chip.rank ? h("span.score", {}, formatScore(chip.score)) : null),
        bar,
        h("p.facts", {}, [chip.sensor, formatGsd(chip.gsd, app.relative), chip.time && chip.label, chip.others?.length && `${plural(chip.others.length, "more match")}`].filter(Boolean).join(" · "))));
    return card;
  }

  /** Arrows go from card to card; + and - mark the one that has the focus. */
  #onKey(event) {
    const card = event.target.closest(".card");
    if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
    const cards = [...this.list.children];
    const here = cards.indexOf(card);
    const across = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[event.key];
    const sign = { "+": 1, "=": 1, "-": -1, "−": -1 }[event.key];
    if (step) cards[here + step]?.querySelector(".frame")?.focus();
    else if (sign) this.app.examples.mark(this.chips[here], sign);
    else return;
    event.preventDefault();
  }
}

/** One chip enlarged, with its metadata and actions. */
export class Detail {
  /** app: as of Gallery, and {gallery, showOnMap(chip)|null, compareAt(chip)|null} */
  constructor(app) {
    this.app = app;
    this.dialog = byId("detail");
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("keydown", (event) => this.#onKey(event));
    this.dialog.addEventListener("close", () => this.chip && this.app.gallery.focus(this.chip.id));
  }

  open(chip) {
    this.chip = chip;
    this.#fill();
    if (!this.dialog.open) this.dialog.showModal();
  }

  #fill() {
    const { app, chip } = this;
    const sign = app.examples.markOf(chip.id);
    const act = (kind, symbol, text, onclick, pressed) =>
      h(`button${kind}`, { type: "button", onclick, "aria-pressed": pressed === undefined ? null : String(pressed) }, symbol ? icon(symbol) : null, text);
    const then = (f) => () => (this.dialog.close(), f(chip));
    const again = (value) => () => (app.examples.mark(chip, value), this.#fill());
    const center = chip.geometry ? centerOf(chip.geometry) : null;
    const rows = [
      ["Score", chip.rank ? `${formatScore(chip.score)}, rank ${chip.rank}` : null],
      ["Date", formatTime(chip.time) || "unknown"],
      ["Sensor", chip.sensor],
      ["GSD", app.relative ? "relative" : `${formatGsd(chip.gsd)} per pixel`],
      ["Label", chip.label],
      ["Center", center ? formatLonLat(center, 5) : null],
      ["Valid", chip.valid_fraction == null ? null : `${Math.round(100 * chip.valid_fraction)} % of pixels`],
      ["File", chip.source],
      ["Window", chip.window ? `column ${chip.window[0]}, row ${chip.window[1]}, ${chip.window[2]} × ${chip.window[3]} pixels` : null],
      ["Id", chip.id],
    ];
    const list = app.gallery.chips;
    const at = list.findIndex((other) => other.id === chip.id);
    const turn = (step, symbol, text) =>
      h("button.tool", { type: "button", "aria-label": text, title: text, disabled: !list[at + step] || at < 0, onclick: () => this.open(list[at + step]) }, icon(symbol));
    this.dialog.replaceChildren(
      h("header", {},
        h("h2", { id: "detail-title" }, chip.rank ? `Result ${chip.rank}` : "Chip"),
        turn(-1, "prev", "Previous"), turn(1, "next", "Next"),
        h("button.tool", { type: "button", "aria-label": "Close", title: "Close (Esc)", onclick: () => this.dialog.close() }, icon("close"))),
      h("div.detail-body", {},
        showImage(h("img", { alt: `Image of the chip, ${describe(chip, app.relative)}`, width: LARGE, height: LARGE }), app.api, chip.id, LARGE),
        h("div", {},
          h("div.detail-acts", {},
            act(".primary", null, "Search by this", then(app.examples.searchBy)),
            act(".plus", "plus", "More like this", again(1), sign > 0),
            act(".minus", "minus", "Less like this", again(-1), sign < 0),
            app.showOnMap && chip.geometry ? act("", "pin", "Show on map", then(app.showOnMap)) : null,
            app.compareAt && chip.geometry && chip.time ? act("", "swipe", "Compare dates", then(app.compareAt)) : null),
          h("dl", {}, rows.filter(([, value]) => value).flatMap(([key, value]) => [h("dt", {}, key), h("dd", {}, value)])))));
  }

  #onKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const sign = { "+": 1, "=": 1, "-": -1 }[event.key];
    const list = this.app.gallery.chips;
    const at = list.findIndex((chip) => chip.id === this.chip.id);
    if (step && at >= 0 && list[at + step]) this.open(list[at + step]);
    else if (sign) (this.app.examples.mark(this.chip, sign), this.#fill());
    else return;
    event.preventDefault();
  }
}

// The query panel: an uploaded image, chips with + and -, a place or an area; and the marks for the next search.

import { byId, h, icon } from "./dom.js";
import { formatArea, formatBytes, formatLonLat } from "./format.js";
import { showImage } from "./gallery.js";
import { areaOf } from "./geo.js";

const SHOWN = 8; // thumbnails of examples; the rest is counted

export class QueryPanel {
  /**
   * app: {api, archive, state, examples: {image, marks: Map id -> sign, used: ids that represent a place or area,
   *       upload(file), clear(), refine(), drop(kind, id), setImage({sensor, gsd})}}
   */
  constructor(app) {
    this.app = app;
    this.root = byId("query");
    this.file = h("input.unseen", { type: "file", id: "file", tabindex: "-1", accept: "image/*,.tif,.tiff,.jp2,.webp", "aria-label": "Image to search by",
      onchange: () => { if (this.file.files[0]) app.examples.upload(this.file.files[0]); this.file.value = ""; } });
    this.body = h("div", {});
    this.root.append(this.file, this.body);
  }

  choose() {
    this.file.click();
  }

  render() {
    const { app } = this;
    const { state, examples: { image, marks, used } } = app;
    const hasQuery = state.like.length || state.unlike.length || state.place || state.area || image;
    const parts = [];
    if (!hasQuery && !marks.size) parts.push(this.#invitation());
    if (image) parts.push(this.#image(image));
    if (state.place) parts.push(this.#item("pin", "Chips at this place", formatLonLat(state.place), () => app.examples.drop("place")));
    if (state.area) parts.push(this.#item("outline", "Chips in this area", formatArea(areaOf(state.area)), () => app.examples.drop("area")));
    if (used.length && !state.like.length) parts.push(this.#examples(used.map((id) => [id, 0])));
    const examples = [...state.like.map((id) => [id, 1]), ...state.unlike.map((id) => [id, -1])];
    if (examples.length) parts.push(this.#examples(examples));
    if (marks.size) parts.push(this.#marks(marks));
    const choose = h("button", { type: "button", onclick: () => this.choose() }, hasQuery ? null : icon("image"), hasQuery ? "Other image" : "Choose an image");
    parts.push(h("div.pair", {},
      app.archive.capabilities.image ? choose : null,
      hasQuery ? h("button", { type: "button", onclick: () => app.examples.clear() }, "Start over") : null));
    this.body.replaceChildren(...parts);
  }

  #invitation() {
    const { archive } = this.app;
    const ways = [];
    if (archive.with_footprint) ways.push("click a place on the map");
    if (archive.capabilities.image) ways.push("drop an image anywhere on this page");
    ways.push("open a chip and search by it");
    const text = `${ways.slice(0, -1).join(", ")}${ways.length > 1 ? ", or " : ""}${ways.at(-1)}.`;
    return h("p.invitation", {}, text[0].toUpperCase() + text.slice(1), " Then mark results ", h("b.plus-text", {}, "+"), " or ", h("b.minus-text", {}, "−"), " and search again.");
  }

  #item(symbol, title, text, remove) {
    return h("div.item", {}, h("span.item-icon", {}, icon(symbol)), h("div", {}, h("p.item-title", {}, title), h("p.facts", {}, text)),
      h("button.tool", { type: "button", "aria-label": `Remove: ${title}`, title: "Remove", onclick: remove }, icon("close")));
  }

  #image(image) {
    const { app } = this;
    const preview = h("img", { alt: "", src: image.url, width: 48, height: 48, onerror: (event) => event.target.replaceWith(h("span.item-icon", {}, icon("image"))) });
    const sensors = app.archive.sensors;
    const change = () => app.examples.setImage({ sensor: sensor?.value ?? null, gsd: gsd.value ? Number(gsd.value) : null });
    const sensor = sensors.length > 1
      ? h("select", { id: "image-sensor", onchange: change }, sensors.map(({ name, title }) => h("option", { value: name, selected: name === image.sensor }, `${name} – ${title}`)))
      : null;
    const gsd = h("input", { id: "image-gsd", type: "number", min: "0.001", step: "any", inputmode: "decimal", value: image.gsd ?? "", placeholder: "from the file", onchange: change });
    const box = this.#item("image", image.name, formatBytes(image.size), () => app.examples.drop("image"));
    box.firstChild.replaceWith(preview);
    return h("div.image-item", {}, box,
      h("div.pair", {},
        sensor ? h("div", {}, h("label.label", { for: "image-sensor" }, "Sensor"), sensor) : null,
        h("div", {}, h("label.label", { for: "image-gsd" }, "Metres per pixel"), gsd)),
      image.guessed ? h("p.hint", {}, "The GSD of the archive's chips. Change it if your image has another one.") : null);
  }

  #examples(examples) {
    const { app } = this;
    const rest = examples.length - SHOWN;
    return h("ul.examples", { "aria-label": "Examples" },
      examples.slice(0, SHOWN).map(([id, sign]) => this.#example(id, sign, sign ? () => app.examples.drop("chip", id) : null)),
      rest > 0 ? h("li.facts", {}, `and ${rest} more`) : null);
  }

  #example(id, sign, remove, pending = false) {
    const kind = sign > 0 ? "plus" : sign < 0 ? "minus" : "";
    const word = sign > 0 ? "more like" : sign < 0 ? "less like" : "used for this search";
    return h(`li.example${kind ? `.${kind}` : ""}${pending ? ".pending" : ""}`, {},
      showImage(h("img", { alt: `Example, ${word}: ${id}`, width: 48, height: 48 }), this.app.api, id, 96),
      kind ? h("span.sign", { "aria-hidden": "true" }, sign > 0 ? "+" : "−") : null,
      remove ? h("button", { type: "button", "aria-label": `Remove example ${id}`, title: "Remove", onclick: remove }, icon("close")) : null);
  }

  #marks(marks) {
    const { app } = this;
    const all = [...marks];
    const more = all.filter(([, sign]) => sign > 0).length;
    const counts = [more ? `+${more}` : "", all.length - more ? `−${all.length - more}` : ""].filter(Boolean).join(" ");
    const needsPositive = !app.state.like.length && !app.state.place && !app.state.area && !app.examples.image && !more;
    return h("div.pending-marks", {},
      h("ul.examples", { "aria-label": "Marked as example" }, all.slice(0, SHOWN).map(([id, sign]) => this.#example(id, sign, () => app.examples.drop("mark", id), true)),
        all.length > SHOWN ? h("li.facts", {}, `and ${all.length - SHOWN} more`) : null),
      h("button.primary.wide", { type: "button", id: "refine", disabled: needsPositive, onclick: () => app.examples.refine() }, `Search with the marked examples (${counts})`),
      needsPositive ? h("p.hint", {}, "Mark at least one chip with + as well.") : null);
  }
}


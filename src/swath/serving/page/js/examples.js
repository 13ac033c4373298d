// What a search starts from: an uploaded image, chips with + and -, a place or an area; and the marks for the next search.

import { ApiError } from "./api.js";
import { announce, byId, h } from "./dom.js";
import { formatBytes, plural } from "./format.js";

export class Examples {
  /** app: {api, archive, relative, state, gallery, query, filters, run(), showError(error), updateAddress(step)} */
  constructor(app) {
    this.app = app;
    this.image = null; // {file, name, size, url, sensor, gsd, guessed}
    this.marks = new Map(); // id -> 1 or -1: marked, not yet searched with
    this.used = []; // ids that represented a place or an area in the last search
  }

  /** Starts a new search: one step of the history, so that Back returns to the previous one. */
  #newSearch(change) {
    const { app } = this;
    change();
    this.marks.clear();
    this.#offerRefining();
    app.updateAddress(true);
    return app.run();
  }

  /** Forgets the image and the marks, which are not part of the address. */
  reset() {
    this.#clearImage();
    this.marks.clear();
    this.#offerRefining();
  }

  searchPlace(place) {
    this.#newSearch(() => (this.#clearExamples(), (this.app.state.place = place)));
  }

  searchBy = (chip) => this.#newSearch(() => (this.#clearExamples(), (this.app.state.like = [chip.id])));

  /** Turns the area filter into the query. */
  searchArea() {
    const { state, filters } = this.app;
    this.#newSearch(() => {
      this.#clearExamples();
      [state.area, state.filters.area] = [state.filters.area, null];
      filters.render();
    });
  }

  upload(file) {
    const { app } = this;
    const maxBytes = app.archive.limits?.upload_bytes;
    if (!app.archive.capabilities.image) return app.showError(new ApiError("No model is loaded, so searching by image is unavailable.", "Search by a place or a chip, or start the server with --model."));
    if (maxBytes && file.size > maxBytes) return app.showError(new ApiError(`${file.name} has ${formatBytes(file.size)}; this server accepts at most ${formatBytes(maxBytes)}.`, "Crop or downsample the image."));
    this.#newSearch(() => {
      this.#clearExamples();
      const gsd = this.#archiveGsd(file);
      this.image = { file, name: file.name, size: file.size, url: URL.createObjectURL(file), sensor: app.archive.sensors[0]?.name ?? null, gsd, guessed: gsd !== null };
    });
  }

  /** The GSD assumed for an image without georeference, if all chips of the archive share one. */
  #archiveGsd(file) {
    const [low, high] = this.app.archive.gsd ?? [0, Infinity];
    const plainImage = ["image/png", "image/jpeg", "image/webp"].includes(file.type);
    return plainImage && !this.app.relative && high <= low * 1.001 ? low : null;
  }

  setImage(change) {
    Object.assign(this.image, change, { guessed: false });
    this.app.run();
  }

  /** Adds the marks to the examples; after a search by place or area, the chips used for it become examples. */
  refine() {
    if (!this.marks.size) return;
    const marks = new Map(this.marks);
    this.#newSearch(() => {
      const { state } = this.app;
      const signed = (sign) => [...marks].filter(([, s]) => s === sign).map(([id]) => id);
      const unmarked = (ids) => ids.filter((id) => !marks.has(id));
      const before = state.place || state.area ? this.used : state.like;
      Object.assign(state, { place: null, area: null });
      state.like = [...unmarked(before), ...signed(1)];
      state.unlike = [...unmarked(state.unlike), ...signed(-1)];
    });
  }

  clear() {
    this.#newSearch(() => {
      this.#clearExamples();
      this.used = [];
    });
  }

  /** Removes one part of the query. */
  drop(kind, id) {
    if (kind === "mark") {
      this.marks.delete(id);
      this.#showMarks();
      return;
    }
    this.#newSearch(() => {
      const { state } = this.app;
      if (kind === "place") state.place = null;
      else if (kind === "area") state.area = null;
      else if (kind === "image") this.#clearImage();
      else [state.like, state.unlike] = [state.like.filter((other) => other !== id), state.unlike.filter((other) => other !== id)];
      if (!state.like.length && !this.image) state.unlike = []; // `unlike` needs at least one `like`
    });
  }

  #clearExamples() {
    Object.assign(this.app.state, { like: [], unlike: [], place: null, area: null });
    this.#clearImage();
  }

  #clearImage() {
    if (this.image) URL.revokeObjectURL(this.image.url);
    this.image = null;
  }

  // ------------------------------------------------------------------------------------------ marks

  markOf = (id) => this.marks.get(id) ?? 0;

  mark = (chip, sign) => {
    if (this.markOf(chip.id) === sign) this.marks.delete(chip.id);
    else this.marks.set(chip.id, sign);
    this.#showMarks();
    const current = this.markOf(chip.id);
    announce(current === 0 ? "Mark removed." : `Marked as ${current > 0 ? "more" : "less"} like this. ${plural(this.marks.size, "mark")}; press S to search again.`);
  };

  #showMarks() {
    this.app.gallery.showMarks();
    this.app.query.render();
    this.#offerRefining();
  }

  /** A second button below the results: on a small screen the one in the query panel may be out of view. */
  #offerRefining() {
    const text = `Search with ${plural(this.marks.size, "marked example")}`;
    byId("more").replaceChildren(...(this.marks.size ? [h("button.primary.wide", { type: "button", onclick: () => this.refine() }, text)] : []));
  }
}

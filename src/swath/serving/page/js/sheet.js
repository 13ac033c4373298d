// On a small screen the panels are a sheet over the map with three heights; drag or tap the grip to change it.

import { byId } from "./dom.js";

const STOPS = { low: 92, half: 0.46, high: 0.92 }; // pixels, or fractions of the page height

export class Sheet {
  constructor() {
    this.panels = byId("panels");
    this.grip = byId("grip");
    this.set("half");
    let from = null;
    this.grip.addEventListener("pointerdown", (event) => {
      this.grip.setPointerCapture(event.pointerId);
      from = { y: event.clientY, height: this.panels.offsetHeight, moved: false };
      this.panels.classList.add("dragging");
    });
    this.grip.addEventListener("pointermove", (event) => {
      if (!from) return;
      const up = from.y - event.clientY;
      from.moved ||= Math.abs(up) > 4;
      if (from.moved) this.#height(from.height + up);
    });
    const release = () => {
      if (!from) return;
      this.panels.classList.remove("dragging");
      const moved = from.moved;
      from = null;
      if (!moved) return; // a tap: the click follows
      this.dragged = true;
      const height = this.panels.offsetHeight;
      const [nearest] = Object.keys(STOPS).sort((a, b) => Math.abs(this.#pixels(a) - height) - Math.abs(this.#pixels(b) - height));
      this.set(nearest);
    };
    this.grip.addEventListener("pointerup", release);
    this.grip.addEventListener("pointercancel", release);
    this.grip.addEventListener("click", () => {
      if (!this.dragged) this.set({ low: "half", half: "high", high: "low" }[this.at]);
      this.dragged = false;
    });
  }

  set(stop) {
    this.at = stop;
    this.grip.setAttribute("aria-expanded", String(stop !== "low"));
    this.#height(this.#pixels(stop));
  }

  /** Opens the sheet at least halfway. */
  raise() {
    if (this.at === "low") this.set("half");
  }

  #pixels(stop) {
    const available = this.panels.parentElement.clientHeight;
    return STOPS[stop] > 1 ? STOPS[stop] : STOPS[stop] * available;
  }

  #height(pixels) {
    const available = this.panels.parentElement.clientHeight;
    const fraction = Math.max(STOPS.low, Math.min(0.96 * available, pixels)) / available;
    this.panels.parentElement.style.setProperty("--sheet-height", `${100 * fraction}%`);
  }
}

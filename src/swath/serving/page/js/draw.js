// Drawing an area on the map: a rectangle by dragging (or two taps), a polygon by its corners.

import { byId, h } from "./dom.js";
import { boxPolygon, polygonOf, wrapLongitude } from "./geo.js";

const HINTS = {
  box: "Drag a rectangle or click two corners. Esc cancels.",
  outline: "Click the corners; Enter or a click on the first corner closes the polygon. Backspace removes the last corner, Esc cancels.",
};

/**
 * Lets the user draw over the map.
 *
 * chips: the ChipMap; kind: "box" or "outline".
 * Returns `done`, a promise of a GeoJSON geometry or of null if canceled, and `stop` to cancel.
 */
export function draw(chips, kind) {
  const { map } = chips;
  const surface = h("div.draw-surface", { role: "application", "aria-label": `${HINTS[kind]} You can also type coordinates in the filters.`, tabindex: "0" },
    h("p.draw-hint", {}, HINTS[kind]));
  const corners = []; // longitudes may exceed 180, as the map returns them
  let from = null; // where the pointer went down, pixels
  let end;
  const done = new Promise((resolve) => {
    end = (geometry) => {
      chips.showDraft(null);
      surface.remove();
      map.getCanvas().focus({ preventScroll: true });
      resolve(geometry);
    };
  });
  const pixel = (event) => {
    const frame = surface.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  };
  const lonLat = (at) => map.unproject(at).toArray();
  const screen = (corner) => {
    const { x, y } = map.project(corner);
    return [x, y];
  };
  const far = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) > 6;
  const box = (a, b) => {
    const [w, e] = [Math.min(a[0], b[0]), Math.max(a[0], b[0])];
    const [s, n] = [Math.min(a[1], b[1]), Math.max(a[1], b[1])];
    return w < e && s < n ? boxPolygon([wrapLongitude(w), s, wrapLongitude(e), n]) : null;
  };
  const preview = (next) => {
    const all = [...corners, next];
    if (kind === "box") chips.showDraft(corners.length ? box(corners[0], next) : null);
    else if (all.length > 2) chips.showDraft({ type: "Polygon", coordinates: [[...all, all[0]]] });
    else chips.showDraft({ type: "LineString", coordinates: all.length > 1 ? all : [next, next] });
  };
  const finish = (geometry) => geometry && end(geometry);

  surface.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    surface.focus({ preventScroll: true });
    surface.setPointerCapture(event.pointerId);
    from = pixel(event);
    if (kind === "box" && !corners.length) corners.push(lonLat(from));
  });
  surface.addEventListener("pointermove", (event) => preview(lonLat(pixel(event))));
  surface.addEventListener("pointerup", (event) => {
    const at = pixel(event);
    if (kind === "box") {
      if (far(at, screen(corners[0]))) finish(box(corners[0], lonLat(at)));
      return;
    }
    if (corners.length > 2 && !far(at, screen(corners[0]))) return finish(polygonOf(corners));
    if (!corners.length || far(at, screen(corners.at(-1)))) corners.push(lonLat(at));
    else finish(polygonOf(corners)); // the same corner again: a double click
    preview(lonLat(at));
  });
  surface.addEventListener("keydown", (event) => {
    if (event.key === "Escape") end(null);
    else if (event.key === "Enter" && kind === "outline") finish(polygonOf(corners));
    else if (event.key === "Backspace" && kind === "outline") (corners.pop(), chips.showDraft(null));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  byId("map-part").append(surface);
  surface.focus({ preventScroll: true });
  return { done, stop: () => end(null) };
}

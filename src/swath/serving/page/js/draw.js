// Drawing an area on the map: a rectangle by dragging (or two taps), a polygon by its corners.

import { byId, h } from "./dom.js";
import { boxPolygon, polygonOf, wrapLongitude } from "./geo.js";

const HINTS = {
  box: "Drag a rectangle, or give two corners. Esc ends it.",
  outline: "Give the corners; Enter or the first corner again closes it. Backspace takes one back, Esc ends it.",
};

/**
 * Lets the user draw over the map.
 *
 * chips: the ChipMap; kind: "box" or "outline".
 * Returns a promise of a GeoJSON geometry, or of null if it was given up; and `stop` to give it up.
 */
export function draw(chips, kind) {
  const { map } = chips;
  const surface = h("div.draw-surface", { role: "application", "aria-label": `${HINTS[kind]} Coordinates can be typed in the filters instead.`, tabindex: "0" },
    h("p.draw-hint", {}, HINTS[kind]));
  const corners = []; // longitudes go on beyond 180, as the map gives them
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
  const place = (at) => map.unproject(at).toArray();
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
    if (kind === "box" && !corners.length) corners.push(place(from));
  });
  surface.addEventListener("pointermove", (event) => preview(place(pixel(event))));
  surface.addEventListener("pointerup", (event) => {
    const at = pixel(event);
    if (kind === "box") {
      if (far(at, screen(corners[0]))) finish(box(corners[0], place(at)));
      return;
    }
    if (corners.length > 2 && !far(at, screen(corners[0]))) return finish(polygonOf(corners));
    if (!corners.length || far(at, screen(corners.at(-1)))) corners.push(place(at));
    else finish(polygonOf(corners)); // twice at one corner: a double click
    preview(place(at));
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

// The list of keys.

import { byId, h, icon } from "./dom.js";

const KEYS = [
  ["?", "This list"],
  ["/", "Choose an image to search by"],
  ["F", "Filters"],
  ["M", "To the map; there Enter searches by the place in the middle"],
  ["A", "To the answers; arrows go from one to the next, Enter looks closer"],
  ["+  −", "More like, less like the answer that has the focus"],
  ["S", "Search again with what is marked"],
  ["R", "Draw a rectangle as area"],
  ["P", "Draw a polygon as area"],
  ["C", "Compare two dates"],
  ["E", "Save the answers as GeoJSON"],
  ["Esc", "Close what is open; stop drawing"],
];

export function fillHelp(withMap) {
  const dialog = byId("help");
  const shown = KEYS.filter(([key]) => withMap || !["M", "R", "P", "C"].includes(key));
  dialog.replaceChildren(
    h("header", {}, h("h2", { id: "help-title" }, "Keys"), h("button.tool", { type: "button", "aria-label": "Close", onclick: () => dialog.close() }, icon("close"))),
    h("dl", {}, shown.flatMap(([key, text]) => [h("dt", {}, ...key.split("  ").flatMap((k) => [h("kbd", {}, k), " "])), h("dd", {}, text)])));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

// The list of keyboard shortcuts.

import { byId, h, icon } from "./dom.js";

const KEYS = [
  ["?", "This list"],
  ["/", "Choose an image to search by"],
  ["F", "Filters"],
  ["M", "Go to the map; there, Enter searches by the place at its center"],
  ["A", "Go to the results; arrow keys move between them, Enter opens one"],
  ["+  −", "Mark the focused result as more or less like this"],
  ["S", "Search with the marked examples"],
  ["R", "Draw a rectangle"],
  ["P", "Draw a polygon"],
  ["C", "Compare two dates"],
  ["E", "Save the results as GeoJSON"],
  ["Esc", "Close a dialog; cancel drawing"],
];

export function fillHelp(withMap) {
  const dialog = byId("help");
  const shown = KEYS.filter(([key]) => withMap || !["M", "R", "P", "C"].includes(key));
  dialog.replaceChildren(
    h("header", {}, h("h2", { id: "help-title" }, "Keys"), h("button.tool", { type: "button", "aria-label": "Close", onclick: () => dialog.close() }, icon("close"))),
    h("dl", {}, shown.flatMap(([key, text]) => [h("dt", {}, ...key.split("  ").flatMap((k) => [h("kbd", {}, k), " "])), h("dd", {}, text)])));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

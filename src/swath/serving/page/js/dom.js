// Small helpers for making elements.

/** h("button.quiet", {type: "button", onclick: f, "aria-pressed": "true"}, "text", child, ...) */
export function h(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "dataset") Object.assign(element.dataset, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An icon of the sprite in index.html; hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export const byId = (id) => document.getElementById(id);

/** Calls `f` once it has not been requested for `ms`. */
export function debounce(f, ms) {
  let timer;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => f(...args), ms);
  };
}

/** Announces a text to screen readers, politely. */
export function announce(text) {
  byId("live-status").textContent = "";
  // Only a changed text is announced, hence in two steps.
  requestAnimationFrame(() => (byId("live-status").textContent = text));
}

let toastTimer;

/** Shows a message for four seconds, and announces it. */
export function toast(text) {
  const box = byId("toast");
  announce(text);
  box.textContent = text;
  box.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (box.hidden = true), 4000);
}

/** The value of a custom property of the style sheet. */
export const cssToken = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export const reducedMotion = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// What every state of the page must be; each check returns what offends. Installed by test_map_page.py.

window.checks = {
  /** Controls that a screen reader could not name. */
  unnamed() {
    const controls = [...document.querySelectorAll("button, input, select, a, [role=slider], dialog[open]")];
    const named = (e) =>
      e.getAttribute("aria-label") || e.getAttribute("aria-labeledby") || e.textContent.trim() ||
      [...(e.labels ?? [])].some((label) => label.textContent.trim());
    return controls.filter((e) => e.offsetParent || e.matches("dialog")).filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 120));
  },

  /** Ids that stand twice. */
  doubleIds() {
    return [...document.querySelectorAll("[id]")].map((e) => e.id).filter((id, i, all) => all.indexOf(id) !== i);
  },

  /** Texts with a contrast below 4.5 (WCAG 2.2, 1.4.3) against the nearest ground that is not transparent. */
  faint() {
    const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
      pixel.clearRect(0, 0, 1, 1);
      pixel.fillStyle = color;
      pixel.fillRect(0, 0, 1, 1);
      return [...pixel.getImageData(0, 0, 1, 1).data];
    };
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const luminance = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
    const ground = (element) => {
      for (let e = element; e; e = e.parentElement) {
        const color = rgba(getComputedStyle(e).backgroundColor);
        if (color[3] > 200) return color;
      }
      return [255, 255, 255];
    };
    const texts = [...document.querySelectorAll("body *")].filter(
      (e) =>
        e.offsetParent && !e.disabled && !e.closest(".unseen, svg, option, .maplibregl-canvas-container") &&
        [...e.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim()));
    return texts.flatMap((e) => {
      const [more, less] = [luminance(rgba(getComputedStyle(e).color)), luminance(ground(e))].sort((a, b) => b - a);
      const ratio = (more + 0.05) / (less + 0.05);
      return ratio < 4.5 ? [`${ratio.toFixed(2)} ${e.outerHTML.slice(0, 100)}`] : [];
    });
  },

  /** Elements of the panels that reach beyond the screen's right edge. */
  overflowing() {
    return [...document.querySelectorAll("#panels *")]
      .filter((e) => e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 100));
  },

  /** Buttons too small for a finger: less than 24 px either way (WCAG 2.2, 2.5.8). */
  small() {
    return [...document.querySelectorAll("button")].filter((e) => e.offsetParent)
      .filter((e) => Math.min(e.offsetWidth, e.offsetHeight) < 24).map((e) => e.outerHTML.slice(0, 100));
  },
};

// The server of the page. URLs are relative, so that the page also works below a proxy's prefix.

/** An error of the server, or of reaching it: `detail` is what went wrong, `fix` what to do about it or null. */
export class ApiError extends Error {
  constructor(detail, fix = null, status = 0) {
    super(detail);
    Object.assign(this, { detail, fix, status });
  }
}

const KEY = "swath-token";

/**
 * The token given as `#token=...` in the address. It is stored for this tab and removed from the address, so that
 * a copied link does not contain it.
 */
export function takeToken(location = window.location, storage = window.sessionStorage) {
  const params = new URLSearchParams(location.hash.slice(1));
  const given = params.get("token");
  if (given) {
    storage.setItem(KEY, given);
    params.delete("token");
    window.history.replaceState(null, "", `${location.pathname}${location.search}#${params}`);
  }
  return given ?? storage.getItem(KEY);
}

export class Api {
  constructor(token = null) {
    this.token = token;
    this.base = new URL("api/", document.baseURI);
    this.images = new Map(); // URL -> promise of an object URL, with a token only
  }

  url(path, params = {}) {
    const url = new URL(path, this.base);
    for (const [key, value] of Object.entries(params)) {
      if (value !== null && value !== undefined && value !== "") url.searchParams.set(key, value);
    }
    return url;
  }

  get headers() {
    return this.token ? { Authorization: `Bearer ${this.token}` } : {};
  }

  async get(path, params, signal) {
    return (await this.#fetch(this.url(path, params), { signal })).json();
  }

  async post(path, body, signal) {
    const form = body instanceof FormData;
    const headers = form ? {} : { "Content-Type": "application/json" };
    const content = form ? body : JSON.stringify(body);
    return (await this.#fetch(this.url(path), { method: "POST", headers, body: content, signal })).json();
  }

  /** URL of a chip's image for an <img>; with a token it is fetched first. */
  async image(id, size) {
    const url = this.url(`chips/${encodeURIComponent(id)}/image`, { size }).href;
    if (!this.token) return url;
    if (!this.images.has(url)) {
      const objectUrl = this.#fetch(url, {}).then(async (response) => URL.createObjectURL(await response.blob()));
      objectUrl.catch(() => this.images.delete(url));
      this.images.set(url, objectUrl);
    }
    return this.images.get(url);
  }

  /** URL template of the imagery tiles, for a map source. */
  tiles(params) {
    const query = this.url("", params).search;
    return `${this.base.href}tiles/{z}/{x}/{y}.png${query}`;
  }

  async #fetch(url, { headers = {}, ...options }) {
    let response;
    try {
      response = await fetch(url, { ...options, headers: { ...headers, ...this.headers } });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("The server does not respond.", "Check that `swath serve` is still running, then try again.");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      const detail = this.token ? "This server rejected this token." : "This server requires a token.";
      throw new ApiError(detail, "Open the page with #token=… at the end of its address.", 401);
    }
    const problem = await response.json().catch(() => null); // RFC 9457
    throw new ApiError(problem?.detail ?? `The server responded with status ${response.status}.`, problem?.fix ?? null, response.status);
  }
}

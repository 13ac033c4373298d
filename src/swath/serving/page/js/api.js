// The service behind the page. Addresses are relative, so that the page also works below a proxy's prefix.

/** What the service refused, or why it could not be asked: `what` happened and, where known, the `fix`. */
export class ApiError extends Error {
  constructor(what, fix = null, status = 0) {
    super(what);
    Object.assign(this, { what, fix, status });
  }
}

const KEY = "swath-token";

/**
 * The token given as `#token=...` in the address. It is kept for this tab and taken out of the address, so that
 * a copied link does not carry it.
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
    this.pictures = new Map(); // address -> promise of an object URL, with a token only
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
    const sent = form ? body : JSON.stringify(body);
    return (await this.#fetch(this.url(path), { method: "POST", headers, body: sent, signal })).json();
  }

  /** Address of a chip's picture for an <img>; with a token it is fetched first. */
  async picture(id, size) {
    const url = this.url(`chips/${encodeURIComponent(id)}/picture`, { size }).href;
    if (!this.token) return url;
    if (!this.pictures.has(url)) {
      const made = this.#fetch(url, {}).then(async (response) => URL.createObjectURL(await response.blob()));
      made.catch(() => this.pictures.delete(url));
      this.pictures.set(url, made);
    }
    return this.pictures.get(url);
  }

  /** Template of the imagery's tiles, for a map source. */
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
      throw new ApiError("The service does not answer.", "See whether `swath serve` still runs, then try again.");
    }
    if (response.ok) return response;
    if (response.status === 401) {
      const what = this.token ? "The service does not take this token." : "This service asks for a token.";
      throw new ApiError(what, "Open the page with #token=… at the end of its address.", 401);
    }
    const told = await response.json().then((body) => body.error, () => null);
    throw new ApiError(told?.what ?? `The service answered ${response.status}.`, told?.fix ?? null, response.status);
  }
}

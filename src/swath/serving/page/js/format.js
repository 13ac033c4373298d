// Numbers, dates and coordinates as text. Pure functions.

const counts = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** 12345 -> "12,345". */
export const formatCount = (n) => counts.format(n);

/** (1, "chip") -> "1 chip"; (3, "chip") -> "3 chips". */
export const plural = (n, word) => `${formatCount(n)} ${word}${n === 1 ? "" : "s"}`;

/** Three significant digits and no trailing zeros: 0.15, 10, 1.19. */
const short = (value) => String(Number(value.toPrecision(3)));

/** Metres per pixel: "0.15 m", "10 m", "1.2 km"; empty for an archive of relative GSD, which is not in metres. */
export function formatGsd(gsd, relative = false) {
  if (relative || gsd == null || !Number.isFinite(gsd)) return "";
  return gsd >= 1000 ? `${short(gsd / 1000)} km` : `${short(gsd)} m`;
}

/** The day of an ISO time: "2017-10-15"; empty if there is none. */
export const formatDate = (time) => (time ? String(time).slice(0, 10) : "");

/** Day and minute of an ISO time in UTC; the day alone if the time is midnight. */
export function formatTime(time) {
  const [day, clock] = String(time ?? "").split("T");
  return !clock || clock.startsWith("00:00:00") ? day : `${day} ${clock.slice(0, 5)} UTC`;
}

/** First and last year: "2015 – 2018", "2017". */
export function formatYears([first, last]) {
  const [a, b] = [formatDate(first).slice(0, 4), formatDate(last).slice(0, 4)];
  return a === b ? a : `${a} – ${b}`;
}

/** A similarity with a true minus sign; three decimals, because near neighbors differ in the third. */
export const formatScore = (score) => (Number.isFinite(score) ? score.toFixed(3).replace("-", "−") : "");

/** A change in standard deviations: "12.2". */
export const formatDeviations = (value) => value.toFixed(1).replace("-", "−");

/** [longitude, latitude] -> "48.0498° W, 15.8222° S" with `digits` decimals. */
export function formatLonLat([lon, lat], digits = 4) {
  const wrapped = ((((lon + 180) % 360) + 360) % 360) - 180;
  return `${formatLat(lat, digits)}, ${formatLon(wrapped, digits)}`;
}

export const formatLon = (lon, digits) => hemisphere(lon, digits, "E", "W");
export const formatLat = (lat, digits) => hemisphere(lat, digits, "N", "S");

function hemisphere(value, digits, positive, negative) {
  const text = Math.abs(value).toFixed(digits);
  return Number(text) === 0 ? `${text}°` : `${text}° ${value > 0 ? positive : negative}`;
}

/** Square metres -> "820 m²", "3.4 ha", "12.3 km²". */
export function formatArea(squareMetres) {
  if (squareMetres < 1e4) return `${short(squareMetres)} m²`;
  if (squareMetres < 1e6) return `${short(squareMetres / 1e4)} ha`;
  const km2 = squareMetres / 1e6;
  return `${km2 >= 1000 ? formatCount(km2) : short(km2)} km²`;
}

/** Bytes -> "830 kB", "12 MB". */
export const formatBytes = (bytes) => (bytes < 1e6 ? `${short(bytes / 1e3)} kB` : `${short(bytes / 1e6)} MB`);

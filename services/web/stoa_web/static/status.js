// The statuses of rows: an icon, a word and a colour, everywhere the same.

import { count, el, svg } from "./dom.js";

export const STATUSES = ["current", "running", "queued", "stale", "cancelled", "failed"];
export const ICONS = { stale: "◔", queued: "⋯", running: "▶", current: "✓", failed: "✕", cancelled: "–" };

export const badge = (status) =>
  el("span", { class: `status ${status}` }, el("span", { class: "icon", "aria-hidden": "true" }, ICONS[status] ?? "?"), ` ${status}`);

const shown = (counts) => STATUSES.filter((status) => counts[status] > 0);

/** The statuses in words, for people who do not see the bar. */
export const described = (counts) => shown(counts).map((status) => `${counts[status]} ${status}`).join(", ") || "no rows";

/** The parts of a stacked bar, as rectangles in a box. */
export function barParts(counts, x, y, width, height) {
  const total = shown(counts).reduce((sum, status) => sum + counts[status], 0);
  const parts = [svg("rect", { x, y, width, height, class: "bar-ground" })];
  if (!total) return parts;
  // A single failure among thousands has to be seen.
  const least = Math.min(3, width / 12);
  const widths = shown(counts).map((status) => Math.max(least, (counts[status] / total) * width));
  const scale = width / widths.reduce((sum, each) => sum + each, 0);
  let left = x;
  shown(counts).forEach((status, index) => {
    const part = widths[index] * scale;
    parts.push(svg("rect", { x: left.toFixed(2), y, width: part.toFixed(2), height, class: `bar-${status}` }));
    left += part;
  });
  return parts;
}

export function bar(counts) {
  return svg(
    "svg",
    { class: "bar", viewBox: "0 0 200 8", preserveAspectRatio: "none", role: "img", "aria-label": described(counts) },
    barParts(counts, 0, 0, 200, 8),
  );
}

/** The counts with their icons; each leads to the rows that it counts where an address is given. */
export function chips(counts, address) {
  return el(
    "span",
    { class: "counts" },
    shown(counts).map((status) => {
      const words = [el("span", { class: "icon", "aria-hidden": "true" }, ICONS[status]), ` ${count(counts[status])} ${status}`];
      return address ? el("a", { class: `count ${status}`, href: address(status) }, words) : el("span", { class: `count ${status}` }, words);
    }),
  );
}

// Draws the tables from left to right, parents before children.

import { write } from "./address.js";
import { plural, svg } from "./dom.js";
import { barParts, described, ICONS, STATUSES } from "./status.js";

const WIDTH = 208;
const HEIGHT = 92;
const GAP_X = 72;
const GAP_Y = 22;
const MARGIN = 16;
const SWEEPS = 4;
const KINDS = { worktable: "▦", plain: "▤", join: "⋈" };
const KIND_WORDS = { worktable: "", plain: "plain table", join: "join" };

/** Give each table its column and its place in it. */
export function layout(tables, links) {
  const known = new Map(tables.map((table) => [table.id, table]));
  const parents = new Map(tables.map((table) => [table.id, new Set()]));
  for (const link of links) {
    for (const parent of link.parents) if (known.has(parent) && known.has(link.table)) parents.get(link.table).add(parent);
  }
  const layers = new Map();
  const layer = (id) => {
    if (!layers.has(id)) layers.set(id, parents.get(id).size ? 1 + Math.max(...[...parents.get(id)].map(layer)) : 0);
    return layers.get(id);
  };
  tables.forEach((table) => layer(table.id));
  const columns = [];
  for (const table of tables) (columns[layer(table.id)] ??= []).push(table.id);
  const children = new Map(tables.map((table) => [table.id, []]));
  for (const [child, its] of parents) for (const parent of its) children.get(parent).push(child);
  // What stands at the height of its neighbours has fewer crossings.
  const order = new Map();
  const note = (column) => column.forEach((id, index) => order.set(id, index - column.length / 2));
  columns.forEach(note);
  const settle = (column, neighbours) => {
    const wish = (id) => {
      const near = neighbours(id);
      return near.length ? near.reduce((sum, each) => sum + order.get(each), 0) / near.length : order.get(id);
    };
    const wishes = new Map(column.map((id) => [id, wish(id)]));
    column.sort((a, b) => wishes.get(a) - wishes.get(b));
    note(column);
  };
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    columns.slice(1).forEach((column) => settle(column, (id) => [...parents.get(id)]));
    columns.slice(0, -1).reverse().forEach((column) => settle(column, (id) => children.get(id)));
  }
  const tallest = Math.max(...columns.map((column) => column.length));
  const places = new Map();
  columns.forEach((column, x) => {
    const top = ((tallest - column.length) * (HEIGHT + GAP_Y)) / 2;
    column.forEach((id, y) => places.set(id, { x: MARGIN + x * (WIDTH + GAP_X), y: MARGIN + top + y * (HEIGHT + GAP_Y) }));
  });
  return {
    places,
    edges: [...parents].flatMap(([child, its]) => [...its].map((parent) => [parent, child])),
    width: 2 * MARGIN + columns.length * WIDTH + (columns.length - 1) * GAP_X,
    height: 2 * MARGIN + tallest * HEIGHT + (tallest - 1) * GAP_Y,
  };
}

const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

function counted(counts, x, y) {
  const line = svg("text", { x, y, class: "node-counts" });
  const shown = STATUSES.filter((status) => counts[status] > 0);
  shown.forEach((status, index) => {
    line.append(svg("tspan", { class: `ink-${status}`, dx: index ? 9 : 0 }, `${ICONS[status]} ${counts[status]}`));
  });
  if (!shown.length) line.append("no rows yet");
  return line;
}

function node(table, place) {
  const { x, y } = place;
  const kind = KIND_WORDS[table.kind];
  const label = `${table.name}: ${kind ? `${kind}, ` : ""}${plural(table.rows, "row")}; ${described(table.counts)}`;
  const busy = (table.counts.running ?? 0) + (table.counts.queued ?? 0) > 0;
  return svg(
    "a",
    { href: write({ table: table.name }), class: busy ? "node busy" : "node", "aria-label": label, "data-table": table.name },
    svg("title", {}, table.description || label),
    svg("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 8, class: "node-box" }),
    svg("text", { x: x + 12, y: y + 24, class: "node-name" }, `${KINDS[table.kind] ?? "▦"} ${clip(table.name, 22)}`),
    svg("text", { x: x + 12, y: y + 43, class: "node-kind" }, [plural(table.rows, "row"), kind].filter(Boolean).join(" · ")),
    svg("g", {}, barParts(table.counts, x + 12, y + 54, WIDTH - 24, 8)),
    counted(table.counts, x + 12, y + 80),
  );
}

export function draw(tables, links) {
  const { places, edges, width, height } = layout(tables, links);
  const busy = new Set(tables.filter((table) => table.counts.running || table.counts.queued).map((table) => table.id));
  const lines = edges.map(([parent, child]) => {
    const from = places.get(parent);
    const to = places.get(child);
    const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2];
    const bend = Math.max(30, (x2 - x1) / 2);
    const d = `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
    return svg("path", { d, class: busy.has(child) ? "edge busy" : "edge" });
  });
  return svg(
    "svg",
    { class: "graph", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Tables and what fills them" },
    lines,
    tables.map((table) => node(table, places.get(table.id))),
  );
}

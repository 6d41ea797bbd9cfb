// Draws the tables from left to right, parents before children.

import { write } from "./address.js";
import { plural, svg } from "./dom.js";
import { barParts, described, ICONS, STATUSES } from "./status.js";

const WIDTH = 208;
const HEIGHT = 92;
const GAP_X = 72;
const GAP_Y = 22;
const LANE = 12;
const MARGIN = 16;
const SWEEPS = 4;
const KINDS = { worktable: "▦", plain: "▤", join: "⋈" };
const KIND_WORDS = { worktable: "", plain: "plain table", join: "join" };

/** Give each table its column and its place in it, and each edge the places that it passes. */
export function layout(tables, links) {
  const parents = new Map(tables.map((table) => [table.id, new Set()]));
  for (const link of links) {
    for (const parent of link.parents) if (parents.has(parent)) parents.get(link.table)?.add(parent);
  }
  const layers = new Map();
  const layer = (id) => {
    if (!layers.has(id)) layers.set(id, parents.get(id).size ? 1 + Math.max(...[...parents.get(id)].map(layer)) : 0);
    return layers.get(id);
  };
  const columns = [];
  const put = (id, x) => (columns[x] ??= []).push(id);
  for (const table of tables) put(table.id, layer(table.id));

  // An edge that crosses a column gets a lane of its own there, so that it does not run behind a table.
  const before = new Map();
  const after = new Map();
  const join = (from, to) => {
    after.set(from, [...(after.get(from) ?? []), to]);
    before.set(to, [...(before.get(to) ?? []), from]);
  };
  const edges = [];
  for (const [child, its] of parents) {
    for (const parent of its) {
      const path = [parent];
      for (let x = layer(parent) + 1; x < layer(child); x++) {
        path.push(`${parent}>${child}@${x}`);
        put(path.at(-1), x);
      }
      path.push(child);
      path.slice(1).forEach((to, index) => join(path[index], to));
      edges.push(path);
    }
  }
  const heightOf = (id) => (parents.has(id) ? HEIGHT : LANE);

  // What stands at the height of its neighbours has fewer crossings.
  const middle = new Map();
  const stack = (column) => {
    const total = column.reduce((sum, id) => sum + heightOf(id) + GAP_Y, -GAP_Y);
    let y = -total / 2;
    for (const id of column) {
      middle.set(id, y + heightOf(id) / 2);
      y += heightOf(id) + GAP_Y;
    }
    return total;
  };
  columns.forEach(stack);
  const settle = (column, neighbours) => {
    const wish = (id) => {
      const near = neighbours.get(id) ?? [];
      return near.length ? near.reduce((sum, each) => sum + middle.get(each), 0) / near.length : middle.get(id);
    };
    const wishes = new Map(column.map((id) => [id, wish(id)]));
    column.sort((a, b) => wishes.get(a) - wishes.get(b));
    stack(column);
  };
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    columns.slice(1).forEach((column) => settle(column, before));
    columns.slice(0, -1).reverse().forEach((column) => settle(column, after));
  }
  const tallest = Math.max(...columns.map(stack));
  const places = new Map();
  columns.forEach((column, x) => {
    for (const id of column) {
      places.set(id, { x: MARGIN + x * (WIDTH + GAP_X), y: MARGIN + tallest / 2 + middle.get(id) - heightOf(id) / 2, middle: MARGIN + tallest / 2 + middle.get(id) });
    }
  });
  return { places, edges, width: 2 * MARGIN + columns.length * WIDTH + (columns.length - 1) * GAP_X, height: 2 * MARGIN + tallest };
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
  const lines = edges.map((path) => {
    const [first, ...rest] = path.map((id) => places.get(id));
    let d = `M${first.x + WIDTH} ${first.middle}`;
    let [x, y] = [first.x + WIDTH, first.middle];
    rest.forEach((place) => {
      const bend = (place.x - x) / 2;
      d += `C${x + bend} ${y} ${place.x - bend} ${place.middle} ${place.x} ${place.middle}`;
      // Through a lane it goes straight on.
      d += `H${place.x + WIDTH}`;
      [x, y] = [place.x + WIDTH, place.middle];
    });
    d = d.slice(0, d.lastIndexOf("H"));
    return svg("path", { d, class: busy.has(path.at(-1)) ? "edge busy" : "edge" });
  });
  return svg(
    "svg",
    { class: "graph", width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Tables and what fills them" },
    lines,
    tables.map((table) => node(table, places.get(table.id))),
  );
}

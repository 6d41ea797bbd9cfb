// The page: the tables and their graph, or one table.

import { read, write } from "./address.js";
import * as api from "./api.js";
import { count, el, plural } from "./dom.js";
import { draw } from "./graph.js";
import { bar, chips } from "./status.js";
import { TableView } from "./table.js";

const REDRAW_MS = 250;
const LOST_AFTER_MS = 1500;

const view = document.getElementById("view");
const banner = document.getElementById("banner");
const said = document.getElementById("said");
const live = document.getElementById("live");
const totals = document.getElementById("totals");
const crumbs = document.getElementById("crumbs");

let known = { tables: [], links: [] };
let shown = null;
let lost = null;

/** Tell people, also those who listen to the page. */
export function say(sentence) {
  said.textContent = sentence;
}

function showTotals() {
  const rows = known.tables.reduce((sum, table) => sum + table.rows, 0);
  const counts = {};
  for (const table of known.tables) for (const [status, number] of Object.entries(table.counts)) counts[status] = (counts[status] ?? 0) + number;
  const busy = ["stale", "queued", "running", "failed"].filter((status) => counts[status]).map((status) => `${count(counts[status])} ${status}`);
  totals.textContent = [plural(known.tables.length, "table"), plural(rows, "row"), ...busy].join(" · ");
}

function showCrumbs(state) {
  crumbs.replaceChildren(
    ...(state.table
      ? [el("a", { href: "#" }, "Tables"), el("span", { class: "faint", "aria-hidden": "true" }, "/"), el("h1", {}, state.table)]
      : [el("h1", {}, "Tables")]),
  );
  document.title = state.table ? `${state.table} · Stoa` : "Stoa";
}

// --- all tables ---------------------------------------------------------------------------------------------------

const KINDS = { worktable: "worktable", plain: "plain table", join: "join" };

class Overview {
  constructor() {
    this.graph = el("div", { class: "graph-box" });
    this.list = el("tbody");
    this.body = el(
      "div",
      { class: "overview" },
      this.graph,
      el(
        "div",
        { class: "list-box" },
        el(
          "table",
          { class: "list" },
          el("caption", { class: "unseen" }, "All tables"),
          el("thead", {}, el("tr", {}, ["Table", "Rows", "Status", "", "What it is for"].map((title) => el("th", { scope: "col" }, title)))),
          this.list,
        ),
      ),
    );
    view.replaceChildren(this.body);
    this.draw();
  }

  draw() {
    const { tables, links } = known;
    const focused = document.activeElement?.dataset?.table;
    if (!tables.length) {
      this.graph.replaceChildren(empty());
      this.body.classList.add("is-empty");
      return;
    }
    this.body.classList.remove("is-empty");
    this.graph.replaceChildren(draw(tables, links));
    const filled = new Map(tables.map((table) => [table.id, table.name]));
    this.list.replaceChildren(
      ...tables.map((table) =>
        el(
          "tr",
          {},
          el(
            "th",
            { scope: "row" },
            el("a", { href: write({ table: table.name }) }, table.name),
            el("small", {}, [KINDS[table.kind], origin(table, filled)].filter(Boolean).join(" ")),
          ),
          el("td", { class: "number" }, count(table.rows)),
          el("td", { class: "bar-cell" }, bar(table.counts)),
          el("td", {}, chips(table.counts, (status) => write({ table: table.name, status }))),
          el("td", { class: "about" }, table.description),
        ),
      ),
    );
    if (focused) this.graph.querySelector(`[data-table="${CSS.escape(focused)}"]`)?.focus();
  }

  changed() {
    this.draw();
  }

  close() {}
}

function origin(table, names) {
  const parents = (table.parents ?? []).map((id) => names.get(id)).filter(Boolean);
  if (!parents.length) return "";
  return table.kind === "join" ? `of ${parents.join(" and ")}` : `filled from ${parents.join(" and ")}`;
}

function empty() {
  return el(
    "div",
    { class: "empty" },
    el("h2", {}, "No tables yet"),
    el("p", {}, "A table is made from a workflow: each of its rows is one run. In a terminal:"),
    el("pre", {}, "stoa table create stars --cwl stars.cwl\nstoa table add stars object='Cen A' threshold=5"),
    el("p", { class: "faint" }, "The table appears here as soon as it exists."),
  );
}

// --- what changes ---------------------------------------------------------------------------------------------------

async function reload() {
  known = await api.graph();
  showTotals();
}

let redraw = null;
let structure = false;
let pending = [];

async function apply() {
  redraw = null;
  const changes = pending;
  pending = [];
  if (structure) {
    structure = false;
    try {
      await reload();
    } catch (error) {
      say(error.message);
    }
  }
  showTotals();
  shown?.changed(changes);
}

function onChange(change) {
  live.title = `Change ${change.position}`;
  for (const [id, told] of Object.entries(change.tables)) {
    const table = known.tables.find((each) => each.id === id);
    if (!table || told.structure) structure = true;
    if (table) {
      table.counts = told.counts;
      table.rows = Object.values(told.counts).reduce((sum, number) => sum + number, 0);
    }
  }
  pending.push(change);
  redraw ??= setTimeout(apply, REDRAW_MS);
}

function onState(connected) {
  live.className = connected ? "live on" : "live off";
  live.textContent = connected ? "live" : "not live";
  clearTimeout(lost);
  if (connected) {
    if (!banner.hidden) {
      banner.hidden = true;
      say("Live updates are back");
      structure = true;
      pending.push(null);
      redraw ??= setTimeout(apply, REDRAW_MS);
    }
    return;
  }
  lost = setTimeout(() => {
    banner.textContent = "Live updates are lost: what you see may be old. Trying again…";
    banner.hidden = false;
  }, LOST_AFTER_MS);
}

// --- where we are ---------------------------------------------------------------------------------------------------

async function route() {
  const state = read();
  showCrumbs(state);
  if (state.table && shown instanceof TableView && shown.name === state.table) {
    await shown.show(state);
    return;
  }
  shown?.close();
  shown = null;
  if (state.table) {
    shown = new TableView(view, state, { say, tables: () => known.tables });
    await shown.start();
    return;
  }
  shown = new Overview();
}

addEventListener("hashchange", route);

async function start() {
  try {
    await reload();
  } catch (error) {
    view.replaceChildren(el("div", { class: "empty" }, el("h2", {}, "Stoa does not answer"), el("p", {}, error.message)));
    setTimeout(start, 3000);
    return;
  }
  await route();
  api.follow(onChange, onState);
}

start();

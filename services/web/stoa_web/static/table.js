// One table: its rows, live.

import { PAGE, query, write } from "./address.js";
import * as api from "./api.js";
import { count, el, plural } from "./dom.js";
import { Panel } from "./panel.js";
import { badge, bar, chips, STATUSES } from "./status.js";
import * as values from "./values.js";

const RELOAD_MS = 400;

export class TableView {
  constructor(place, state, { say, tables }) {
    this.place = place;
    this.state = state;
    this.name = state.table;
    this.say = say;
    this.tables = tables;
    this.detail = null;
    this.page = null;
    this.drawn = new Map();
    this.editing = null;
    this.asked = 0;
    this.timer = null;
    this.panel = new Panel({ say, run: (row) => this.run("rows", [row]) });
    this.closed = false;
  }

  async start() {
    try {
      this.detail = await api.table(this.name);
    } catch (error) {
      if (this.closed) return;
      const missing = error.status === 404;
      this.place.replaceChildren(
        el(
          "div",
          { class: "empty" },
          el("h2", {}, missing ? `There is no table “${this.name}”` : "The table cannot be shown"),
          el("p", {}, missing ? "It may have been renamed or deleted." : error.message),
          el("p", {}, el("a", { href: "#" }, "All tables")),
        ),
      );
      return;
    }
    if (this.closed) return;
    this.build();
    await Promise.all([this.show(this.state), this.readTrigger()]);
  }

  get works() {
    return this.detail.kind === "worktable";
  }

  // --- the frame around the rows ------------------------------------------------------------------------------------

  build() {
    this.runStale = button("Run stale", () => this.run("stale"), "primary");
    this.runFailed = button("Run failed", () => this.run("failed"));
    this.stop = button("Stop", () => this.cancel());
    this.automatic = el(
      "button",
      {
        type: "button",
        role: "switch",
        class: "switch",
        hidden: true,
        title: "Rows run by themselves as soon as they become stale",
        onclick: () => this.toggleTrigger(),
      },
      el("span", { class: "knob", "aria-hidden": "true" }),
      "Automatic",
    );
    const views = ["rows", "elements"].map((view) =>
      el("button", { type: "button", "data-view": view, onclick: () => this.go({ view, offset: 0, row: null, sort: "" }) }, view === "rows" ? "Rows" : "Elements"),
    );
    this.views = el("span", { class: "choice", role: "group", "aria-label": "One line for each" }, views);
    this.input = el("input", {
      type: "text",
      class: "filter",
      placeholder: "Filter, e.g. snr > 5",
      "aria-label": "Filter",
      title: "Column, then one of = != < <= > >= ~ (contains), then a value; null for a missing one. Enter adds the filter.",
      spellcheck: "false",
      autocomplete: "off",
      onkeydown: (event) => {
        if (event.key === "Enter" && this.input.value.trim()) {
          this.go({ filters: [...this.state.filters, this.input.value.trim()], offset: 0 });
          this.input.value = "";
        }
      },
    });
    this.status = el(
      "select",
      { "aria-label": "Status", onchange: () => this.go({ status: this.status.value || null, offset: 0 }) },
      el("option", { value: "" }, "any status"),
      STATUSES.map((status) => el("option", { value: status }, status)),
    );
    this.filters = el("span", { class: "filters" });
    this.summary = el("span", { class: "faint summary" });
    this.counts = el("span", { class: "state" });
    this.notice = el("div", { class: "notice", role: "alert", hidden: true });
    this.about = el("p", { class: "about-table" });
    this.head = el("tr");
    this.body = el("tbody");
    this.grid = el(
      "table",
      { class: "grid", role: "grid", "aria-label": `Rows of ${this.name}`, onkeydown: (event) => this.onKey(event), ondblclick: (event) => this.onDouble(event) },
      el("thead", {}, this.head),
      this.body,
    );
    this.scroll = el("div", { class: "scroll" }, this.grid);
    this.nothing = el("div", { class: "empty", hidden: true });
    this.previous = button("‹ Previous", () => this.go({ offset: Math.max(0, this.state.offset - PAGE) }));
    this.next = button("Next ›", () => this.go({ offset: this.state.offset + PAGE }));
    this.range = el("span", { class: "faint" });
    this.paging = el("nav", { class: "paging", "aria-label": "Pages" }, this.previous, this.range, this.next);
    this.place.replaceChildren(
      el(
        "div",
        { class: "table-view" },
        el(
          "div",
          { class: "main" },
          this.works && el("div", { class: "tools" }, this.runStale, this.runFailed, this.stop, this.automatic, el("span", { class: "space" }), this.views),
          el(
            "div",
            { class: "tools second" },
            this.status,
            this.filters,
            this.input,
            this.summary,
            el("span", { class: "space" }),
            this.counts,
            !this.works && this.views,
          ),
          this.about,
          this.notice,
          this.scroll,
          this.nothing,
          this.paging,
        ),
        this.panel.element,
      ),
    );
    this.panel.onClose = () => this.go({ row: null });
    this.describe();
  }

  describe() {
    const names = new Map(this.tables().map((table) => [table.id, table.name]));
    const parents = [...new Set(this.detail.links.flatMap((link) => link.parents))];
    const joined = this.detail.kind === "join" ? "Joined from " : "Filled from ";
    const children = this.tables().filter((table) => (table.parents ?? []).includes(this.detail.id));
    const linked = (list) => list.flatMap((name, index) => [index ? ", " : "", el("a", { href: write({ table: name }) }, name)]);
    const parts = [
      this.detail.description ? [this.detail.description.replace(/\.?$/, ". ")] : [],
      parents.length ? [joined, ...linked(parents.map((id) => names.get(id) ?? id)), ". "] : [],
      children.length ? ["Fills ", ...linked(children.map((table) => table.name)), "."] : [],
    ].flat();
    this.about.replaceChildren(...parts);
    this.about.hidden = !parts.length;
  }

  drawHead() {
    const sorted = new Map(
      this.state.sort
        .split(",")
        .filter(Boolean)
        .map((part) => (part.startsWith("-") ? [part.slice(1), "descending"] : [part, "ascending"])),
    );
    const title = (name, small, key, { numeric, tip, role } = {}) => {
      const order = sorted.get(key);
      return el(
        "th",
        { scope: "col", class: [numeric ? "number" : "", role ?? ""].join(" ").trim(), "aria-sort": order ?? "none", title: tip },
        el(
          "button",
          { type: "button", class: "sort", onclick: (event) => this.sort(key, event.shiftKey), title: tip ?? "Sort; with Shift as a second order" },
          el("span", { class: "name" }, name, order ? el("span", { "aria-hidden": "true" }, order === "ascending" ? " ▲" : " ▼") : null),
          el("small", {}, small || "\u00a0"),
        ),
      );
    };
    const columns = this.detail.columns.map((column) => {
      const role = this.editable(column) ? "in ✎" : column.role === "output" ? "out" : "";
      const small = [column.unit || values.words(column.type), column.ucd, role].filter(Boolean).join(" · ");
      const tip = [column.label, column.description, column.unit && `Unit: ${column.unit}`, column.ucd && `UCD: ${column.ucd}`, `Type: ${values.words(column.type)}`]
        .filter(Boolean)
        .join("\n");
      return title(column.name, small, column.name, { numeric: values.isNumeric(this.shownType(column)), tip, role: column.role });
    });
    const elements = this.state.view === "elements";
    this.head.replaceChildren(
      title("#", elements ? "row · element" : "row", "row", { numeric: true }),
      this.works || this.detail.kind === "join" || elements ? title("status", "live", "status") : title("", "", "status"),
      ...columns,
    );
  }

  shownType(column) {
    const known = values.kind(column.type);
    return this.state.view === "elements" && column.role === "output" && known.name === "array" ? itemOf(column.type) : column.type;
  }

  editable(column) {
    return this.state.view === "rows" && this.detail.kind !== "join" && (column.role === "input" || this.detail.kind === "plain");
  }

  drawFrame() {
    const { counts } = this.detail;
    const label = (word, number) => (number ? `${word} (${count(number)})` : word);
    this.runStale.textContent = `▶ ${label("Run stale", (counts.stale ?? 0) + (counts.cancelled ?? 0))}`;
    this.runStale.disabled = !counts.stale && !counts.cancelled;
    this.runFailed.textContent = `↻ ${label("Run failed", counts.failed)}`;
    this.runFailed.disabled = !counts.failed;
    this.stop.textContent = `■ ${label("Stop", (counts.queued ?? 0) + (counts.running ?? 0))}`;
    this.stop.disabled = !counts.queued && !counts.running;
    this.counts.replaceChildren(chips(counts, (status) => write({ ...this.state, status, offset: 0 })), bar(counts));
    this.status.value = this.state.status ?? "";
    for (const each of this.views.children) each.setAttribute("aria-pressed", String(each.dataset.view === this.state.view));
    this.filters.replaceChildren(
      ...this.state.filters.map((filter, index) =>
        el(
          "button",
          {
            type: "button",
            class: "chip",
            "aria-label": `Remove the filter ${filter}`,
            onclick: () => this.go({ filters: this.state.filters.filter((_, each) => each !== index), offset: 0 }),
          },
          filter,
          el("span", { "aria-hidden": "true" }, " ✕"),
        ),
      ),
    );
  }

  // --- what is shown --------------------------------------------------------------------------------------------------

  go(changes) {
    location.hash = write({ ...this.state, ...changes });
  }

  sort(key, more) {
    const parts = this.state.sort.split(",").filter(Boolean);
    const present = parts.find((part) => part === key || part === `-${key}`);
    const turned = present === undefined ? key : present === key ? `-${key}` : null;
    const others = more ? parts.filter((part) => part !== present) : [];
    this.go({ sort: [...others, ...(turned ? [turned] : [])].join(","), offset: 0 });
  }

  async show(state) {
    const before = this.state;
    this.state = state;
    if (!this.detail) return;
    if (before.view !== state.view) {
      this.drawn.clear();
      this.body.replaceChildren();
    }
    this.drawHead();
    this.drawFrame();
    await this.load();
    this.showPanel();
  }

  async load() {
    const asked = ++this.asked;
    let page;
    try {
      page = await api.page(this.name, this.state.view, query(this.state));
    } catch (error) {
      if (this.closed || asked !== this.asked) return;
      this.tell(error.message);
      return;
    }
    if (this.closed || asked !== this.asked) return;
    this.page = page;
    if (this.told === "load") this.tell(null);
    this.draw();
  }

  draw() {
    const items = this.page[this.state.view];
    const focus = this.focused();
    const drawn = new Map();
    const lines = items.map((item) => {
      const key = this.state.view === "rows" ? String(item.row) : `${item.row}/${item.element}`;
      const content = api.stringify(item);
      const old = this.drawn.get(key);
      const kept = old && (old.content === content || this.editing?.line === old.line);
      const entry = kept ? { ...old, item } : { item, content, line: this.line(item) };
      drawn.set(key, entry);
      return entry.line;
    });
    this.drawn = drawn;
    if (lines.length !== this.body.children.length || lines.some((line, index) => this.body.children[index] !== line)) this.replace(lines);
    if (!this.grid.querySelector('td[tabindex="0"]')) this.body.querySelector("td")?.setAttribute("tabindex", "0");
    if (focus && !this.editing) this.cellAt(focus.key, focus.column)?.focus({ preventScroll: true });
    const { total } = this.page;
    const narrowed = this.state.filters.length || this.state.status;
    const all = this.detail.rows;
    const noun = this.state.view === "rows" ? "row" : "element";
    this.summary.textContent = narrowed && noun === "row" ? `${count(total)} of ${plural(all, "row")}` : plural(total, noun);
    const last = this.state.offset + items.length;
    this.range.textContent = items.length ? `${count(this.state.offset + 1)}–${count(last)} of ${count(total)}` : "";
    this.previous.disabled = this.state.offset === 0;
    this.next.disabled = last >= total;
    this.paging.hidden = total <= PAGE && this.state.offset === 0;
    this.nothing.hidden = items.length > 0;
    if (!items.length) this.nothing.replaceChildren(...this.emptyWords(narrowed, all));
    for (const { line, item } of drawn.values()) line.setAttribute("aria-selected", String(item.row === this.state.row));
    this.panel.update(this.state.row === null ? null : (this.drawn.get(String(this.state.row))?.item ?? null));
  }

  replace(lines) {
    // Lines that stay are not moved: an open editor would lose the focus.
    const wanted = new Set(lines);
    for (const line of [...this.body.children]) if (!wanted.has(line)) line.remove();
    lines.forEach((line, index) => {
      if (this.body.children[index] !== line) this.body.insertBefore(line, this.body.children[index] ?? null);
    });
  }

  emptyWords(narrowed, all) {
    if (narrowed && all) {
      return [
        el("h2", {}, `None of ${plural(all, "row")} matches`),
        el("p", {}, button("Show all rows", () => this.go({ filters: [], status: null, offset: 0 }))),
      ];
    }
    if (this.detail.links.length) return [el("h2", {}, "No rows yet"), el("p", {}, "They come when the tables that fill this one have results.")];
    const example = this.detail.columns.find((column) => column.role === "input")?.name ?? "column";
    return [el("h2", {}, "No rows yet"), el("p", {}, "In a terminal:"), el("pre", {}, `stoa table add ${this.name} ${example}=…`)];
  }

  line(item) {
    const rows = this.state.view === "rows";
    const label = rows ? count(item.row) : item.element === null ? count(item.row) : `${count(item.row)} · ${count(item.element)}`;
    const number = el(
      "td",
      { class: "number leading", tabindex: "-1" },
      el("button", { type: "button", class: "link", title: "Show the history and the log of this row", onclick: () => this.go({ row: item.row }) }, label),
    );
    const state = el("td", { class: "state-cell", tabindex: "-1" });
    if (this.works) {
      state.append(badge(item.status));
      if (rows) {
        const ended = item.status !== "queued" && item.status !== "running";
        state.append(
          ended
            ? el("button", { type: "button", class: "small", title: `Run row ${item.row}`, "aria-label": `Run row ${item.row}`, onclick: () => this.run("rows", [item.row]) }, "▶")
            : el("button", { type: "button", class: "small", title: `Stop row ${item.row}`, "aria-label": `Stop row ${item.row}`, onclick: () => this.cancel([item.row]) }, "■"),
        );
        if (item.job) {
          state.append(
            el("button", { type: "button", class: "small", "aria-label": `Log of row ${item.row}`, onclick: () => this.go({ row: item.row }) }, "log"),
          );
        }
        if (item.reason) state.append(el("span", { class: "reason", title: item.reason }, item.reason));
      }
    } else if (this.detail.kind === "join" || item.status !== "current") {
      state.append(badge(item.status));
    }
    const cells = this.detail.columns.map((column) => this.cell(item, column));
    return el("tr", { "data-key": rows ? item.row : `${item.row}/${item.element}`, "data-status": item.status }, number, state, cells);
  }

  cell(item, column) {
    const value = item.values[column.name];
    const output = column.role === "output";
    const classes = [
      output ? "output" : "",
      values.isNumeric(this.shownType(column)) ? "number" : "",
      output && item.outdated ? "outdated" : "",
      this.editable(column) ? "editable" : "",
      item.derived_from?.corrected?.[column.name] ? "corrected" : "",
    ];
    const corrected = item.derived_from?.corrected?.[column.name];
    const tip = corrected ? `Corrected by ${corrected.by}` : output && item.outdated ? "From an earlier run: the row has changed since" : null;
    return el("td", { class: classes.join(" ").replace(/ +/g, " ").trim(), tabindex: "-1", "data-column": column.name, title: tip }, values.cell(value));
  }

  tell(sentence, ...more) {
    this.told = sentence ? "load" : null;
    this.notice.hidden = !sentence;
    this.notice.replaceChildren(
      ...(sentence ? [el("span", {}, sentence), ...more, button("Dismiss", () => this.tell(null), "quiet")] : []),
    );
  }

  // --- the keyboard -----------------------------------------------------------------------------------------------------

  focused() {
    const cell = document.activeElement?.closest?.("td");
    if (!cell || !this.body.contains(cell)) return null;
    return { key: cell.parentElement.dataset.key, column: cell.cellIndex };
  }

  cellAt(key, column) {
    return this.body.querySelector(`tr[data-key="${CSS.escape(key)}"]`)?.cells[column];
  }

  onKey(event) {
    const cell = event.target.closest("td");
    if (!cell || this.editing?.cell === cell) return;
    const line = cell.parentElement;
    const moves = {
      ArrowUp: () => line.previousElementSibling?.cells[cell.cellIndex],
      ArrowDown: () => line.nextElementSibling?.cells[cell.cellIndex],
      ArrowLeft: () => cell.previousElementSibling,
      ArrowRight: () => cell.nextElementSibling,
      Home: () => (event.ctrlKey ? this.body.rows[0] : line).cells[0],
      End: () => (event.ctrlKey ? this.body.rows[this.body.rows.length - 1] : line).cells[line.cells.length - 1],
    };
    if (moves[event.key]) {
      event.preventDefault();
      this.focus(moves[event.key]());
    } else if ((event.key === "Enter" || event.key === "F2") && event.target === cell) {
      event.preventDefault();
      const inside = cell.querySelector("a, button");
      if (cell.classList.contains("editable")) this.open(cell);
      else inside?.click();
    }
  }

  focus(cell) {
    if (!cell) return;
    this.grid.querySelectorAll('td[tabindex="0"]').forEach((each) => each.setAttribute("tabindex", "-1"));
    cell.setAttribute("tabindex", "0");
    cell.focus();
  }

  onDouble(event) {
    const cell = event.target.closest("td.editable");
    if (cell && this.editing?.cell !== cell) this.open(cell);
  }

  // --- edits ------------------------------------------------------------------------------------------------------------

  open(cell) {
    this.editing?.end();
    const line = cell.parentElement;
    const { item } = this.drawn.get(line.dataset.key);
    const column = this.detail.columns.find((each) => each.name === cell.dataset.column);
    const field = editor(column, item.values[column.name]);
    field.setAttribute("aria-label", `${column.name} of row ${item.row}`);
    const before = [...cell.childNodes];
    let ended = false;
    const end = () => {
      if (ended) return;
      ended = true;
      this.editing = null;
      cell.classList.remove("editing");
      cell.replaceChildren(...before);
      const entry = this.drawn.get(line.dataset.key);
      // What came in while somebody was editing is shown now.
      if (entry) entry.content = null;
    };
    const commit = async () => {
      if (ended) return;
      let value;
      try {
        value = await field.read();
      } catch (error) {
        field.setAttribute("aria-invalid", "true");
        this.tell(error.message);
        return;
      }
      end();
      this.focus(cell);
      await this.save(item, column, value);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") {
        event.preventDefault();
        commit();
      } else if (event.key === "Escape") {
        event.preventDefault();
        end();
        this.focus(cell);
        this.draw();
      }
      event.stopPropagation();
    });
    if (field.type === "file") field.addEventListener("change", commit);
    else field.addEventListener("blur", () => commit());
    this.editing = { cell, line, end };
    cell.classList.add("editing");
    cell.replaceChildren(field);
    field.focus();
    field.select?.();
  }

  async save(item, column, value) {
    const present = item.values[column.name] ?? null;
    if (api.stringify(value) === api.stringify(present)) {
      this.draw();
      return;
    }
    try {
      await api.edit(this.name, item.row, item.revision, { [column.name]: value });
      this.tell(null);
      this.say(`Row ${item.row}: ${column.name} was changed`);
    } catch (error) {
      if (error.status === 412) this.conflict(item, column, value, error);
      else this.tell(`${column.name} of row ${item.row} was not changed: ${error.message}`);
    }
    await this.load();
  }

  conflict(item, column, value, error) {
    const theirs = error.problem.row?.values?.[column.name];
    const shown = (each) => values.text(each) || "empty";
    this.tell(
      `Row ${item.row} was changed by somebody else meanwhile: ${column.name} is ${shown(theirs)}, and you wrote ${shown(value)}.`,
      button(`Write ${shown(value)}`, async () => {
        this.tell(null);
        await this.save({ ...item, ...error.problem.row, values: { ...item.values, ...error.problem.row?.values } }, column, value);
      }),
      button(`Keep ${shown(theirs)}`, () => this.tell(null)),
    );
    this.told = "conflict";
  }

  // --- runs -------------------------------------------------------------------------------------------------------------

  async run(scope, rows) {
    try {
      const { jobs, skipped, skipped_total: left = skipped.length } = await api.run(this.name, scope, rows);
      const why = skipped.length ? `; ${plural(left, "row")} left out: ${skipped[0].reason}` : "";
      this.say(`${plural(jobs, "row")} queued${why}`);
      this.tell(skipped.length ? `${plural(left, "row")} cannot be run: row ${skipped[0].row}: ${skipped[0].reason}` : null);
    } catch (error) {
      this.tell(error.message);
    }
  }

  async cancel(rows) {
    try {
      const { cancelled } = await api.cancel(this.name, rows);
      this.say(`${plural(cancelled, "row")} cancelled`);
    } catch (error) {
      this.tell(error.message);
    }
  }

  async readTrigger() {
    if (!this.works) return;
    try {
      this.showTrigger((await api.trigger(this.name)).mode);
    } catch {
      // The scheduler does not answer or does not know the table yet: there is nothing to switch.
      this.automatic.hidden = true;
    }
  }

  showTrigger(mode) {
    this.automatic.hidden = false;
    this.automatic.setAttribute("aria-checked", String(mode === "automatic"));
  }

  async toggleTrigger() {
    const mode = this.automatic.getAttribute("aria-checked") === "true" ? "manual" : "automatic";
    try {
      this.showTrigger((await api.setTrigger(this.name, mode)).mode);
      this.say(mode === "automatic" ? "Rows run by themselves from now on" : "Rows run when you say so");
    } catch (error) {
      this.tell(error.message);
    }
  }

  // --- what changes -----------------------------------------------------------------------------------------------------

  /** Take what changed; null where everything may have. */
  changed(changes) {
    if (!this.detail || this.closed) return;
    const mine = changes.map((change) => (change === null ? { structure: true } : change.tables[this.detail.id])).filter(Boolean);
    if (!mine.length) return;
    const counts = mine.at(-1).counts;
    if (counts) {
      this.detail.counts = counts;
      this.detail.rows = Object.values(counts).reduce((sum, number) => sum + number, 0);
      this.drawFrame();
    }
    if (mine.some((change) => change.structure)) this.again = true;
    this.timer ??= setTimeout(() => this.reload(), RELOAD_MS);
  }

  async reload() {
    try {
      if (this.again) {
        this.again = false;
        this.detail = await api.table(this.name);
        this.drawn.clear();
        this.describe();
        this.drawHead();
        this.drawFrame();
        await this.readTrigger();
      }
      await this.load();
    } catch (error) {
      this.tell(error.message);
    } finally {
      this.timer = null;
    }
  }

  showPanel() {
    if (this.state.row === null) this.panel.close();
    else this.panel.open(this.name, this.state.row, this.drawn.get(String(this.state.row))?.item ?? null);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.panel.close();
  }
}

function itemOf(type) {
  if (Array.isArray(type)) return itemOf(type.find((each) => each !== "null"));
  if (typeof type === "string") return type.replace(/\?$/, "").replace(/\[\]$/, "");
  return type.items;
}

function button(label, onclick, kind = "") {
  return el("button", { type: "button", class: kind, onclick }, label);
}

/** A field that fits a column's type; `read` gives the new value. */
function editor(column, value) {
  const known = values.kind(column.type);
  if (known.name === "File") {
    const field = el("input", { type: "file" });
    field.read = async () => {
      if (!field.files.length) return value ?? null;
      const { class: kind, location: place, basename, size, checksum } = await api.upload(field.files[0]);
      return { class: kind, location: place, basename, size, checksum };
    };
    return field;
  }
  const choices = known.name === "boolean" ? ["true", "false"] : known.symbols;
  const field = choices
    ? el("select", {}, el("option", { value: "" }, "–"), choices.map((choice) => el("option", { value: choice, selected: String(value) === choice }, choice)))
    : el("input", { type: "text", value: values.editable(value, column.type), spellcheck: "false", autocomplete: "off" });
  field.read = async () => values.typed(field.value, column.type);
  return field;
}

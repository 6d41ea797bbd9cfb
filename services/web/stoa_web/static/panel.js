// What there is to know of one row: why it is as it is, its log, its history.

import * as api from "./api.js";
import { el } from "./dom.js";
import { badge } from "./status.js";

// Longer logs are shown from their end; the whole one is a click away.
const MOST_CHARACTERS = 300_000;

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export class Panel {
  constructor({ say, run }) {
    this.say = say;
    this.title = el("h2", { tabindex: "-1" });
    this.state = el("p", { class: "panel-state" });
    this.log = el("pre", { class: "log", tabindex: "0", "aria-label": "Log" });
    this.whole = el("a", { target: "_blank", rel: "noopener", hidden: true }, "Open the log by itself");
    this.events = el("ol", { class: "history" });
    this.element = el(
      "aside",
      { class: "panel", hidden: true, "aria-label": "Row", onkeydown: (event) => event.key === "Escape" && this.onClose?.() },
      el(
        "div",
        { class: "panel-head" },
        this.title,
        el("span", { class: "space" }),
        el("button", { type: "button", onclick: () => run(this.row) }, "▶ Run"),
        el("button", { type: "button", "aria-label": "Close", onclick: () => this.onClose?.() }, "✕"),
      ),
      this.state,
      el("h3", {}, "Log"),
      this.log,
      this.whole,
      el("h3", {}, "History"),
      this.events,
    );
    this.row = null;
    this.job = null;
    this.following = null;
  }

  open(table, row, item) {
    if (this.row === row && this.table === table) return;
    this.close();
    Object.assign(this, { table, row, seen: null, before: document.activeElement });
    this.title.textContent = `Row ${row}`;
    this.state.replaceChildren();
    this.log.textContent = "";
    this.events.replaceChildren();
    this.element.hidden = false;
    this.title.focus();
    this.update(item);
    if (!item) this.tellHistory();
  }

  /** Show the row as it is now. */
  update(item) {
    if (this.row === null || !item || item.row !== this.row || item.status === undefined) return;
    const seen = `${item.job} ${item.status} ${item.revision}`;
    if (seen === this.seen) return;
    const moved = item.job !== this.job || !this.seen;
    this.seen = seen;
    this.state.replaceChildren(
      badge(item.status),
      item.reason ? el("span", { class: "reason" }, item.reason) : "",
      item.outdated ? el("span", { class: "faint" }, "The results shown are from an earlier run.") : "",
    );
    if (moved || item.status !== "queued") this.tellLog(item);
    this.tellHistory();
  }

  async tellLog(item) {
    this.unfollow();
    this.job = item.job;
    this.whole.hidden = !item.job;
    if (!item.job) {
      this.log.textContent = "This row has not run yet.";
      return;
    }
    this.whole.href = `/api/logs/${encodeURIComponent(item.job)}`;
    if (item.status === "queued") {
      this.log.textContent = "The run waits for its turn.";
      return;
    }
    if (item.status === "running") {
      let begun = false;
      this.log.textContent = "The run has said nothing yet.";
      this.following = api.followLog(
        item.job,
        (text) => {
          this.log.textContent = ((begun ? this.log.textContent : "") + text).slice(-MOST_CHARACTERS);
          begun = true;
          this.log.scrollTop = this.log.scrollHeight;
        },
        () => {},
      );
      return;
    }
    const { job } = item;
    try {
      const text = await api.log(job);
      if (this.job !== job) return;
      this.log.textContent = text ? text.slice(-MOST_CHARACTERS) : "The run said nothing.";
      this.log.scrollTop = this.log.scrollHeight;
    } catch (error) {
      if (this.job === job) this.log.textContent = error.status === 404 ? "There is no log of this run." : error.message;
    }
  }

  async tellHistory() {
    const { table, row } = this;
    let events;
    try {
      ({ events } = await api.history(table, row));
    } catch (error) {
      if (this.row === row) this.events.replaceChildren(el("li", {}, error.message));
      return;
    }
    if (this.row !== row || this.table !== table) return;
    this.events.replaceChildren(
      ...events.reverse().map((event) =>
        el("li", {}, el("span", {}, event.summary), el("small", {}, `${moment.format(new Date(event.time))} · ${event.actor}`)),
      ),
    );
  }

  unfollow() {
    this.following?.();
    this.following = null;
  }

  close() {
    this.unfollow();
    this.element.hidden = true;
    Object.assign(this, { row: null, job: null, seen: null });
    if (this.before?.isConnected) this.before.focus();
    this.before = null;
  }
}

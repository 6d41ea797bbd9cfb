// What is shown stands in the address, so that it can be kept, sent and gone back to.

export const PAGE = 100;

export function read(hash = location.hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  return {
    table: given.get("table"),
    view: given.get("view") === "elements" ? "elements" : "rows",
    filters: given.getAll("filter"),
    status: given.get("status"),
    sort: given.get("sort") ?? "",
    offset: Math.max(0, Number.parseInt(given.get("offset") ?? "0", 10) || 0),
    row: Number.parseInt(given.get("row") ?? "", 10) || null,
  };
}

export function write(state) {
  const words = new URLSearchParams();
  if (state.table) words.set("table", state.table);
  if (state.view === "elements") words.set("view", "elements");
  for (const filter of state.filters ?? []) words.append("filter", filter);
  if (state.status) words.set("status", state.status);
  if (state.sort) words.set("sort", state.sort);
  if (state.offset) words.set("offset", state.offset);
  if (state.row) words.set("row", state.row);
  return `#${words}`;
}

/** The same, as the services read it. */
export function query(state) {
  const words = new URLSearchParams({ limit: PAGE });
  if (state.offset) words.set("offset", state.offset);
  if (state.sort) words.set("sort", state.sort);
  if (state.status) words.set("status", state.status);
  for (const filter of state.filters) words.append("filter", filter);
  return words;
}

// Talks to the services.

// Identifiers of catalogues have up to 19 digits, more than a JavaScript number holds: they stay exact as BigInt.
function exact(_key, value, context) {
  if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context?.source ?? "")) {
    return BigInt(context.source);
  }
  return value;
}

function written(_key, value) {
  if (typeof value !== "bigint") return value;
  return JSON.rawJSON ? JSON.rawJSON(String(value)) : Number(value);
}

export const parse = (text) => JSON.parse(text, exact);
export const stringify = (value, indent) => JSON.stringify(value, written, indent);

/** What a service refused, with its problem document. */
export class Refusal extends Error {
  constructor(status, problem) {
    super(problem.detail || problem.title || `The request was refused (${status})`);
    this.status = status;
    this.problem = problem;
  }
}

/** The head of the tables' log after our own last change: runs that we start have to see it. */
let position = null;

export async function request(method, path, { body, headers, form } = {}) {
  const options = { method, headers: { Accept: "application/json", ...headers } };
  if (form) options.body = form;
  if (body !== undefined) {
    options.body = stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Refusal(0, { detail: "Stoa does not answer. Is it still running?" });
  }
  const text = await answer.text();
  if (!answer.ok) {
    let problem;
    try {
      problem = parse(text);
    } catch {
      problem = { detail: `Stoa answered ${answer.status} ${answer.statusText}` };
    }
    throw new Refusal(answer.status, problem);
  }
  const written = answer.headers.get("Stoa-Position");
  if (written && path.startsWith("/api/tables")) position = Math.max(position ?? 0, Number(written));
  return text ? parse(text) : null;
}

export const get = (path) => request("GET", path);

const at = (table, ...rest) => ["/api/tables", encodeURIComponent(table), ...rest].join("/");

export const graph = () => get("/api/graph");
export const table = (name) => get(at(name));
export const history = (name, row) => get(at(name, "rows", row, "history"));
export const page = (name, view, query) => get(`${at(name, view)}?${query}`);

export function edit(name, row, revision, values) {
  return request("PATCH", at(name, "rows", row), { body: values, headers: revision === null ? {} : { "If-Match": `"${revision}"` } });
}

export const run = (name, scope, rows) =>
  request("POST", "/api/runs", { body: { table: name, scope, ...(rows ? { rows } : {}), ...(position === null ? {} : { after: position }) } });
export const cancel = (name, rows) => request("POST", "/api/cancellations", { body: { table: name, ...(rows ? { rows } : {}) } });
export const trigger = (name) => get(`/api/triggers/${encodeURIComponent(name)}`);
export const setTrigger = (name, mode) => request("PUT", `/api/triggers/${encodeURIComponent(name)}`, { body: { mode } });

export async function upload(file) {
  const form = new FormData();
  form.append("file", file);
  return request("POST", `/api/files?name=${encodeURIComponent(file.name)}`, { form });
}

export async function log(job) {
  const answer = await fetch(`/api/logs/${encodeURIComponent(job)}`, { headers: { Accept: "text/plain" } });
  if (!answer.ok) throw new Refusal(answer.status, await answer.json().catch(() => ({})));
  return answer.text();
}

const RETRY_MS = 3000;

/**
 * Follow what changes. A browser comes back by itself where the connection breaks, but not where the answer is an error.
 * @param {(change: object) => void} onChange
 * @param {(connected: boolean) => void} onState
 */
export function follow(onChange, onState) {
  let source;
  const connect = () => {
    source = new EventSource("/api/changes");
    source.onopen = () => onState(true);
    source.onerror = () => {
      onState(false);
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS);
    };
    source.addEventListener("change", (event) => onChange(parse(event.data)));
  };
  connect();
  addEventListener("pagehide", () => source.close());
}

/** Follow the log of a job that runs; gives a function that ends it. */
export function followLog(job, onText, onEnd) {
  const source = new EventSource(`/api/logs/${encodeURIComponent(job)}`);
  source.addEventListener("log", (event) => onText(JSON.parse(event.data).text));
  source.addEventListener("end", () => {
    source.close();
    onEnd();
  });
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) onEnd();
  };
  return () => source.close();
}

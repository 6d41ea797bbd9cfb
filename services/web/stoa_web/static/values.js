// Shows the values of cells, and reads what somebody types into one.

import { parse, stringify } from "./api.js";
import { el, plural } from "./dom.js";

const DIGEST = /^sha256:([0-9a-f]{64})$/;
const FEW = 3;
const DIGITS = 10;

/** What a CWL type is in short: its name, whether it may be missing, and what can be chosen. */
export function kind(type) {
  if (Array.isArray(type)) {
    const members = type.filter((each) => each !== "null");
    const known = members.length === 1 ? kind(members[0]) : { name: "any" };
    return { ...known, optional: members.length < type.length };
  }
  if (typeof type === "string") {
    const optional = type.endsWith("?");
    const name = optional ? type.slice(0, -1) : type;
    return name.endsWith("[]") ? { name: "array", optional, item: kind(name.slice(0, -2)) } : { name, optional };
  }
  if (type?.type === "enum") {
    // A symbol may carry the address of the document that it stands in.
    return { name: "enum", optional: false, symbols: type.symbols.map((symbol) => symbol.split(/[#/]/).at(-1)) };
  }
  if (type?.type === "array") return { name: "array", optional: false, item: kind(type.items) };
  if (type?.type === "record") return { name: "record", optional: false };
  return type?.type ? kind(type.type) : { name: "any", optional: true };
}

export function words(type) {
  const known = kind(type);
  if (known.name === "array") return `list of ${words_of(known.item)}`;
  return words_of(known);
}

function words_of(known) {
  const named = { enum: "choice", double: "number", float: "number", int: "whole number", long: "whole number", string: "text", boolean: "yes/no", File: "file", Directory: "folder", array: "list" };
  return named[known.name] ?? known.name;
}

const isNumber = (value) => typeof value === "number" || typeof value === "bigint";
export const isNumeric = (type) => ["int", "long", "float", "double"].includes(kind(type).name);

const name = (value) => value.basename || value.location?.split("/").at(-1) || value.path?.split("/").at(-1) || value.class.toLowerCase();

function file(value) {
  const stored = DIGEST.exec(value.location ?? "");
  const label = [el("span", { class: "icon", "aria-hidden": "true" }, "▣"), ` ${name(value)}`];
  const size = value.size === undefined ? "" : `, ${plural(Number(value.size), "byte")}`;
  if (!stored) return el("span", { title: `${value.location ?? value.path ?? ""}${size}` }, label);
  const address = `/api/files/${stored[1]}?name=${encodeURIComponent(name(value))}`;
  return el("a", { href: address, target: "_blank", rel: "noopener", title: `${name(value)}${size}` }, label);
}

function list(values) {
  if (!values.length) return el("span", { class: "faint" }, "empty list");
  const first = values.slice(0, FEW);
  if (first.every((each) => each?.class === "File")) {
    const rest = values.length - first.length;
    return el("span", {}, first.flatMap((each, index) => (index ? [", ", file(each)] : [file(each)])), rest ? el("span", { class: "faint" }, ` and ${rest} more`) : null);
  }
  const shown = first.map((each) => (isNumber(each) ? short(each) : text(each))).join(", ");
  const rest = values.length > FEW ? ", …" : "";
  return el("span", { title: clip(text(values), 1000) }, shown + rest, " ", el("span", { class: "faint" }, `(${values.length})`));
}

const clip = (written, length) => (written.length > length ? `${written.slice(0, length)}…` : written);

/** A number with the digits that somebody reads; the whole one stands in the title and in the editor. */
function short(number) {
  if (typeof number !== "number" || Number.isInteger(number)) return String(number);
  return String(Number(number.toPrecision(DIGITS)));
}

/** A value as plain text. */
export function text(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return value;
  if (isNumber(value) || typeof value === "boolean") return String(value);
  if (value.class === "File" || value.class === "Directory") return name(value);
  if (Array.isArray(value)) return value.map(text).join(", ");
  return stringify(value);
}

/** A value as it stands in a cell. */
export function cell(value) {
  if (value === null || value === undefined) return "";
  if (value?.class === "File") return file(value);
  if (value?.class === "Directory") {
    return el("span", { title: value.location ?? value.path ?? "" }, el("span", { class: "icon", "aria-hidden": "true" }, "▤"), ` ${name(value)}`);
  }
  if (Array.isArray(value)) return list(value);
  if (typeof value === "object") {
    const fields = Object.entries(value).map(([key, each]) => `${key}: ${text(each)}`).join(", ");
    return el("span", { title: clip(stringify(value, 1), 1000) }, clip(fields, 120));
  }
  const written = text(value);
  if (isNumber(value)) return short(value) === written ? written : el("span", { title: written }, short(value));
  return written.length > 24 ? el("span", { title: clip(written, 1000) }, clip(written, 300)) : written;
}

/** Read what was typed; throws a sentence where it does not fit. */
export function typed(written, type) {
  const known = kind(type);
  const trimmed = written.trim();
  if (known.name === "string") return written === "" && known.optional ? null : written;
  if (trimmed === "") return null;
  if (known.name === "int" || known.name === "long") {
    if (!/^[+-]?\d+$/.test(trimmed)) throw new Error(`“${trimmed}” is not a whole number`);
    const number = Number(trimmed);
    return Number.isSafeInteger(number) ? number : BigInt(trimmed);
  }
  if (known.name === "float" || known.name === "double") {
    const number = Number(trimmed);
    if (!Number.isFinite(number)) throw new Error(`“${trimmed}” is not a number`);
    return number;
  }
  if (known.name === "boolean") return trimmed === "true";
  if (known.name === "enum") return trimmed;
  try {
    return parse(trimmed);
  } catch {
    if (known.name === "array" && ["string", "enum"].includes(known.item.name)) return trimmed.split(",").map((part) => part.trim());
    if (known.name === "any") return written;
    if (known.name === "Directory") return { class: "Directory", location: trimmed };
    throw new Error("This value is written as JSON, for example [1, 2, 3]");
  }
}

/** The text with which somebody starts to edit. */
export function editable(value, type) {
  if (value === null || value === undefined) return "";
  if (typeof value === "object") return kind(type).name === "Directory" ? (value.location ?? value.path ?? "") : stringify(value);
  return String(value);
}

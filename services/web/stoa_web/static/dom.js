// Makes elements. Text is always set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

const grouped = new Intl.NumberFormat("en", { useGrouping: true });

/** A whole number with thin spaces between thousands. */
export const count = (number) => grouped.format(number).replaceAll(",", "\u202f");

export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

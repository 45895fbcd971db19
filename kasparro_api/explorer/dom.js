// Making elements. Whatever is text goes in as text: names come from vendors.

const SVG = "http://www.w3.org/2000/svg";

/** An element with attributes (`on…` are listeners; false and null are left out) and children (nodes or texts). */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same in SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A table with a caption for screen readers; a column is {title, of(row), class}, its first one heads the row. */
export function table(caption, columns, rows) {
  const head = columns.map((column) => el("th", { scope: "col", class: column.class }, column.title));
  const body = rows.map((row) => el("tr", {}, ...columns.map((column, n) => {
    const cell = n === 0 ? el("th", { scope: "row", class: column.class }) : el("td", { class: column.class });
    cell.append(column.of(row) ?? "–");
    return cell;
  })));
  const made = el("table", {}, el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...body));
  return el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" }, made);
}

const turns = new WeakMap();

/** `place` shows that something is being asked for, then what `load` gives (nodes), or what went wrong. */
export async function shown(place, load, failed) {
  const turn = (turns.get(place) ?? 0) + 1;
  turns.set(place, turn);
  place.replaceChildren(el("p", { class: "hint", role: "status" }, "Loading…"));
  place.setAttribute("aria-busy", "true");
  let made;
  try {
    made = [await load()].flat();
  } catch (error) {
    made = [el("p", { class: "problem", role: "alert" }, failed(error))];
  }
  if (turns.get(place) !== turn) return; // something else is to be shown by now
  place.replaceChildren(...made);
  place.removeAttribute("aria-busy");
}

/** Exact digits with thousands set apart; a text all the way. */
export function grouped(digits) {
  if (digits === null || digits === undefined) return "–";
  const [whole, fraction] = String(digits).split(".");
  const apart = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return fraction === undefined ? apart : `${apart}.${fraction}`;
}

/** A time as "2026-11-01 23:50 UTC" and how long ago. */
export function time(text) {
  if (!text) return "never";
  return el("time", { datetime: text, title: text }, `${text.slice(0, 10)} ${text.slice(11, 16)} UTC (${ago(text)})`);
}

function ago(text) {
  const seconds = Math.round((Date.now() - Date.parse(text)) / 1000);
  for (const [size, unit] of [[86400, "day"], [3600, "hour"], [60, "minute"]]) {
    const count = Math.floor(seconds / size);
    if (count > 0) return `${count} ${unit}${count === 1 ? "" : "s"} ago`;
  }
  return seconds < 0 ? "in the future" : "just now";
}

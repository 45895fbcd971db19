// Lines over days, as SVG. Numbers are used for drawing only; what is written beside a line is the exact text.

import { el, grouped, svg } from "./dom.js";

const DAY = 86_400_000;
const WIDE = { width: 800, height: 320, marks: 4 };
const NARROW = { width: 340, height: 220, marks: 2 }; // so that letters keep their size on a phone
const EDGE = { left: 74, right: 14, top: 12, bottom: 28 };
const DOTS_UP_TO = 60;
const GAP_DAYS = 14; // a longer silence is not drawn over

/** Points {day, value} as {x, y, day, value}; those without a value are left out. */
export function points(rows, x, y) {
  return rows.filter((row) => row.value !== null).map((row) => (
    { ...row, x: x(Date.parse(row.day)), y: y(Number(row.value)) }
  ));
}

/** What maps [low, high] to [from, to]; a single value comes to the middle. */
export function scale(low, high, from, to) {
  if (high === low) return () => (from + to) / 2;
  return (value) => from + ((value - low) / (high - low)) * (to - from);
}

/** Two to six round numbers within [low, high]. */
export function ticks(low, high) {
  if (!(high > low)) return [low];
  const raw = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= raw);
  const first = Math.ceil(low / step);
  const count = Math.floor(high / step) - first + 1;
  return Array.from({ length: count }, (_, n) => (first + n) * step);
}

/** The line through the points, broken where nothing was said for long. */
export function path(placed) {
  return placed.map((point, n) => {
    const joined = n > 0 && Date.parse(point.day) - Date.parse(placed[n - 1].day) <= GAP_DAYS * DAY;
    return `${joined ? "L" : "M"}${point.x.toFixed(1)} ${point.y.toFixed(1)}`;
  }).join("");
}

function bounds(numbers) {
  return [Math.min(...numbers), Math.max(...numbers)];
}

/** A small line without axes; the figures are in the table beside it. */
export function sparkline(rows) {
  const known = rows.filter((row) => row.value !== null);
  if (known.length < 2) return el("span", { class: "hint" }, "–");
  const [first, last] = bounds(known.map((row) => Date.parse(row.day)));
  const [low, high] = bounds(known.map((row) => Number(row.value)));
  const placed = points(known, scale(first, last, 2, 98), scale(low, high, 26, 2));
  const change = Number(known.at(-1).value) - Number(known[0].value);
  const trend = change > 0 ? "up" : change < 0 ? "down" : "level";
  return svg("svg", { viewBox: "0 0 100 28", class: `spark ${trend}`, role: "img",
    "aria-label": `${trend} since ${known[0].day}` }, svg("path", { d: path(placed) }));
}

/** Series {name, rows: [{day, value}]}, the first one drawn broad, below the others; moved over by pointer or arrow keys. */
export function chart(title, series) {
  const known = series.flatMap((one) => one.rows.filter((row) => row.value !== null));
  if (known.length === 0) return el("p", { class: "hint" }, "No prices in these days.");
  const [first, last] = bounds(known.map((row) => Date.parse(row.day)));
  const [low, high] = bounds(known.map((row) => Number(row.value)));
  const size = window.innerWidth < 640 ? NARROW : WIDE;
  const x = scale(first, last, EDGE.left, size.width - EDGE.right);
  const y = scale(low, high, size.height - EDGE.bottom, EDGE.top);
  const lines = series.map((one, n) => ({ ...one, colour: `line-${Math.min(n, 7)}`, placed: points(one.rows, x, y) }));
  const days = [...new Set(known.map((row) => row.day))].sort();
  const cursor = svg("line", { class: "cursor", y1: EDGE.top, y2: size.height - EDGE.bottom, visibility: "hidden" });
  const drawing = svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img",
    "aria-label": `${title}, ${days[0]} to ${days.at(-1)}; the table below has the figures` },
  ...axes(size, x, y, [first, last], [low, high]), ...lines.flatMap(drawn), cursor);
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const legend = el("ul", { class: "legend" }, ...lines.map((line) => el("li", { class: line.colour }, line.name)));
  let at = days.length - 1;
  const show = (index) => {
    at = Math.max(0, Math.min(days.length - 1, index));
    const place = x(Date.parse(days[at]));
    for (const name of ["x1", "x2"]) cursor.setAttribute(name, place);
    cursor.setAttribute("visibility", "visible");
    readout.textContent = told(days[at], lines);
  };
  readout.textContent = told(days[at], lines);
  const move = { ArrowLeft: () => at - 1, ArrowRight: () => at + 1, Home: () => 0, End: () => days.length - 1 };
  const frame = el("div", { class: "chart", tabindex: "0", role: "group",
    "aria-label": `${title}: arrow keys move from day to day`,
    onkeydown: (event) => {
      if (!move[event.key]) return;
      event.preventDefault();
      show(move[event.key]());
    },
    onpointermove: (event) => {
      const box = drawing.getBoundingClientRect();
      show(nearest(days, x, ((event.clientX - box.left) / box.width) * size.width));
    } }, drawing);
  return el("div", {}, legend, frame, readout);
}

function drawn(line) {
  const shape = svg("path", { d: path(line.placed), class: `line ${line.colour}` });
  if (line.placed.length > DOTS_UP_TO) return [shape];
  return [shape, ...line.placed.map((point) => svg("circle", { cx: point.x, cy: point.y, r: 2.6, class: `dot ${line.colour}` }))];
}

function axes(size, x, y, [first, last], [low, high]) {
  const across = ticks(low, high).flatMap((value) => [
    svg("line", { class: "grid", x1: EDGE.left, x2: size.width - EDGE.right, y1: y(value), y2: y(value) }),
    svg("text", { x: EDGE.left - 8, y: y(value) + 4, "text-anchor": "end" }, short(value)),
  ]);
  const count = Math.min(size.marks, Math.round((last - first) / DAY));
  const marks = Array.from({ length: count + 1 }, (_, n) => first + (count ? Math.round(((last - first) / DAY) * (n / count)) * DAY : 0));
  const along = marks.map((day, n) => svg("text", { x: x(day), y: size.height - 8,
    "text-anchor": n === 0 && count ? "start" : n === count && count ? "end" : "middle" }, new Date(day).toISOString().slice(0, 10)));
  return [...across, ...along];
}

function short(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e9)) return value.toExponential(2);
  return grouped(Number(value.toPrecision(6)));
}

function told(day, lines) {
  const said = lines.map((line) => [line.name, line.rows.find((row) => row.day === day)?.value]);
  return [day, ...said.filter(([, value]) => value).map(([name, value]) => `${name} ${grouped(value)}`)].join(" · ");
}

function nearest(days, x, place) {
  let best = 0;
  days.forEach((day, n) => {
    if (Math.abs(x(Date.parse(day)) - place) < Math.abs(x(Date.parse(days[best])) - place)) best = n;
  });
  return best;
}

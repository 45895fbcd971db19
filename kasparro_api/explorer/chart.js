// Lines over days, drawn by uPlot (`uplot/`). Numbers are used for drawing only; what is written beside a line is the
// exact text.

import { el, grouped } from "./dom.js";

const DAY_S = 86_400;
const STEPS = [1, 2, 7, 15, 30, 60, 90, 180, 365, 730, 1825].map((days) => days * DAY_S); // between marks of the time axis
const SILENCE_S = 14 * DAY_S; // longer ones are not drawn over
const COLOURS = 8;
const FONT = "12px system-ui, sans-serif";

const live = new Set(); // plots that are on the page
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => live.forEach((plot) => plot.redraw(false)));

const colour = (n) => `line-${Math.min(n, COLOURS - 1)}`;
const ink = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`);
const dated = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 10);

/** Series {name, rows: [{day, value}]}, the first one drawn broad, below the others; moved over by pointer or arrow keys. */
export function chart(title, series) {
  const said = series.map(({ rows }) => new Map(rows.filter((row) => row.value !== null).map(({ day, value }) => [day, value])));
  const days = [...new Set(said.flatMap((values) => [...values.keys()]))].sort();
  if (days.length === 0) return el("p", { class: "hint" }, "No prices in these days.");
  const times = days.map((day) => Date.parse(day) / 1000);
  const numbers = said.map((values) => days.map((day) => (values.has(day) ? Number(values.get(day)) : null)));
  const readout = el("p", { class: "readout", "aria-live": "polite" });
  const tell = (at) => {
    const told = series.map(({ name }, n) => [name, said[n].get(days[at])]).filter(([, value]) => value !== undefined);
    readout.textContent = [days[at], ...told.map(([name, value]) => `${name} ${grouped(value)}`)].join(" · ");
  };
  tell(days.length - 1);
  const drawing = el("div", { role: "img",
    "aria-label": `${title}, ${days[0]} to ${days.at(-1)}; the table below has the figures` });
  const plotted = plot(drawing, [times, ...numbers], tell);
  const frame = el("div", { class: "chart", tabindex: "0", role: "group",
    "aria-label": `${title}: arrow keys move from day to day`, onkeydown: (event) => moved(event, plotted()) }, drawing);
  const legend = el("ul", { class: "legend" }, ...series.map(({ name }, n) => el("li", { class: colour(n) }, name)));
  return el("div", {}, legend, frame, readout);
}

/** Draws the data in `place` whenever that has a width, as wide as it is; gives a function that gives the plot, or null. */
function plot(place, data, tell) {
  let made = null;
  const remove = () => {
    live.delete(made);
    made?.destroy();
    made = null;
  };
  new ResizeObserver(() => {
    const width = place.clientWidth;
    const size = { width, height: width < 560 ? 220 : 320 };
    if (width === 0) remove(); // hidden, or gone from the page
    else if (made) made.setSize(size);
    else live.add(made = new uPlot({ ...options(data, tell), ...size }, data, place));
  }).observe(place);
  return () => made;
}

function options([times, ...numbers], tell) {
  const axis = { stroke: ink("soft"), font: FONT, ticks: { show: false }, grid: { stroke: ink("edge"), width: 1 } };
  return {
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    legend: { show: false }, // ours have exact figures, and speak
    cursor: { y: false, drag: { x: false, y: false } },
    axes: [
      { ...axis, size: 30, incrs: STEPS, space: 80, values: (_, marks) => marks.map(dated), grid: { show: false } },
      { ...axis, values: (_, marks) => marks.map(short), size: (_, marks) => 20 + 7 * Math.max(0, ...(marks ?? []).map((mark) => mark.length)) },
    ],
    series: [{}, ...numbers.map((values, n) => ({
      stroke: ink(colour(n)), width: n === 0 ? 6 : 1.6, alpha: n === 0 ? 0.45 : 1, points: { size: n === 0 ? 9 : 6, fill: ink(colour(n)) },
      gaps: (plot) => silences(times, values).map((gap) => gap.map((time) => plot.valToPos(time, "x", true))),
    }))],
    hooks: {
      setCursor: [({ cursor }) => cursor.idx !== null && cursor.left >= 0 && tell(cursor.idx)],
      ready: [(plot) => plot.over.addEventListener("pointermove", (event) => { // by itself it hears the mouse only
        if (event.pointerType === "touch") plot.setCursor({ left: event.offsetX, top: event.offsetY });
      })],
    },
  };
}

/** Pairs of times between which nothing was said for long. */
export function silences(times, values) {
  const known = times.filter((_, n) => values[n] !== null);
  return known.slice(1).map((time, n) => [known[n], time]).filter(([from, to]) => to - from > SILENCE_S);
}

function moved(event, plot) {
  const last = plot ? plot.data[0].length - 1 : -1;
  const at = plot?.cursor.idx ?? last;
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  const time = plot?.data[0][Math.max(0, Math.min(last, to))];
  if (time !== undefined) plot.setCursor({ left: plot.valToPos(time, "x"), top: 0 });
}

function short(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e9)) return value.toExponential(2);
  return grouped(Number(value.toPrecision(6)));
}

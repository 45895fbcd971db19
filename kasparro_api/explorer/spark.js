// A line of the size of a word, as SVG: a chart's canvas, axes and cursor would be much for so little.

import { el, svg } from "./dom.js";

const WIDTH = 100;
const HEIGHT = 28;
const EDGE = 2;

/** The line through rows {day, value}, oldest first; its figures are in the table beside it. */
export function sparkline(rows) {
  const known = rows.filter((row) => row.value !== null);
  if (known.length < 2) return el("span", { class: "hint" }, "–");
  const across = placed(known.map((row) => Date.parse(row.day)), EDGE, WIDTH - EDGE);
  const up = placed(known.map((row) => Number(row.value)), HEIGHT - EDGE, EDGE);
  const change = Number(known.at(-1).value) - Number(known[0].value);
  const trend = change > 0 ? "up" : change < 0 ? "down" : "level";
  return svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: `spark ${trend}`, role: "img",
    "aria-label": `${trend} since ${known[0].day}` }, svg("polyline", { points: across.map((x, n) => `${x},${up[n]}`).join(" ") }));
}

/** The numbers, the lowest at `from` and the greatest at `to`; equal ones in the middle. */
function placed(numbers, from, to) {
  const low = Math.min(...numbers);
  const span = Math.max(...numbers) - low;
  return numbers.map((number) => (span ? from + ((number - low) / span) * (to - from) : (from + to) / 2).toFixed(1));
}

// One coin: its history as a chart, each source's line beside the unified one, and the same as a table.

import { ask } from "./api.js";
import { chart } from "./chart.js";
import { el, grouped, table } from "./dom.js";

const PERIODS = [[30, "30 days"], [90, "90 days"], [365, "a year"], [0, "all, by week"]];
const PAGE = 1000; // rows, the API's most
const PAGES = 5; // of observations; beyond them the oldest are not drawn, and the page says so
const DAY = 86_400_000;

/** What to show of the coin: nodes, of its last `days` (0: all). `choose` is called with another period. */
export async function coin(coinId, days, choose) {
  const at = `coins/${encodeURIComponent(coinId)}`;
  const told = (await ask(at)).data;
  const newest = told.latest?.day;
  const head = heading(told);
  if (!newest) return [...head, el("p", { class: "hint" }, "No source gave a price of it yet.")];
  const since = days ? { from: new Date(Date.parse(newest) - (days - 1) * DAY).toISOString().slice(0, 10) } : {};
  const interval = days ? "day" : "week";
  const [history, said] = await Promise.all([
    ask(`${at}/history`, { ...since, interval, limit: PAGE, fields: "day,price_usd,price_source,price_spread_pct,flags" }),
    observations(at, since),
  ]);
  const series = [
    { name: "unified", rows: [...history.data].reverse().map((row) => ({ day: row.day, value: row.price_usd })) },
    ...bySource(said.rows),
  ];
  return [
    ...head,
    periods(days, choose),
    chart(`Price of ${told.name ?? coinId} in USD`, series),
    said.cut ? el("p", { class: "hint" }, `The sources' lines are of the newest ${said.rows.length} observations.`) : null,
    figures(coinId, history.data, series.slice(1)),
  ].filter(Boolean);
}

function heading(told) {
  const latest = told.latest;
  return [
    el("p", {}, el("a", { href: "#/" }, "← All coins")),
    el("h2", { id: "coin-title", tabindex: "-1" }, told.name ?? told.coin_id, " ", el("span", { class: "symbol" }, told.symbol ?? "")),
    latest && el("p", { class: "price" }, `$${grouped(latest.price_usd)}`),
    latest && el("p", { class: "hint" }, `${latest.day}, by ${latest.price_source}; ${latest.source_count} source${latest.source_count === 1 ? "" : "s"} gave a price, `
      + `${latest.price_spread_pct === null ? "no spread" : `${latest.price_spread_pct} % apart`}. `,
    el("a", { href: `#/coin/${encodeURIComponent(told.coin_id)}/${latest.day}` }, "Where this number comes from")),
  ].filter(Boolean);
}

function periods(days, choose) {
  const options = PERIODS.map(([count, name]) => el("option", { value: count, selected: count === days }, name));
  return el("p", {}, el("label", { for: "period" }, "Days shown: "),
    el("select", { id: "period", onchange: (event) => choose(Number(event.target.value)) }, ...options));
}

async function observations(at, since) {
  const rows = [];
  let cursor = null;
  for (let page = 0; page < PAGES; page += 1) {
    const query = { ...since, limit: PAGE, fields: "source,observed_at,price_usd", ...(cursor ? { cursor } : {}) };
    const answer = await ask(`${at}/observations`, query);
    rows.push(...answer.data);
    cursor = answer.metadata.next_cursor;
    if (!cursor) break;
  }
  return { rows, cut: Boolean(cursor) };
}

/** The last price a source gave each day; `rows` are newest first. */
export function bySource(rows) {
  const sources = new Map();
  for (const row of rows) {
    const days = sources.get(row.source) ?? sources.set(row.source, new Map()).get(row.source);
    const day = row.observed_at.slice(0, 10);
    if (row.price_usd !== null && !days.has(day)) days.set(day, row.price_usd);
  }
  return [...sources].sort().map(([name, days]) => (
    { name, rows: [...days].sort().map(([day, value]) => ({ day, value })) }
  ));
}

function figures(coinId, history, sources) {
  const said = sources.map((source) => ({
    title: source.name,
    class: "number",
    of: (row) => grouped(source.rows.find((one) => one.day === row.day)?.value),
  }));
  const shown = table("Prices in USD by day", [
    { title: "Day (UTC)", of: (row) => row.day },
    { title: "Unified", class: "number", of: (row) => grouped(row.price_usd) },
    { title: "From", of: (row) => row.price_source },
    { title: "Spread %", class: "number", of: (row) => row.price_spread_pct },
    { title: "Flags", of: (row) => row.flags.join(", ") || "–" },
    ...said,
    { title: "Lineage", of: (row) => el("a", { href: `#/coin/${encodeURIComponent(coinId)}/${row.day}`, "aria-label": `Lineage of ${row.day}` }, "lineage") },
  ], history);
  return el("details", {}, el("summary", {}, "Figures as a table"), shown);
}

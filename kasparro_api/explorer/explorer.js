// The page: what is asked for when, and which view the address (#/coin/ID/DAY) names.

import { ask, hasKey, useKey } from "./api.js";
import { coin } from "./coin.js";
import { el, grouped, shown, table } from "./dom.js";
import { lineage } from "./lineage.js";
import { health, oddities, sources } from "./operations.js";
import { sparkline } from "./spark.js";

const TOP = 25;
const TREND_DAYS = 30;
const PAUSE_MS = 200; // of typing, before a search
const FOUND = 20;

const at = (id) => document.getElementById(id);
let dagster = null;
let days = 90;
let searches = 0;

/** What to tell of an error; a missing key opens the field for it. */
function failed(error) {
  if (!("status" in error)) throw error;
  if (error.status !== 401) return error.message;
  at("key-form").hidden = false;
  at("key-problem").textContent = hasKey() ? "The key was not taken: it is unknown, revoked or expired."
    : "This service does not let everybody read. Keys are made with `kasparro keys create NAME`.";
  return "A key is needed; the field for it is at the top of the page.";
}

const coinLink = (row) => el("a", { href: `#/coin/${encodeURIComponent(row.coin_id)}` }, row.name ?? row.coin_id);

async function latest() {
  const { data } = await ask("latest", { limit: TOP });
  if (data.length === 0) return el("p", { class: "hint" }, "There are no rows yet: `kasparro load` loads.");
  const cells = new Map(data.map((row) => [row.coin_id, el("span", { class: "trend" })]));
  trends(data, cells);
  return [el("p", { class: "hint" }, `${data[0].day} (UTC), prices in USD`), table("Coins by market cap", [
    { title: "Coin", class: "name", of: (row) => el("span", {}, coinLink(row), " ", el("span", { class: "symbol" }, row.symbol ?? "")) },
    { title: "Price", class: "number", of: (row) => grouped(row.price_usd) },
    { title: "Market cap", class: "number wide", of: (row) => grouped(row.market_cap_usd) },
    { title: "Volume, 24 h", class: "number wide", of: (row) => grouped(row.volume_24h_usd) },
    { title: "Sources", class: "number wide", of: (row) => String(row.source_count) },
    { title: `${TREND_DAYS} days`, class: "spark-cell", of: (row) => cells.get(row.coin_id) },
  ], data)];
}

/** The lines come after the table: it does not wait for them. */
async function trends(rows, cells) {
  await Promise.all(rows.map(async ({ coin_id }) => {
    const query = { fields: "day,price_usd", limit: TREND_DAYS };
    try {
      const { data } = await ask(`coins/${encodeURIComponent(coin_id)}/history`, query);
      cells.get(coin_id).replaceChildren(sparkline(data.reverse().map((row) => ({ day: row.day, value: row.price_usd }))));
    } catch (error) {
      cells.get(coin_id).replaceChildren(el("span", { title: failed(error) }, "–"));
    }
  }));
}

async function search() {
  const turn = (searches += 1);
  const words = at("q").value.trim();
  if (!words) {
    at("found").replaceChildren();
    at("search-status").textContent = "";
    return;
  }
  let told;
  let found = [];
  try {
    const { data, metadata } = await ask("coins", { q: words, limit: FOUND });
    found = data.map((row) => el("li", {}, coinLink(row), " ", el("span", { class: "symbol" }, row.symbol ?? "")));
    const count = metadata.next_cursor ? `More than ${FOUND}` : data.length || "No";
    told = `${count} coin${data.length === 1 ? "" : "s"} found`;
  } catch (error) {
    told = failed(error);
  }
  if (turn !== searches) return; // a later search is on its way
  at("search-status").textContent = told;
  at("found").replaceChildren(...found);
}

async function overview() {
  const asked = health();
  asked.then((report) => {
    at("health").textContent = { ok: "all well", degraded: "degraded", unavailable: "no database" }[report.status];
    at("health").className = `badge ${report.status}`;
  }, (error) => {
    at("health").textContent = "cannot be reached";
    at("health").title = failed(error);
    at("health").className = "badge unavailable";
  });
  await Promise.all([
    shown(at("latest"), latest, failed),
    shown(at("sources"), () => sources(asked), failed),
    shown(at("oddities"), oddities, failed),
  ]);
}

/** Show what the address names. */
async function view() {
  const [, kind, coinId, day] = location.hash.split("/").map(decodeURIComponent);
  const isCoin = kind === "coin" && Boolean(coinId);
  at("coin-view").hidden = !isCoin;
  at("lineage-view").hidden = !isCoin || !day;
  at("latest-view").hidden = isCoin;
  if (!isCoin) {
    document.title = "Kasparro";
    return;
  }
  document.title = `${coinId} – Kasparro`;
  at("q").value = "";
  await search();
  await Promise.all([
    shown(at("coin-view"), () => coin(coinId, days, choose), failed),
    day ? shown(at("lineage-view"), () => lineage(coinId, day, dagster, failed), failed) : null,
  ]);
  at(day ? "lineage-title" : "coin-title")?.focus();
}

async function choose(count) {
  days = count;
  await view();
  at("period")?.focus();
}

async function places() {
  const { dagster: { host, port } } = await ask("explorer/places.json");
  dagster = `http://${host ?? location.hostname}:${port}`;
  at("dagster").href = dagster;
  at("dagster").hidden = false;
}

let typing = 0;
at("q").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, PAUSE_MS);
});
at("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  search();
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("key").value.trim());
  at("key").value = "";
  at("key-form").hidden = true;
  overview();
  view();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  at("main").focus();
});
window.addEventListener("hashchange", view);

await places().catch(() => null); // without them the page only lacks its links to Dagster
overview();
view();

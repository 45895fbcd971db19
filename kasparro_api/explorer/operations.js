// How fresh the sources are, and what was odd about what they sent.

import { ask } from "./api.js";
import { el, grouped, table, time } from "./dom.js";

const SEVERITIES = { error: "in key fields", warn: "in fields that are read", info: "in other fields" };

/** The answer of `/health`, which tells of an outage in its own words. */
export const health = () => ask("health", {}, [503]);

export async function sources(asked) {
  const [report, { data }] = await Promise.all([asked, ask("sources")]);
  if (data.length === 0) return el("p", { class: "hint" }, "Nothing has run yet: `kasparro load` loads.");
  const checks = report.failed_checks.map((one) => el("li", {},
    `${one.severity}: ${one.asset_key} ${one.check}${one.day ? ` on ${one.day}` : ""}: ${one.detail}`
    + (one.blocking && one.day ? "; the day is not unified" : "")));
  return [
    table("The sources, their health and freshness", [
      { title: "Source", of: (row) => row.source },
      { title: "Last run", of: (row) => state(report.sources[row.source]) },
      { title: "Last success", of: (row) => time(row.last_success_at) },
      { title: "Newest observation", of: (row) => time(row.last_observed_at) },
      { title: "Coins", class: "number", of: (row) => grouped(row.coins) },
      { title: "In quarantine", class: "number", of: (row) => grouped(row.quarantined) },
    ], data),
    ...(checks.length ? [el("h3", {}, "Checks that failed"), el("ul", { class: "plain" }, ...checks)] : []),
  ];
}

function state(told) {
  if (!told) return "none";
  if (told.failing) return el("span", { class: "bad" }, `✗ failed: ${told.last_run.error ?? "see the run"}`);
  return el("span", { class: "good" }, told.last_run.status === "running" ? "… running" : "✓ succeeded");
}

export async function oddities() {
  const counting = { count: "exact", limit: 1 };
  const [quarantine, ...drift] = await Promise.all([
    ask("quarantine", counting),
    ...Object.keys(SEVERITIES).map((severity) => ask("drift", { ...counting, severity, status: "open" })),
  ]);
  const newest = quarantine.data[0];
  const changes = Object.entries(SEVERITIES).map(([severity, where], n) => (
    tile(drift[n].metadata.total, "change", where, `drift?status=open&severity=${severity}`, last(drift[n].data[0]))
  ));
  return el("ul", { class: "tiles" },
    tile(quarantine.metadata.total, "record", "in quarantine", "quarantine",
      newest && `newest: ${newest.source}, ${newest.location}: ${newest.reason}`),
    ...changes);
}

const last = (drift) => drift && `newest: ${drift.source}, ${drift.path} ${drift.kind}`;

function tile(count, thing, where, path, detail) {
  return el("li", {}, el("a", { href: path }, el("strong", {}, grouped(count)), ` ${thing}${count === 1 ? "" : "s"} ${where}`),
    detail ? el("p", { class: "hint" }, detail) : null);
}

// Where one row came from: verdicts by field, observations, payloads, runs.

import { ask, bytes, hasKey } from "./api.js";
import { el, grouped, table, time } from "./dom.js";

const VERDICTS = {
  chosen: "chosen",
  later_priority: "another source comes first",
  stale: "old, others were fresh",
  outlier: "outlier",
  no_value: "gave none",
};

/** What to show of the row's lineage: nodes; `dagster` is the Dagster UI's address or null. */
export async function lineage(coinId, day, dagster, failed) {
  const told = await ask(`data/${encodeURIComponent(coinId)}/${encodeURIComponent(day)}/lineage`);
  const deliveries = told.payloads.flatMap((payload) => (payload.deliveries ?? []).map((one) => ({ ...payload, ...one })));
  const run = (id) => (id && dagster ? el("a", { href: `${dagster}/runs/${encodeURIComponent(id)}` }, id.slice(0, 8)) : id?.slice(0, 8));
  const made = told.unified_by;
  return [
    el("h2", { id: "lineage-title", tabindex: "-1" }, `Lineage of ${told.row.name ?? coinId}, ${day}`),
    made && el("p", { class: "hint" }, `Unified by rule ${made.rule_version}, `, time(made.unified_at), ", run ", run(made.run_id) ?? "–",
      made.changing ? "; something has arrived since, so it is made again soon." : "."),
    told.pruned && el("p", { class: "hint" }, "Observations that this row rests on are no longer kept; it stays as it is."),
    el("h3", {}, "Which source's word was taken"),
    verdicts(told.fields),
    el("h3", {}, "Observations"),
    table("The sources' observations and the payloads that held them", [
      { title: "Source", of: (row) => row.source },
      { title: "Calls it", of: (row) => row.source_coin_id },
      { title: "Known by", of: (row) => `${row.identity.method} (${row.identity.confidence})` },
      { title: "Observed", of: (row) => time(row.observed_at) },
      { title: "Price", class: "number", of: (row) => grouped(row.price_usd) },
      { title: "Payload", of: (row) => payload(row.payload_sha256, failed) },
      { title: "Record", class: "number", of: (row) => String(row.position) },
    ], told.observations),
    el("h3", {}, "Deliveries of these payloads"),
    table("When the payloads were delivered, and by which runs", [
      { title: "Source", of: (row) => row.source },
      { title: "Fetched", of: (row) => time(row.fetched_at) },
      { title: "Request or file", class: "long", of: (row) => row.request },
      { title: "Payload", of: (row) => payload(row.sha256, failed) },
      { title: "Bytes", class: "number", of: (row) => grouped(row.size_bytes) },
      { title: "Fetched by", of: (row) => run(row.run_id) },
      { title: "Parsed by", of: (row) => run(row.parse_run_id) },
    ], deliveries),
  ].filter(Boolean);
}

function verdicts(fields) {
  const sources = [...new Set(Object.values(fields).flat().map((one) => one.source))];
  return table("What each source said of each field, and what became of it", [
    { title: "Field", of: ([field]) => field },
    ...sources.map((source) => ({
      title: source,
      class: "figure",
      of: ([field, said]) => verdict(field, said.find((one) => one.source === source)),
    })),
  ], Object.entries(fields));
}

function verdict(field, said) {
  if (!said) return null;
  const isAmount = field.endsWith("_usd") || field.endsWith("_supply");
  const compared = [["median", said.median], ["usual", said.usual]].filter(([, value]) => value !== null);
  const why = [VERDICTS[said.verdict] ?? said.verdict, ...compared.map(([name, value]) => `${name} ${grouped(value)}`)];
  return el("span", {}, isAmount ? grouped(said.value) : said.value ?? "–", " ",
    el("small", { class: `verdict ${said.verdict}` }, why.join("; ")));
}

/** A link to the bytes; with a key they are asked for with it, as a link carries none. */
function payload(sha256, failed) {
  const link = el("a", { href: `payloads/${sha256}`, class: "hash", title: sha256, download: "",
    "aria-label": `Payload ${sha256}` }, sha256.slice(0, 12));
  link.addEventListener("click", async (event) => {
    if (!hasKey() || link.href.startsWith("blob:")) return;
    event.preventDefault();
    try {
      link.href = URL.createObjectURL(await bytes(`payloads/${sha256}`));
      link.download = sha256;
      link.click();
    } catch (error) {
      link.after(el("span", { class: "problem", role: "alert" }, ` ${failed(error)}`));
    }
  });
  return link;
}

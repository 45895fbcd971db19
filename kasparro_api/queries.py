"""Every SQL statement of the service. Values are always bound; only what this module wrote itself is text.

What a listing asks is in `listing_sql`. JSON is built by PostgreSQL: decimals as text, so that no digit is lost.
"""
# ruff: noqa: S608 - what is put into a statement as text was written in this module

from __future__ import annotations

from kasparro_api.listing import Listing
from kasparro_api.listing_sql import as_json, utc
from kasparro_api.listings import COINS, DATA, RAN, RUNS, SOURCES


def _columns(listing: Listing, alias: str) -> str:
    return ", ".join(f"{as_json(f'{alias}.{name}', kind)} AS {name}" for name, kind in listing.columns.items())


UNIFIED_COLUMNS = _columns(DATA, "u")
"""Of a row of the unified asset table, as JSON has them."""

_SOURCES = f"{RAN} s"


def _newest_step(condition: str = "true") -> str:
    """The newest row of `source_run` of source `s.source`, of those that fulfil `condition`."""
    return f"SELECT r.* FROM kasparro.source_run r WHERE r.source = s.source AND {condition} ORDER BY r.started_at DESC"


_FAILED = _newest_step("r.status = 'failure'")

_SUCCEEDED = _newest_step(
    """r.status = 'success' AND 'success' = ALL (
        SELECT status FROM kasparro.source_run WHERE run_id = r.run_id AND source = r.source)"""
)
"""A run is a success when every step of it was."""

SOURCE_HEALTH = f"""
SELECT s.source, json_build_object(
    'last_run', (
        SELECT json_build_object(
            'run_id', r.run_id,
            'status', CASE WHEN bool_or(r.status = 'failure') THEN 'failure'
                           WHEN bool_or(r.status = 'running') THEN 'running' ELSE 'success' END,
            'started_at', {utc("min(r.started_at)")},
            'ended_at', CASE WHEN bool_and(r.ended_at IS NOT NULL) THEN {utc("max(r.ended_at)")} END,
            'error', string_agg(r.error, '; ' ORDER BY r.started_at))
        FROM kasparro.source_run r WHERE r.source = s.source AND r.run_id = newest.run_id GROUP BY r.run_id),
    'last_success_at', {utc("succeeded.ended_at")},
    'last_failure_at', {utc("failed.ended_at")},
    'failing', coalesce(failed.started_at > coalesce(succeeded.started_at, '-infinity'), false))
FROM {_SOURCES}
LEFT JOIN LATERAL ({_newest_step()} LIMIT 1) newest ON true
LEFT JOIN LATERAL ({_SUCCEEDED} LIMIT 1) succeeded ON true
LEFT JOIN LATERAL ({_FAILED} LIMIT 1) failed ON true
ORDER BY s.source
"""

FAILED_CHECKS = f"""
SELECT json_build_object(
    'asset_key', asset_key, 'check', check_name, 'day', day, 'severity', severity, 'blocking', blocking,
    'detail', detail, 'run_id', run_id, 'checked_at', {utc("checked_at")})
FROM kasparro.failed_check ORDER BY severity, day DESC NULLS FIRST, asset_key, check_name LIMIT 100
"""

REPLICA_LAG = """
SELECT CASE
    WHEN NOT pg_is_in_recovery() THEN NULL
    WHEN EXISTS (SELECT FROM pg_stat_wal_receiver) AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
    ELSE round(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 3) END::float8
"""
"""Seconds; null where nothing is replayed. Cut off, it is the age of the newest change that has arrived."""

COUNTED_UP_TO = 100_000
"""Rows up to which a table is counted; beyond, the planner's estimate is told."""

EXPECTED_ROWS = """
SELECT coalesce(sum(greatest(reltuples, 0)), 0)::bigint FROM pg_class WHERE relkind = 'r' AND (
    oid = %(table)s::regclass OR oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %(table)s::regclass))
"""
"""Of the table, or of its partitions."""

OBSERVATIONS_COUNTED = "SELECT source, count(*) FROM kasparro.observation GROUP BY source"

OBSERVATIONS_ESTIMATED = """
SELECT common.source, round(sum(part.reltuples * common.frequency))::bigint
FROM pg_inherits i JOIN pg_class part ON part.oid = i.inhrelid, pg_stats s,
    unnest(s.most_common_vals::text::text[], s.most_common_freqs) AS common (source, frequency)
WHERE i.inhparent = 'kasparro.observation'::regclass
  AND s.schemaname = 'kasparro' AND s.tablename = part.relname AND s.attname = 'source'
GROUP BY common.source
"""

UNIFIED_COUNTED = "SELECT count(*) FROM kasparro.unified_assets"

UNIFIED_DAYS = f"""
SELECT json_build_object(
    'first_day', min(day), 'last_day', max(day),
    'last_updated_at', (SELECT {utc("max(updated_at)")} FROM kasparro.unified_assets
                        WHERE day = (SELECT max(day) FROM kasparro.unified_assets)))
FROM kasparro.unified_assets
"""

_RUN_STEP = f"""json_build_object(
    'run_id', run_id, 'asset_key', asset_key, 'partition', partition, 'status', status,
    'started_at', {utc("started_at")}, 'ended_at', {utc("ended_at")},
    'duration_s', round(extract(epoch FROM ended_at - started_at), 3), 'error', error,
    'records', records, 'inserted', inserted, 'updated', updated, 'unchanged', unchanged, 'quarantined', quarantined)"""


SOURCE_STATS = {
    "deliveries": """
SELECT source, json_build_object(
    'count', count(*), 'records', coalesce(sum(records), 0), 'inserted', coalesce(sum(inserted), 0),
    'updated', coalesce(sum(updated), 0), 'unchanged', coalesce(sum(unchanged), 0),
    'quarantined', coalesce(sum(quarantined), 0))
FROM kasparro.delivery GROUP BY source
""",
    "payloads": """
SELECT source, json_build_object('count', count(*), 'bytes', sum(size_bytes), 'stored_bytes', sum(octet_length(body)))
FROM kasparro.raw_payload GROUP BY source
""",
    "quarantine": """
SELECT source, json_build_object('count', sum(n), 'by_reason', json_object_agg(reason_code, n ORDER BY reason_code))
FROM (SELECT source, reason_code, count(*) AS n FROM kasparro.quarantine GROUP BY source, reason_code) q
GROUP BY source
""",
    "runs": f"""
SELECT s.source, json_build_object(
    'last_success', (SELECT {_RUN_STEP} FROM ({_SUCCEEDED} LIMIT 1) succeeded),
    'last_failure', (SELECT {_RUN_STEP} FROM ({_FAILED} LIMIT 1) failed),
    'recent', (SELECT json_agg({_RUN_STEP} ORDER BY started_at DESC) FROM ({_newest_step()} LIMIT 10) recent))
FROM {_SOURCES}
""",
}
"""What is told of each source, by part: pairs of source and JSON object."""

COIN = f"""
SELECT convert_to(row_to_json(answer)::text, 'UTF8') FROM (
    SELECT {_columns(COINS, "c")},
        (SELECT coalesce(json_agg(row_to_json(i) ORDER BY i.source, i.source_coin_id), '[]') FROM (
            SELECT source, source_coin_id, method, confidence::text, evidence
            FROM kasparro.coin_identity WHERE coin_id = c.coin_id) i) AS identities,
        (SELECT row_to_json(u) FROM (
            SELECT {_columns(DATA, "d")} FROM kasparro.unified_assets d WHERE d.coin_id = c.coin_id
            ORDER BY d.day DESC LIMIT 1) u) AS latest
    FROM {COINS.relation} c WHERE c.coin_id = %(coin_id)s) answer
"""

_RUN = f"SELECT {_columns(RUNS, 'r')} FROM {RUNS.relation} r WHERE r.run_id = %s"

RUN = f"""
SELECT convert_to(row_to_json(answer)::text, 'UTF8') FROM (
    SELECT r.*, (SELECT json_agg({_RUN_STEP} ORDER BY started_at, asset_key, source)
                 FROM kasparro.source_run WHERE run_id = %(run_id)s) AS steps
    FROM ({_RUN % "%(run_id)s"}) r) answer
"""

_COUNTS = ("records", "inserted", "updated", "unchanged", "quarantined", "duration_s")
_CHANGES = ", ".join(f"'{name}', (b.{name}::numeric - a.{name}::numeric)::text" for name in _COUNTS)
_SHOWN = 1000
"""Coins of a kind that are named; all are counted."""
_ANOMALIES = ", ".join(
    f"""'{column}', json_build_object(
        'count', (SELECT count(*) FROM odd WHERE of = '{column}'),
        'coins', (SELECT coalesce(json_agg(o), '[]') FROM (
            SELECT source, source_coin_id, a, b, change_pct, deviations FROM odd WHERE of = '{column}'
            ORDER BY distance DESC, source, source_coin_id LIMIT {_SHOWN}) o))"""
    for column in ("price_usd", "market_cap_usd", "volume_24h_usd")
)

COMPARED_RUNS = f"""
WITH a AS ({_RUN % "%(a)s"}),
b AS ({_RUN % "%(b)s"}),
of_run AS MATERIALIZED (
    SELECT DISTINCT run_id, source, sha256 FROM (
        SELECT run_id, source, sha256 FROM kasparro.delivery WHERE run_id IN (%(a)s, %(b)s)
        UNION ALL
        SELECT parse_run_id, source, sha256 FROM kasparro.delivery WHERE parse_run_id IN (%(a)s, %(b)s)) d
),
said AS MATERIALIZED (
    SELECT DISTINCT ON (p.run_id, o.source, o.source_coin_id) p.run_id, o.source, o.source_coin_id,
           o.price_usd, o.market_cap_usd, o.volume_24h_usd
    FROM of_run p JOIN kasparro.observation o ON o.source = p.source AND o.payload_sha256 = p.sha256
    ORDER BY p.run_id, o.source, o.source_coin_id, o.observed_at DESC
),
paired AS (
    SELECT source, source_coin_id, x.run_id IS NOT NULL AS in_a, y.run_id IS NOT NULL AS in_b,
           x.price_usd AS price_a, y.price_usd AS price_b, x.market_cap_usd AS cap_a, y.market_cap_usd AS cap_b,
           x.volume_24h_usd AS volume_a, y.volume_24h_usd AS volume_b
    FROM (SELECT * FROM said WHERE run_id = %(a)s) x
    FULL JOIN (SELECT * FROM said WHERE run_id = %(b)s) y USING (source, source_coin_id)
),
moved AS (
    SELECT source, source_coin_id, number.*, (ln(number.b) - ln(number.a))::float8 AS move
    FROM paired, LATERAL (VALUES
        ('price_usd', price_a, price_b), ('market_cap_usd', cap_a, cap_b), ('volume_24h_usd', volume_a, volume_b)
    ) AS number (of, a, b)
    WHERE number.a > 0 AND number.b > 0
),
middle AS (SELECT of, percentile_cont(0.5) WITHIN GROUP (ORDER BY move) AS median FROM moved GROUP BY of),
spread AS (
    SELECT of, median, 1.4826 * percentile_cont(0.5) WITHIN GROUP (ORDER BY abs(move - median)) AS deviation
    FROM moved JOIN middle USING (of) GROUP BY of, median
),
odd AS (
    SELECT of, source, source_coin_id, a::text, b::text, round((b / a - 1) * 100, 4)::text AS change_pct,
           CASE WHEN deviation > 0 THEN round((abs(move - median) / deviation)::numeric, 1)::text END AS deviations,
           abs(move - median) AS distance
    FROM moved JOIN spread USING (of) WHERE abs(move - median) > greatest(6 * deviation, 0.01)
),
new AS (SELECT source, source_coin_id FROM paired WHERE NOT in_a),
vanished AS (SELECT source, source_coin_id FROM paired WHERE NOT in_b)
SELECT convert_to(json_build_object(
    'a', row_to_json(a), 'b', row_to_json(b),
    'change', json_build_object({_CHANGES}),
    'coins', json_build_object(
        'a', (SELECT count(*) FROM paired WHERE in_a), 'b', (SELECT count(*) FROM paired WHERE in_b),
        'new_count', (SELECT count(*) FROM new), 'vanished_count', (SELECT count(*) FROM vanished),
        'new', (SELECT coalesce(json_agg(n), '[]') FROM (SELECT * FROM new ORDER BY 1, 2 LIMIT {_SHOWN}) n),
        'vanished', (SELECT coalesce(json_agg(v), '[]') FROM (SELECT * FROM vanished ORDER BY 1, 2 LIMIT {_SHOWN}) v)),
    'anomalies', json_build_object({_ANOMALIES}))::text, 'UTF8')
FROM a, b
"""

API_KEYS = """
SELECT key_id, name, scopes, secret_sha256, expires_at, revoked_at FROM kasparro.api_key
"""

SOURCE_METRICS = f"""
SELECT source, coins, extract(epoch FROM now() - last_observed_at), extract(epoch FROM now() - last_success_at),
       quarantined
FROM {SOURCES.relation} s ORDER BY source
"""

VENDOR_CALLS = """
SELECT source, coalesce(sum(calls) FILTER (WHERE day = today), 0),
       coalesce(sum(calls) FILTER (WHERE day >= date_trunc('month', today)), 0),
       (array_agg(per_day ORDER BY day DESC))[1], (array_agg(per_month ORDER BY day DESC))[1]
FROM kasparro.vendor_call, (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today) t
WHERE day >= date_trunc('month', today - 31) GROUP BY source ORDER BY source
"""
"""Calls of this day and month, and the budgets that held at the last one; by source."""

WAITING = """
SELECT (SELECT count(DISTINCT day) FROM kasparro.touched_day),
       count(*) FILTER (WHERE severity = 'error'), count(*) FILTER (WHERE severity <> 'error')
FROM kasparro.failed_check
"""
"""Days that are to be unified, errors and warnings of checks."""

TABLE_ROWS = """
SELECT coalesce(whole.relname, c.relname) AS name, sum(CASE c.relkind WHEN 'r' THEN greatest(c.reltuples, 0) ELSE 0 END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class whole ON whole.oid = i.inhparent
WHERE n.nspname = 'kasparro' AND c.relkind IN ('r', 'p') GROUP BY name ORDER BY name
"""
"""Of each table, its partitions included, as the planner believes."""

"""Every SQL statement of the service. Values are always bound; only what this module wrote itself is text.

JSON is built by PostgreSQL and passed through: decimals as text, so that no digit is lost on the way.
"""
# ruff: noqa: S608 - what is put into a statement as text was written in this module

from __future__ import annotations

from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from kasparro_api.parameters import DataQuery
from kasparro_pipeline.warehouse.tables import unified_assets


def _utc(expression: str) -> str:
    """RFC 3339 with Z; the session speaks UTC."""
    return f"replace(replace({expression}::text, ' ', 'T'), '+00', 'Z')"


def _as_json(column: sa.Column[Any]) -> str:
    if isinstance(column.type, sa.Numeric):
        return f"u.{column.name}::text AS {column.name}"
    if isinstance(column.type, sa.DateTime):
        return f"{_utc(f'u.{column.name}')} AS {column.name}"
    return f"u.{column.name}"


UNIFIED_COLUMNS = ", ".join(_as_json(column) for column in unified_assets.columns)


class _Conditions:
    """Conditions joined by AND, and the values bound to them."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.values: dict[str, Any] = {}

    def compare(self, expression: str, operator: str, name: str, value: object) -> None:
        """`expression operator value`, unless the value is None."""
        if value is not None:
            self.texts.append(f"{expression} {operator} %({name})s")
            self.values[name] = value

    def one_of(self, expression: str, name: str, names: list[str] | None) -> None:
        """`expression` is one of `names`; a single one as an equality, which an index answers in order."""
        if names and len(names) == 1:
            self.compare(expression, "=", name, names[0])
        elif names:
            self.texts.append(f"{expression} = ANY(%({name})s)")
            self.values[name] = names


def data_page(query: DataQuery) -> tuple[str, dict[str, Any]]:
    """One page of unified rows, and the one row more that tells whether there is a next page.

    The statement gives one `bytea`, which is cheaper to pass on than many rows: a JSON object a line, divided by
    commas; NULL when there are no rows.
    """
    where = _Conditions()
    where.one_of("lower(u.symbol)", "symbol", query.symbol and [symbol.lower() for symbol in query.symbol])
    where.one_of("u.coin_id", "coin_id", query.coin_id)
    where.compare("u.sources", "&&", "source", query.source)
    where.compare("u.day", ">=", "first_day", query.first_day)
    where.compare("u.day", "<=", "last_day", query.last_day)
    where.compare("u.price_usd", ">=", "min_price", query.min_price)
    where.compare("u.price_usd", "<=", "max_price", query.max_price)
    after = query.after
    if after:
        where.values |= {"after_day": after.day, "after_coin_id": after.coin_id}
    table = "kasparro.unified_assets"
    if query.as_of:
        table = "kasparro.unified_assets_as_of(%(as_of)s)"
        where.values["as_of"] = query.as_of
    return _data_page(tuple(where.texts), after is not None, query.limit, table), where.values


@lru_cache(maxsize=512)
def _data_page(conditions: tuple[str, ...], has_cursor: bool, limit: int, table: str) -> str:
    # The limit stands in the text: were it bound, the planner would not know that only a page is wanted.
    order = f"ORDER BY day DESC, coin_id LIMIT {limit + 1:d}"

    def select(*position: str) -> str:
        texts = conditions + position
        where = f"WHERE {' AND '.join(texts)} " if texts else ""
        return f"SELECT {UNIFIED_COLUMNS} FROM {table} u {where}{order}"

    rows = select()
    if has_cursor:  # two ranges of the index instead of one condition that it cannot answer
        same_day = select("u.day = %(after_day)s", "u.coin_id > %(after_coin_id)s")
        earlier = select("u.day < %(after_day)s")
        rows = f"({same_day}) UNION ALL ({earlier}) {order}"
    return f"SELECT convert_to(string_agg(row_to_json(r)::text, E',\\n'), 'UTF8') FROM ({rows}) r"


_SOURCES = "(SELECT DISTINCT source FROM kasparro.source_run) s"


def _newest_step(condition: str = "true") -> str:
    """The newest row of `source_run` of source `s.source`, of those that fulfil `condition`."""
    return f"SELECT r.* FROM kasparro.source_run r WHERE r.source = s.source AND {condition} ORDER BY r.started_at DESC"


_FAILED = _newest_step("r.status = 'failure'")

_SUCCEEDED = _newest_step(
    """r.status = 'success' AND NOT EXISTS (
        SELECT FROM kasparro.source_run other
        WHERE other.run_id = r.run_id AND other.source = r.source AND other.status <> 'success')"""
)
"""A run is a success when every step of it was."""

SOURCE_HEALTH = f"""
SELECT s.source, json_build_object(
    'last_run', (
        SELECT json_build_object(
            'run_id', r.run_id,
            'status', CASE WHEN bool_or(r.status = 'failure') THEN 'failure'
                           WHEN bool_or(r.status = 'running') THEN 'running' ELSE 'success' END,
            'started_at', {_utc("min(r.started_at)")},
            'ended_at', CASE WHEN bool_and(r.ended_at IS NOT NULL) THEN {_utc("max(r.ended_at)")} END,
            'error', string_agg(r.error, '; ' ORDER BY r.started_at))
        FROM kasparro.source_run r WHERE r.source = s.source AND r.run_id = newest.run_id GROUP BY r.run_id),
    'last_success_at', {_utc("succeeded.ended_at")},
    'last_failure_at', {_utc("failed.ended_at")},
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
    'detail', detail, 'run_id', run_id, 'checked_at', {_utc("checked_at")})
FROM kasparro.failed_check ORDER BY severity, day DESC NULLS FIRST, asset_key, check_name LIMIT 100
"""

COUNTED_UP_TO = 100_000
"""Rows up to which a table is counted; beyond, the planner's estimate is told."""

EXPECTED_ROWS = "SELECT reltuples::bigint FROM pg_class WHERE oid = %(table)s::regclass"

OBSERVATIONS_COUNTED = "SELECT source, count(*) FROM kasparro.observation GROUP BY source"

OBSERVATIONS_ESTIMATED = """
SELECT common.source, round(t.reltuples * common.frequency)::bigint
FROM pg_class t, pg_stats s, unnest(s.most_common_vals::text::text[], s.most_common_freqs) AS common (source, frequency)
WHERE t.oid = 'kasparro.observation'::regclass
  AND s.schemaname = 'kasparro' AND s.tablename = 'observation' AND s.attname = 'source'
"""

UNIFIED_COUNTED = "SELECT count(*) FROM kasparro.unified_assets"

UNIFIED_DAYS = f"""
SELECT json_build_object(
    'first_day', min(day), 'last_day', max(day),
    'last_updated_at', (SELECT {_utc("max(updated_at)")} FROM kasparro.unified_assets
                        WHERE day = (SELECT max(day) FROM kasparro.unified_assets)))
FROM kasparro.unified_assets
"""

_RUN_STEP = f"""json_build_object(
    'run_id', run_id, 'asset_key', asset_key, 'partition', partition, 'status', status,
    'started_at', {_utc("started_at")}, 'ended_at', {_utc("ended_at")},
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

"""How the service and its sources are: what `/health` and `/stats` tell."""

from __future__ import annotations

import asyncio
from typing import Any

from psycopg import AsyncConnection

from kasparro_api import queries
from kasparro_api.database import Database, DatabaseUnavailableError, QueryTimeoutError

HEALTH_TIMEOUT_S = 2
"""After this long the database counts as away."""

_NOTHING: dict[str, Any] = {
    "deliveries": {"count": 0, "records": 0, "inserted": 0, "updated": 0, "unchanged": 0, "quarantined": 0},
    "payloads": {"count": 0, "bytes": 0, "stored_bytes": 0},
    "quarantine": {"count": 0, "by_reason": {}},
    "observations": {"count": 0, "exact": True},
    "runs": {"last_success": None, "last_failure": None, "recent": []},
}
"""What is told of a source that a part knows nothing of."""


async def health(database: Database) -> dict[str, Any]:
    """The report of `schemas.Health`, without metadata; never raises for a database that is away or frozen."""
    # A task of its own that is not waited for: a query to a frozen server can neither end nor be cancelled.
    asking = asyncio.create_task(_health(database))
    asking.add_done_callback(_seen)
    done, _ = await asyncio.wait({asking}, timeout=HEALTH_TIMEOUT_S)
    if not done:
        return _unavailable(database, f"{database.name} did not answer within {HEALTH_TIMEOUT_S} s")
    try:
        sources, failed_checks, lag = asking.result()
    except (DatabaseUnavailableError, QueryTimeoutError) as error:
        return _unavailable(database, str(error))
    failing = any(source["failing"] for source in sources.values())
    failing |= any(check["severity"] == "error" for check in failed_checks)
    return {
        "status": "degraded" if failing else "ok",
        "database": {"reachable": True, "detail": None, "reads_from": _reads_from(database), "replica_lag_s": lag},
        "sources": sources,
        "failed_checks": failed_checks,
    }


def _seen(task: asyncio.Task[Any]) -> None:
    """Take note of how `task` ended, so that asyncio does not complain of one that nobody waits for any more."""
    if not task.cancelled():
        task.exception()


def _unavailable(database: Database, detail: str) -> dict[str, Any]:
    told = {"reachable": False, "detail": detail, "reads_from": _reads_from(database), "replica_lag_s": None}
    return {"status": "unavailable", "database": told, "sources": {}, "failed_checks": []}


def _reads_from(database: Database) -> str:
    return "replica" if database.is_replica else "primary"


async def _health(database: Database) -> tuple[dict[str, Any], list[Any], float | None]:
    async with database.connection() as connection:
        sources = await _pairs(connection, queries.SOURCE_HEALTH)
        failed = await (await connection.execute(queries.FAILED_CHECKS)).fetchall()
        (lag,) = await _row(connection, queries.REPLICA_LAG)
        return sources, [check for (check,) in failed], lag


async def stats(database: Database) -> dict[str, Any]:
    """The report of `schemas.Stats`, without metadata."""
    async with database.connection() as connection:
        parts = {name: await _pairs(connection, query) for name, query in queries.SOURCE_STATS.items()}
        parts["observations"] = await _observations(connection)
        return {"sources": _by_source(parts), "unified_assets": await _unified(connection)}


def _by_source(parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    sources = sorted(set().union(*parts.values()))
    return {source: {part: told.get(source, _NOTHING[part]) for part, told in parts.items()} for source in sources}


async def _observations(connection: AsyncConnection[Any]) -> dict[str, Any]:
    exact = await _expected_rows(connection, "kasparro.observation") <= queries.COUNTED_UP_TO
    counts = await _pairs(connection, queries.OBSERVATIONS_COUNTED if exact else queries.OBSERVATIONS_ESTIMATED)
    return {source: {"count": count, "exact": exact} for source, count in counts.items()}


async def _unified(connection: AsyncConnection[Any]) -> dict[str, Any]:
    expected = await _expected_rows(connection, "kasparro.unified_assets")
    exact = expected <= queries.COUNTED_UP_TO
    (days,) = await _row(connection, queries.UNIFIED_DAYS)
    (count,) = await _row(connection, queries.UNIFIED_COUNTED) if exact else (expected,)
    return {"rows": {"count": count, "exact": exact}, **days}


async def _expected_rows(connection: AsyncConnection[Any], table: str) -> int:
    (rows,) = await _row(connection, queries.EXPECTED_ROWS, {"table": table})
    return int(rows)


async def _pairs(connection: AsyncConnection[Any], query: str) -> dict[str, Any]:
    return dict(await (await connection.execute(query)).fetchall())


async def _row(connection: AsyncConnection[Any], query: str, values: dict[str, Any] | None = None) -> tuple[Any, ...]:
    rows = await (await connection.execute(query, values)).fetchall()
    return tuple(rows[0])

"""What an incident is: the one place that says so, as a function from the state of the database to those that stand.

What belongs here: looking. What does not: which of them are new (`record`), and telling them (`channels`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from kasparro_pipeline.warehouse.calls import CallLedger
from kasparro_pipeline.warehouse.tables import drift, failed_check, last_sweep, source_run

MIN_QUARANTINED = 10
"""A run that puts fewer records into quarantine is no incident."""
MIN_SHARE = 0.01
GROWTH = 2
"""Quarantine has grown when its share of a run's records is above `MIN_SHARE`, and above so many times the share in the
source's other runs of the day before."""

_QUARANTINED = sa.text("""
SELECT s.source, newest.parse_run_id,
       sum(d.quarantined) FILTER (WHERE d.parse_run_id = newest.parse_run_id) AS quarantined,
       sum(d.records) FILTER (WHERE d.parse_run_id = newest.parse_run_id) AS records,
       coalesce(sum(d.quarantined) FILTER (WHERE d.parse_run_id <> newest.parse_run_id), 0)
           / greatest(1, sum(d.records) FILTER (WHERE d.parse_run_id <> newest.parse_run_id)) AS share_before
FROM (SELECT DISTINCT source FROM kasparro.checkpoint) AS s
CROSS JOIN LATERAL (
    SELECT n.parse_run_id, n.parsed_at FROM kasparro.delivery AS n
    WHERE n.source = s.source AND n.parsed_at > clock_timestamp() - interval '1 day'
    ORDER BY n.parsed_at DESC LIMIT 1
) AS newest
JOIN kasparro.delivery AS d
    ON d.source = s.source AND d.parsed_at BETWEEN newest.parsed_at - interval '1 day' AND newest.parsed_at
GROUP BY s.source, newest.parse_run_id
ORDER BY s.source
""")


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that is wrong now."""

    kind: str
    subject: str
    """What it is about; of one kind and subject there is one open incident."""
    summary: str
    """One line for people."""
    run_id: str | None = None
    """The Dagster run that shows it."""


@dataclass(frozen=True, slots=True)
class FailedRun:
    """A run that has failed, and after which none has done better."""

    subject: str
    """Its job; of a job over files, its files as well."""
    run_id: str


@dataclass(frozen=True, slots=True)
class Watched:
    """A source that is fetched by a schedule."""

    source: str
    late_after: timedelta
    """Without a whole sweep for so long, it is late."""
    ledger: CallLedger | None = None
    """By which its calls are counted; None: with those of another source."""


def standing(connection: sa.Connection, watched: Sequence[Watched], failed: Iterable[FailedRun]) -> list[Incident]:
    """Everything that is wrong now.

    Args:
        connection: to the warehouse.
        watched: the sources that have a schedule.
        failed: what Dagster tells of its runs.
    """
    spent = [(source.source, source.ledger.spent()) for source in watched if source.ledger]
    return [
        *_failed_runs(connection, failed),
        *_late(connection, watched),
        *_failed_checks(connection),
        *_drifted(connection),
        *(Incident("budget_spent", source, why) for source, why in spent if why),
        *_quarantine_grown(connection),
    ]


def _failed_runs(connection: sa.Connection, failed: Iterable[FailedRun]) -> Iterator[Incident]:
    for run in failed:
        query = sa.select(source_run.c.error).where(source_run.c.run_id == run.run_id, source_run.c.error.is_not(None))
        reasons = list(dict.fromkeys(connection.scalars(query.order_by(source_run.c.ended_at))))
        why = "; ".join(reasons[:3]) or "the run tells why"
        yield Incident("run_failed", run.subject, f"{run.subject}: the run failed: {why}", run.run_id)


def _late(connection: sa.Connection, watched: Sequence[Watched]) -> Iterator[Incident]:
    age = sa.func.clock_timestamp() - last_sweep.c.finished_at
    swept = connection.execute(sa.select(last_sweep.c.source, last_sweep.c.finished_at, age.label("age")))
    found = {row.source: row for row in swept}
    for source in watched:
        row = found.get(source.source)
        if row is not None and row.age > source.late_after:
            since = f"{row.finished_at:%Y-%m-%d %H:%M} UTC"
            said = f"nothing fetched since {since}, and no longer than {source.late_after} is expected"
            yield Incident("late", source.source, f"{source.source}: {said}")


def _failed_checks(connection: sa.Connection) -> Iterator[Incident]:
    check = failed_check.c
    query = (
        sa.select(check.asset_key, check.check_name, sa.func.count().label("count"), sa.func.max(check.run_id))
        .add_columns(sa.func.min(sa.func.concat_ws(": ", check.day, check.detail)).label("example"))
        .where(check.blocking | (check.severity == "error"))
        .group_by(check.asset_key, check.check_name)
        .order_by(check.asset_key, check.check_name)
    )
    for asset_key, name, count, run_id, example in connection.execute(query):
        told = f"{asset_key}: the check {name} fails: {example}"
        yield Incident("check_failed", f"{asset_key} {name}", told + _further(count - 1, "failure"), run_id)


def _drifted(connection: sa.Connection) -> Iterator[Incident]:
    query = (
        sa.select(drift.c.source, drift.c.scope, sa.func.count(), sa.func.min(drift.c.detail))
        .add_columns(sa.func.max(drift.c.run_id))
        .where(drift.c.resolved_at.is_(None), drift.c.severity == "error")
        .group_by(drift.c.source, drift.c.scope)
        .order_by(drift.c.source, drift.c.scope)
    )
    for source, scope, count, detail, run_id in connection.execute(query):
        subject = scope or source
        yield Incident("drift", subject, f"{subject}: {detail}" + _further(count - 1, "key field"), run_id)


def _quarantine_grown(connection: sa.Connection) -> Iterator[Incident]:
    for row in connection.execute(_QUARANTINED):
        quarantined, records = int(row.quarantined or 0), max(1, int(row.records or 0))
        share, before = quarantined / records, float(row.share_before or 0)
        if quarantined >= MIN_QUARANTINED and share > max(MIN_SHARE, GROWTH * before):
            told = f"{row.source}: {quarantined} of {records} records went to quarantine ({share:.1%}"
            yield Incident("quarantine_grown", row.source, f"{told}, before {before:.1%})", row.parse_run_id)


def _further(count: int, what: str) -> str:
    return f"; and {count} more {what}{'' if count == 1 else 's'}" if count else ""

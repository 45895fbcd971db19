"""How long the past is kept: superseded rows, observations, payloads that nothing needs, and removing what is old."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from psycopg.errors import LockNotAvailable
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.warehouse.months import WRITING, ended, month_of, month_sql, partition_name, partitions
from kasparro_pipeline.warehouse.tables import (
    SCHEMA,
    kept_since,
    observation,
    raw_payload,
    unified_assets_history,
    unified_change,
)

_LOCK_TIMEOUT = "3s"
_TRIES = 20


def prune_unified_history(engine: sa.Engine, before: datetime) -> int:
    """Remove what `unified_assets` said before the moment `before` (aware) and no longer says; the number of rows.

    From then on ``unified_assets_as_of`` refuses earlier moments. The table itself is not touched.
    """
    superseded_at = unified_assets_history.c.superseded_at
    with engine.begin() as connection:
        _keep_since(connection, unified_assets_history, before)
        under_way = connection.scalar(sa.select(sa.func.kasparro.changes_under_way(before))) or []
        old = sa.delete(unified_assets_history).where(superseded_at < before, superseded_at.not_in(under_way))
        removed = connection.execute(old).rowcount
        connection.execute(sa.delete(unified_change).where(unified_change.c.committed_at <= before))
    return removed


def prune_observations(engine: sa.Engine, before: datetime) -> int:
    """Drop the months of observations that ended before the moment `before` (aware); the number of rows.

    The days of these months, and the three after them whose jumps they tell, are never unified again: their rows stay
    as they are. Loads wait meanwhile, and this waits for those that are under way.

    Raises:
        KasparroError: somebody reads observations without a pause.
    """
    month = month_of(before.astimezone(UTC))
    for _ in range(_TRIES):
        try:
            with engine.begin() as connection:
                return _drop_observations(connection, month)
        except sa.exc.OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
    raise KasparroError("observations are read without a pause; nothing of them was removed, try again later")


def _drop_observations(connection: sa.Connection, month: int) -> int:
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITING)))
    # Whoever comes to read waits behind us: rather try again than have them wait for a long export.
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    connection.exec_driver_sql("LOCK TABLE kasparro.observation IN ACCESS EXCLUSIVE MODE")
    removed = 0
    for name in ended(observation, partitions(connection, observation), month):
        removed += connection.scalar(sa.text(f"SELECT count(*) FROM {SCHEMA}.{name}")) or 0  # noqa: S608
        connection.exec_driver_sql(f"DROP TABLE {SCHEMA}.{name}")
    connection.exec_driver_sql("DELETE FROM kasparro.observation WHERE false")  # its trigger makes a new data version
    _keep_since(connection, observation, datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC))
    return removed


def prune_payloads(engine: sa.Engine, before: datetime) -> int:
    """Remove what was delivered before the moment `before` (aware), and nothing needs any more; the number of payloads.

    Needed is what an observation, a quarantined record, a drift or a coin's listing comes from; what says that a row
    was withdrawn or unlisted; what was not parsed yet; of each file the newest delivery, of each other source that of
    its last day; and what lies, in time and in what it tells of, after something that stays. So parsing again whatever
    stays gives the same rows. Loads wait meanwhile. A month of which nothing is left is dropped; while somebody reads
    payloads it is emptied instead, and dropped the next time.
    """
    with engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(WRITING)))
        connection.execute(sa.text(_FIND_OLD), {"before": before})
        connection.exec_driver_sql("ANALYZE old")
        while sum(connection.exec_driver_sql(statement).rowcount for statement in _NEEDED_BY_WHAT_STAYS):
            pass
        connection.exec_driver_sql(
            "DELETE FROM kasparro.delivery AS d USING old WHERE (d.source, d.partition, d.position, d.fetched_at) = "
            "(old.source, old.partition, old.position, old.fetched_at)"
        )
        removed = connection.exec_driver_sql(
            "DELETE FROM kasparro.payload AS p USING (SELECT DISTINCT source, sha256 FROM old) AS o "
            "WHERE p.source = o.source AND p.sha256 = o.sha256 AND NOT EXISTS ("
            "SELECT FROM kasparro.delivery AS d WHERE d.source = p.source AND d.sha256 = p.sha256)"
        ).rowcount
        try:
            with connection.begin_nested():
                _drop_empty_months(connection, month_of(before.astimezone(UTC)))
        except sa.exc.OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise
        connection.exec_driver_sql(
            "DELETE FROM kasparro.raw_payload AS r WHERE NOT EXISTS (SELECT FROM kasparro.payload AS p WHERE "
            "(p.source, p.sha256, p.first_fetched_at) = (r.source, r.sha256, r.first_fetched_at))"
        )
        return removed


def _drop_empty_months(connection: sa.Connection, month: int) -> None:
    """Drop the partitions of payloads before `month` of which none is kept.

    Raises:
        sqlalchemy.exc.OperationalError: payloads are being read.
    """
    months = connection.scalars(sa.text(f"SELECT DISTINCT {month_sql('first_fetched_at')} FROM kasparro.payload"))  # noqa: S608
    kept = {partition_name(raw_payload, kept_in) for kept_in in months}
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")  # others come to read, and wait behind us
    for name in ended(raw_payload, partitions(connection, raw_payload) - kept, month):
        # Detached first, since it is referred to, by payloads that are gone.
        connection.exec_driver_sql(f"ALTER TABLE kasparro.raw_payload DETACH PARTITION {SCHEMA}.{name}")
        connection.exec_driver_sql(f"DROP TABLE {SCHEMA}.{name}")


def _keep_since(connection: sa.Connection, table: sa.Table, since: datetime) -> None:
    """Note that what the table had of before is gone."""
    horizon = insert(kept_since).values(table_name=table.name, since=since)
    connection.execute(
        horizon.on_conflict_do_update(
            index_elements=["table_name"],
            set_={"since": sa.func.greatest(kept_since.c.since, horizon.excluded.since)},
        )
    )


_FIND_OLD = r"""
CREATE TEMPORARY TABLE old ON COMMIT DROP AS
WITH needed AS (
    SELECT source, payload_sha256 AS sha256 FROM kasparro.quarantine
    UNION SELECT source, payload_sha256 FROM kasparro.drift
    UNION SELECT source, sha256 FROM kasparro.vendor_answer
    UNION SELECT source || '_list', payload_sha256 FROM kasparro.coin_listing
    UNION SELECT source || '_list', payload_sha256 FROM kasparro.coin_contract
), needed_at AS (
    SELECT source, withdrawn_at AS fetched_at FROM kasparro.observation WHERE withdrawn_at IS NOT NULL
    UNION SELECT source || '_list', unnest(ARRAY[first_listed_at, unlisted_at]) FROM kasparro.coin_listing
    UNION SELECT source || '_list', unnest(ARRAY[first_listed_at, unlisted_at]) FROM kasparro.coin_contract
), newest AS (
    SELECT source, CASE WHEN source LIKE 'csv\_%' THEN partition END AS file, max(fetched_at) AS fetched_at
    FROM kasparro.delivery GROUP BY 1, 2
)
SELECT d.source, d.partition, d.position, d.fetched_at, d.sha256, n.file IS NOT NULL AS is_file,
       coalesce(d.first_observed_at, '-infinity') AS first_at, coalesce(d.last_observed_at, 'infinity') AS last_at
FROM kasparro.delivery AS d
JOIN newest AS n ON n.source = d.source AND coalesce(n.file = d.partition, true)
WHERE d.fetched_at < :before AND d.parser_version IS NOT NULL
  AND d.fetched_at < n.fetched_at - CASE WHEN n.file IS NULL THEN interval '1 day' ELSE interval '0' END
  AND NOT EXISTS (SELECT FROM needed WHERE needed.source = d.source AND needed.sha256 = d.sha256)
  AND NOT EXISTS (
      SELECT FROM kasparro.observation AS o
      WHERE o.source = d.source AND o.payload_sha256 = d.sha256 AND o.fetched_at = d.fetched_at
  )
  AND NOT EXISTS (SELECT FROM needed_at AS a WHERE a.source = d.source AND a.fetched_at = d.fetched_at)
"""

_STAYS = (
    "NOT EXISTS (SELECT FROM old AS o WHERE (o.source, o.partition, o.position, o.fetched_at) = "
    "(d.source, d.partition, d.position, d.fetched_at))"
)
_NEEDED_BY_WHAT_STAYS = (
    # another block of the same file
    "DELETE FROM old USING kasparro.delivery AS d WHERE is_file AND d.source = old.source "  # noqa: S608
    f"AND d.partition = old.partition AND d.fetched_at = old.fetched_at AND {_STAYS}",
    # an earlier word on the same times: parsed again, it would seem never to have been contradicted
    "DELETE FROM old USING kasparro.delivery AS d "  # noqa: S608
    r"WHERE old.source NOT LIKE '%%\_list' AND d.source = old.source "
    "AND (d.fetched_at, d.partition, d.position) < (old.fetched_at, old.partition, old.position) "
    "AND d.records > d.quarantined AND coalesce(d.first_observed_at, '-infinity') <= old.last_at "
    f"AND coalesce(d.last_observed_at, 'infinity') >= old.first_at AND {_STAYS}",
)

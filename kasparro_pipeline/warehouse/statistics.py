"""What the planner is told of partitioned tables and of who is which coin, sooner than autovacuum tells it, or at all.

Autovacuum looks at the partitions of a table and never at the whole, comes a minute after a load at the soonest, and
forgets what it has to look at when the server is killed.
https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-STATISTICS
"""

from __future__ import annotations

import sqlalchemy as sa

from kasparro_pipeline.warehouse.tables import coin_identity, observation, raw_payload, source_coin

TABLES = (observation, raw_payload, coin_identity, source_coin)
GROWN = 2
"""A table that has become so many times as large is looked at again without waiting for the day to end."""

_IS_GROWN = sa.text(
    "SELECT t.reltuples < 0 OR sum(pg_stat_get_live_tuples(coalesce(i.inhrelid, t.oid))) > :grown * t.reltuples "
    "FROM pg_class AS t LEFT JOIN pg_inherits AS i ON i.inhparent = t.oid "
    "WHERE t.oid = CAST(:table AS regclass) GROUP BY t.reltuples"
)


def analyze(engine: sa.Engine, *, only_grown: bool = False) -> None:
    """Analyze these tables; `only_grown`: those that were never analyzed, or have many more rows than they had then.

    One that somebody holds a lock on, who may wait for us, is left for the next time.
    """
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for table in TABLES:
            if not only_grown or connection.scalar(_IS_GROWN, {"grown": GROWN, "table": table.fullname}):
                connection.exec_driver_sql(f"ANALYZE (SKIP_LOCKED) {table.fullname}")

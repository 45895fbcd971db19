"""What the planner is told of partitioned tables as a whole: PostgreSQL's autovacuum looks at their partitions alone.

https://www.postgresql.org/docs/current/routine-vacuuming.html#VACUUM-FOR-STATISTICS
"""

from __future__ import annotations

import sqlalchemy as sa

from kasparro_pipeline.warehouse.tables import observation, raw_payload

GROWN = 2
"""A table that has become so many times as large is looked at again without waiting for the day to end."""

_IS_GROWN = sa.text(
    "SELECT sum(pg_stat_get_live_tuples(i.inhrelid)) > :grown * greatest(p.reltuples, 0) "
    "FROM pg_class AS p JOIN pg_inherits AS i ON i.inhparent = p.oid "
    "WHERE p.oid = CAST(:table AS regclass) GROUP BY p.reltuples"
)


def analyze_partitioned(engine: sa.Engine, *, only_grown: bool = False) -> None:
    """Analyze the partitioned tables; `only_grown`: those with many more rows than they had when it was done last.

    One that somebody holds a lock on, who may wait for us, is left for the next time.
    """
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for table in (observation, raw_payload):
            if not only_grown or connection.scalar(_IS_GROWN, {"grown": GROWN, "table": table.fullname}):
                connection.exec_driver_sql(f"ANALYZE (SKIP_LOCKED) {table.fullname}")

"""Tables that are partitioned by month (UTC): the partitions there are, and those that new rows need.

Who writes holds a lock shared until its end, and who drops partitions holds it alone: so a partition that was found, or
made, is there until the rows are. It is made in a transaction of its own, so that no load waits for the end of another,
and attached, which, unlike ``CREATE TABLE … PARTITION OF``, lets others read and write the table meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import sqlalchemy as sa

BY_MONTH = "by_month"
"""Key of `Table.info`: the ``timestamptz`` column whose month says in which partition a row is."""
FIRST, END = 2009 * 12, 2200 * 12
"""Months are numbered ``year * 12 + month - 1``. What is before the first, or from the end on, has one partition each,
so that no wild time makes a table of its own."""
BEFORE, AFTER = FIRST - 1, END
WRITING = 0x6B617370_6D6F6E31
_MAKING = 0x6B617370_6D6F6E32
_LOCK_TIMEOUT = "30s"
"""A transaction that waits for ours to end, and for which the partition has to wait, is not seen as a deadlock."""


def month_of(moment: date) -> int:
    """The number of the month of a day, or of a time in UTC."""
    return moment.year * 12 + moment.month - 1


def month_sql(column: str) -> str:
    """The number of the month of a ``timestamptz``, in SQL; of a time without an end one beyond all months."""
    month = f"date_trunc('month', {column}, 'UTC') AT TIME ZONE 'UTC'"
    year = f"least(greatest(extract(year FROM {month}), {BEFORE // 12}), {AFTER // 12})"
    return f"{year}::int * 12 + coalesce(extract(month FROM {month}), 12)::int - 1"


def partition_name(table: sa.Table, month: int) -> str:
    """The name of the partition, without its schema."""
    if month <= BEFORE:
        return f"{table.name}_before"
    return f"{table.name}_after" if month >= AFTER else f"{table.name}_{month // 12}_{month % 12 + 1:02}"


class Months:
    """The partitions of one table, for a transaction that writes to it.

    Args:
        connection: in a transaction; until its end no partition is dropped.
        table: has `BY_MONTH`.
    """

    def __init__(self, connection: sa.Connection, table: sa.Table) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(WRITING)))
        self._engine = connection.engine
        self._table = table
        self._made = partitions(connection, table)

    def make(self, months: Iterable[int]) -> None:
        """See that rows of these months can be written.

        Raises:
            sqlalchemy.exc.OperationalError: somebody holds a lock on the table for long.
        """
        missing = {partition_name(self._table, month): month for month in months}
        for name in self._made & missing.keys():
            del missing[name]
        if missing:
            with self._engine.begin() as connection:
                make_partitions(connection, self._table, missing.values())
            self._made |= missing.keys()


def partitions(connection: sa.Connection, table: sa.Table) -> set[str]:
    """The names of the partitions there are."""
    found = sa.text(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = CAST(:table AS regclass)"
    )
    return set(connection.scalars(found, {"table": table.fullname}))


def make_partitions(connection: sa.Connection, table: sa.Table, months: Iterable[int]) -> None:
    """Make the partitions of these months that are missing, in the transaction of `connection`."""
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MAKING)))
    made = partitions(connection, table)
    for month in sorted(set(months)):
        name = partition_name(table, month)
        if name in made:
            continue
        made.add(name)
        partition = f"{table.schema}.{name}"
        connection.exec_driver_sql(f"CREATE TABLE {partition} (LIKE {table.fullname} INCLUDING ALL)")
        connection.exec_driver_sql(f"ALTER TABLE {table.fullname} ATTACH PARTITION {partition} {_bounds(month)}")


def partition_like_old(connection: sa.Connection, table: sa.Table, column: str) -> None:
    """Make the partitions that the rows of ``<table>_old`` need in `table`; for the migration that replaces the one."""
    old = f"{table.fullname}_old"
    make_partitions(connection, table, connection.scalars(sa.text(f"SELECT DISTINCT {month_sql(column)} FROM {old}")))  # noqa: S608
    connection.exec_driver_sql("SET LOCAL lock_timeout = 0")


def ended(table: sa.Table, names: Iterable[str], month: int) -> list[str]:
    """Those of the partitions that end before this month begins."""
    return sorted(name for name in names if _is_before(name.removeprefix(f"{table.name}_"), month))


def _is_before(name: str, month: int) -> bool:
    if name in {"before", "after"}:
        return name == "before" and month >= FIRST
    year, _, number = name.partition("_")
    return int(year) * 12 + int(number) - 1 < month


def _bounds(month: int) -> str:
    low = "MINVALUE" if month <= BEFORE else _start(month)
    high = "MAXVALUE" if month >= AFTER else _start(max(month + 1, FIRST))
    return f"FOR VALUES FROM ({low if month < AFTER else _start(AFTER)}) TO ({high})"


def _start(month: int) -> str:
    return f"'{month // 12}-{month % 12 + 1:02}-01 00:00:00+00'"

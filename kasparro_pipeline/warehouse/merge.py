"""Merge rows into a table by key: COPY those whose keys are new, and of the others write only what differs.

It knows nothing of coins. A frame is merged inside the caller's transaction, so that whatever the caller writes
beside it (a checkpoint, an account of what happened) commits with it or not at all.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any, TypeAlias

import pandas as pd
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from psycopg import errors
from pyarrow import csv as pa_csv

from kasparro_pipeline.warehouse import frames
from kasparro_pipeline.warehouse.frames import MergeError, UtcDay
from kasparro_pipeline.warehouse.merge_sql import KEPT, MAX_LISTED, STAGING, KeyRange, MergeSql, Target, quoted
from kasparro_pipeline.warehouse.months import BY_MONTH, Months
from kasparro_pipeline.warehouse.receipts import Receipts

__all__ = ["Frame", "Group", "Merge", "MergeError", "Merged", "UtcDay", "Window", "Written"]

Frame: TypeAlias = pd.DataFrame | pa.Table | pa.RecordBatch | sa.Select[Any] | sa.TextualSelect

COPY_ROWS = 10_000
STORED_PART = 2
"""Where more than one key in so many is stored already, rows are compared and not looked up before."""
PROBED = 200
"""Of a chunk's keys so many are looked up first; where none of them is stored, hardly any other is."""
_CSV = pa_csv.WriteOptions(include_header=False, quoting_style="all_valid")


@dataclass(slots=True)
class Written:
    """Rows of one group that a merge wrote."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def add(self, other: Written) -> None:
        """Count `other` into this one."""
        self.inserted += other.inserted
        self.updated += other.updated
        self.deleted += other.deleted


Group: TypeAlias = tuple[Any, ...]
"""The values of `Merge.group_by`, in its order."""


@dataclass(slots=True)
class Merged:
    """What a merge did: ``staged == inserted + updated + unchanged + rejected``."""

    staged: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    """Rows equal to what is stored, and rows whose key a later row of the same frame has."""
    rejected: int = 0
    """Rows outside the window."""
    deleted: int = 0
    """Rows of the window that the data no longer has; with `replace` only."""
    groups: dict[Group, Written] = field(default_factory=dict)
    """The rows inserted, updated or deleted, by group."""
    listed: dict[Group, set[Any] | None] = field(default_factory=dict)
    """By group the values of `Merge.list_by` in the rows inserted or updated; None: too many to tell."""

    def add(self, other: Merged) -> None:
        """Count `other` into this one."""
        for name in ("staged", "inserted", "updated", "unchanged", "rejected", "deleted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for group, written in other.groups.items():
            self.groups.setdefault(group, Written()).add(written)
        for group, values in other.listed.items():
            self.list_values(group, values)

    def list_values(self, group: Group, values: Collection[Any] | None) -> None:
        """Add `values` to what is listed of the group."""
        known = self.listed.setdefault(group, set())
        if known is not None:
            known |= set(values or ())
            if values is None or len(known) > MAX_LISTED:
                self.listed[group] = None


@dataclass(frozen=True, slots=True)
class Window:
    """The rows a merge may write: ``start <= column < end``."""

    column: str
    start: date | datetime
    end: date | datetime
    among: str | None = None
    """Of a part, see `Merge.finish`: it has only the rows with one of `values` in this column."""
    values: tuple[Any, ...] = ()


class Merge:
    """Merges of one or more frames into one table, in one transaction of the caller's.

    Args:
        connection: in a transaction; the caller commits.
        table: needs a primary key of text, integers, dates or times. A column with ``info={"compare": False}`` is
            written with its row, yet a difference in it alone writes nothing; one with an SQL expression as
            ``onupdate`` that the frame lacks is set by it.
        window: rows outside are rejected; None: every row may be written.
        replace: rows of the window that no frame holds are deleted by `finish`.
        group_by: columns, or the `UtcDay` of one, by whose values written rows are counted.
        list_by: a column whose values are told of each group.
        receipts: a table for `Receipts`, which make merging an unchanged frame again ten times cheaper. Not used with
            a window. Not for tables whose triggers write other values than they are given.

    Not thread-safe; one at a time on a connection.
    """

    def __init__(  # noqa: PLR0913
        self,
        connection: sa.Connection,
        table: sa.Table,
        *,
        window: Window | None = None,
        replace: bool = False,
        group_by: Sequence[str | UtcDay] = (),
        list_by: str | None = None,
        receipts: sa.Table | None = None,
    ) -> None:
        _check(connection, table, window, replace=replace)
        self.total = Merged()
        self._connection = connection
        self._driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        self._target = Target(table)
        self._window = window
        self._replace = replace
        self._group_by = tuple(group_by)
        self._list_by = list_by
        self._sql: MergeSql | None = None
        self._months = Months(connection, table) if BY_MONTH in table.info else None
        self._receipts: Receipts | None = None
        if receipts is not None and window is None:
            self._receipts = Receipts(self._execute, receipts, self._target)
        if replace:
            keys = quoted(*self._target.keys)
            self._execute(
                f"CREATE TEMP TABLE {KEPT} ON COMMIT DROP AS SELECT {keys} FROM {self._target.name} WITH NO DATA"  # noqa: S608
            )

    def frame(self, frame: Frame) -> Merged:
        """Merge one frame; of two rows with one key the later one counts. An empty frame writes nothing.

        Raises:
            MergeError: a column is missing, unknown, or of a type that cannot be exact; a key is null, or there twice
                in a Select; the table does not take a value. The transaction has to be rolled back.
        """
        if isinstance(frame, sa.Select | sa.TextualSelect):
            merged = self._merge_select(frame)
        else:
            merged = self._merge_rows(frames.as_arrow(frame, self._target.table))
        self.total.add(merged)
        return merged

    def finish(self, parts: Sequence[Window] | None = None) -> Merged:
        """Delete what no frame held when replacing, drop the temporary tables, return the sum of all frames.

        `parts`: the parts of the window that the frames were about; None: they were about all of it.
        """
        if self._replace and self._window:
            self._delete_missing([self._window] if parts is None else parts)
        if self._receipts:
            self._receipts.prune()
        self._execute(f"DROP TABLE IF EXISTS {STAGING}, {KEPT}")
        self._sql = None
        return self.total

    # -- staging ------------------------------------------------------------------------------------------------

    def _merge_select(self, select: sa.Select[Any] | sa.TextualSelect) -> Merged:
        names = [column.name for column in select.selected_columns]
        frames.check_columns(names, self._target.table)
        sql = self._stage(names)
        # As below: the driver prepares what it has sent often, and a plan for any parameters may take for ever.
        self._execute("SET LOCAL plan_cache_mode = force_custom_plan")
        staging = sa.table(STAGING, *map(sa.column, names))
        insert = staging.insert().from_select(names, select).execution_options(preserve_rowcount=True)
        staged = self._connection.execute(insert).rowcount
        self._check_staged_keys()
        if self._months:
            self._months.make(month for (month,) in self._execute(sql.staged_months))
        return self._write(sql, staged)

    def _merge_rows(self, rows: pa.Table) -> Merged:
        receipt = self._receipts.of(rows) if self._receipts else None
        if receipt and receipt.holds():
            return Merged(staged=rows.num_rows, unchanged=rows.num_rows)
        if receipt:
            receipt.look_before()
        merged = Merged()
        for chunk in frames.chunks(rows):
            merged.add(self._merge_chunk(chunk))
        if receipt:
            receipt.leave(merged.inserted + merged.updated)
        return merged

    def _merge_chunk(self, chunk: pa.Table) -> Merged:
        rows = frames.by_key(chunk, self._target.table)
        if self._months:
            self._months.make(frames.months(rows, self._target.table))
        repeated = chunk.num_rows - rows.num_rows
        merged = Merged(staged=repeated, unchanged=repeated)
        absent = self._absent(rows)
        if absent is not None and self._insert(new := rows.filter(absent)):
            rows = rows.filter(pc.invert(absent))
            merged.add(self._inserted(new))
        if rows.num_rows:
            sql = self._stage(rows.column_names)
            with self._refusals(rows):
                self._copy(rows, STAGING)
            merged.add(self._write(sql, rows.num_rows))
        return merged

    def _absent(self, rows: pa.Table) -> pa.BooleanArray | None:
        """Which of `rows`, in the order of their keys, are not stored; None where finding out is impossible or dear.

        Where none of some of them is stored, none is taken to be; `_insert` finds out.
        """
        table = self._target.table
        if self._window or not frames.is_ordered_alike(table):
            return None
        keys = KeyRange(*frames.key_range(frames.spread(rows, 2), table))
        some = frames.spread(rows, PROBED)
        limit = rows.num_rows // STORED_PART
        stored: list[tuple[Any, ...]] = []
        try:
            with self._connection.begin_nested():
                found = self._execute(*self._target.stored_among(frames.key_texts(some, table), keys)).fetchall()[0][0]
                if found * STORED_PART > some.num_rows:
                    return None
                if found:
                    stored = self._execute(*self._target.stored_within(keys, limit + 1)).fetchall()
        except psycopg.DataError:  # a key that the column cannot hold, or Python: a time beyond the year 9999
            return None
        return None if len(stored) > limit else frames.absent(rows, stored, table)

    def _insert(self, rows: pa.Table) -> bool:
        """Copy rows of absent keys into the table itself; False where one of them is stored.

        In the order of the key: the index grows page after page, and two writers wait for each other in the same order.
        """
        with self._refusals(rows):
            try:
                with self._connection.begin_nested():
                    self._copy(rows, self._target.name)
            except errors.UniqueViolation:
                return False
        return True

    def _inserted(self, rows: pa.Table) -> Merged:
        merged = Merged(staged=rows.num_rows, inserted=rows.num_rows)
        if self._group_by:
            for group, count, values in frames.counted(rows, self._group_by, self._list_by, MAX_LISTED):
                merged.groups[group] = Written(inserted=count)
                if self._list_by:
                    merged.list_values(group, values)
        return merged

    def _stage(self, columns: list[str]) -> MergeSql:
        """Make an empty staging table with `columns`, or empty the one of the frame before."""
        if self._sql is not None and self._sql.columns == columns:
            self._execute(f"TRUNCATE {STAGING}")
            return self._sql
        if self._window and self._window.column not in columns:
            raise MergeError(f"{self._target.table.fullname}: {self._window.column} is missing; the window is about it")
        self._sql = MergeSql(self._target, columns, self._group_by, self._list_by)
        self._execute(f"DROP TABLE IF EXISTS {STAGING}")
        self._execute(self._sql.create_staging)
        return self._sql

    def _copy(self, rows: pa.Table, into: str) -> None:
        statement = f"COPY {into} ({quoted(*rows.column_names)}) FROM STDIN (FORMAT csv, NULL '')"
        with self._driver.cursor() as cursor, cursor.copy(statement) as copy:
            for batch in frames.exact(rows, self._target.table).to_batches(max_chunksize=COPY_ROWS):
                buffer = io.BytesIO()
                pa_csv.write_csv(batch, buffer, _CSV)
                copy.write(buffer.getbuffer())

    def _check_staged_keys(self) -> None:
        keys = quoted(*self._target.keys)
        bad = self._execute(
            f"SELECT {keys} FROM {STAGING} GROUP BY {keys} HAVING count(*) > 1 OR num_nulls({keys}) > 0 LIMIT 1"  # noqa: S608
        ).fetchone()
        if bad is not None:
            raise MergeError(
                f"{self._target.table.fullname}: the Select has the key ({', '.join(map(str, bad))}) twice or with a "
                "null; select each key once"
            )

    # -- writing ------------------------------------------------------------------------------------------------

    def _write(self, sql: MergeSql, staged: int) -> Merged:
        """Write what differs of the `staged` rows."""
        merged = Merged(staged=staged)
        if self._window:
            merged.rejected = self._reject_outside(self._window)
        if self._replace:
            keys = quoted(*self._target.keys)
            self._execute(f"INSERT INTO {KEPT} SELECT {keys} FROM {STAGING}")  # noqa: S608
        low, high = self._execute(sql.staged_range).fetchall()[0]
        if low is not None:
            self._write_range(sql, KeyRange(low, high), merged)
        merged.unchanged = staged - merged.rejected - merged.inserted - merged.updated
        return merged

    def _write_range(self, sql: MergeSql, keys: KeyRange, merged: Merged) -> None:
        stored = self._execute(*self._target.first_from(keys)).fetchone() == (True,)
        for inserted, updated, values, *group in self._written(sql, keys, stored=stored):
            self._count(merged, group, Written(inserted, updated))
            if self._list_by and inserted + updated:
                merged.list_values(tuple(group), values)

    def _written(self, sql: MergeSql, keys: KeyRange, *, stored: bool) -> list[tuple[Any, ...]]:
        """Run the writing statement in a savepoint; rows inserted, updated, the list, the group's values.

        Where another transaction has committed one of the keys since we looked, run the slower one that expects it.
        """
        months, ends = self._target.months(keys)
        statement, values = (sql.upsert(months), ends or None) if stored else (sql.insert, None)
        with self._refusals():
            try:
                with self._connection.begin_nested():
                    return self._execute(statement, values).fetchall()
            except errors.UniqueViolation:
                with self._connection.begin_nested():
                    return self._execute(sql.upsert(months, expect_others=True), ends or None).fetchall()

    def _reject_outside(self, window: Window) -> int:
        column = quoted(window.column)
        return self._execute(
            f"DELETE FROM {STAGING} WHERE ({column} >= %s AND {column} < %s) IS NOT TRUE",  # noqa: S608
            (window.start, window.end),
        ).rowcount

    def _delete_missing(self, parts: Sequence[Window]) -> None:
        # With an index every lookup is cheap, whatever the planner believes of a table without statistics.
        self._execute(f"CREATE INDEX ON {KEPT} ({quoted(*self._target.keys)})")
        sql = MergeSql(self._target, [], self._group_by)
        for part in parts:
            values = (part.start, part.end, *([list(part.values)] if part.among else []))
            for deleted, _, *group in self._execute(sql.delete_missing(part.column, part.among), values):
                self._count(self.total, group, Written(deleted=deleted))

    def _count(self, merged: Merged, group: Sequence[Any], written: Written) -> None:
        merged.add(Merged(**asdict(written), groups={tuple(group): written} if self._group_by else {}))

    # -- the driver ---------------------------------------------------------------------------------------------

    def _execute(self, statement: str, parameters: Sequence[Any] | None = None) -> psycopg.Cursor[Any]:
        # Never prepared: a plan made while the table was small would be used on while it grows.
        return self._driver.execute(statement, parameters, prepare=False)

    @contextmanager
    def _refusals(self, rows: pa.Table | None = None) -> Iterator[None]:
        """Turn PostgreSQL's refusal of a value into one line that names it."""
        table = self._target.table.fullname
        try:
            yield
        except errors.CharacterNotInRepertoire as error:
            columns = ", ".join(frames.columns_with_nul(rows)) if rows is not None else "a text"
            raise MergeError(f"{table}: {columns} holds a NUL character, which PostgreSQL cannot store") from error
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            told = (error.diag.message_primary, error.diag.message_detail, error.diag.context)
            raise MergeError(f"{table}: " + "; ".join(" ".join(part.split()) for part in told if part)) from error


def _check(connection: sa.Connection, table: sa.Table, window: Window | None, *, replace: bool) -> None:
    keys = table.primary_key.columns
    if not connection.in_transaction():
        raise MergeError(f"{table.fullname}: begin a transaction before merging; committing it is the caller's")
    if not keys:
        raise MergeError(f"{table.fullname} has no primary key to merge by")
    if odd := [f"{key.name} ({key.type})" for key in keys if not frames.is_key_type(key.type)]:
        raise MergeError(f"{table.fullname}: key {', '.join(odd)} is not of text, integers, dates or times")
    if replace and window is None:
        raise MergeError(f"{table.fullname}: replacing needs a window, or it would empty the whole table")

"""Receipts: which frame lies unchanged in the table, so that the same frame need not be sent and compared again.

A receipt says: these rows (by digest) are stored, and from the least to the greatest of their keys these are the row
versions. It holds as long as the versions are the same ones. Any later write to the range, by whomever, makes new ones
(another place, another transaction), and then the frame is compared as if there were no receipt. So frames whose key
ranges overlap have to be compared once more after the last of them was written.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
import pyarrow as pa
import sqlalchemy as sa

from kasparro_pipeline.warehouse.frames import is_ordered_alike, key_range
from kasparro_pipeline.warehouse.merge_sql import KeyRange, Target

MIN_ROWS = 1_000
"""A smaller frame is compared faster than its receipt is looked up."""
MAX_RECEIPTS = 10_000
"""Of one table; the oldest are dropped."""
MAX_SPREAD = 2
"""Stored rows in the key range for each row of the frame; looking at more would not pay."""
_DIGEST_ROWS = 10_000


class Stamp(NamedTuple):
    """The row versions stored in a key range."""

    rows: int
    versions: str


class Receipts:
    """The receipts of one table.

    Args:
        execute: runs a statement in the merge's transaction.
        receipts: where they are kept: table_name, digest, low, high, row_count, versions, written_at.
        target: the table they are about.
    """

    def __init__(self, execute: Callable[..., psycopg.Cursor[Any]], receipts: sa.Table, target: Target) -> None:
        self._execute = execute
        self._name = Target(receipts).name
        self._target = target
        self._written = False

    def of(self, rows: pa.Table) -> Receipt | None:
        """The receipt of these rows, written already or not; None for few rows, or keys of unknown order."""
        if rows.num_rows < MIN_ROWS or not is_ordered_alike(self._target.table):
            return None
        return Receipt(self, rows)

    @property
    def table(self) -> sa.Table:
        """The table they are about."""
        return self._target.table

    def find(self, digest: bytes) -> tuple[KeyRange, Stamp] | None:
        """What the receipt of `digest` says."""
        found = self._execute(
            f"SELECT low, high, row_count, versions FROM {self._name} WHERE table_name = %s AND digest = %s",  # noqa: S608
            (self._target.table.fullname, digest),
        ).fetchone()
        return None if found is None else (KeyRange(*found[:2]), Stamp(*found[2:]))

    def stamp(self, keys: KeyRange, limit: int) -> Stamp:
        """The row versions stored in the range now, looking at no more than `limit`.

        A version is told by its place and the transaction that wrote it; the number of the file and that of the
        server keep places apart that a rewrite of the table or a restore elsewhere would make look alike.
        """
        within, ends = self._target.within(keys)
        found = self._execute(
            "SELECT count(*), (SELECT system_identifier FROM pg_control_system()) || ':' || "  # noqa: S608
            "coalesce(bit_xor(hash_record_extended(ROW(pg_relation_filenode(tableoid), xmin, ctid), 0)), 0) "
            f"FROM (SELECT tableoid, xmin, ctid FROM {self._target.name} t WHERE {within} LIMIT %s) t",
            (*ends, limit),
        )
        return Stamp(*found.fetchall()[0])

    def write(self, digest: bytes, keys: KeyRange, stamp: Stamp) -> None:
        """Remember that the rows of `digest` are stored in the range, as long as it holds the versions of `stamp`."""
        self._written = True
        self._execute(
            f"INSERT INTO {self._name} (table_name, digest, low, high, row_count, versions) "  # noqa: S608
            "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (table_name, digest) DO UPDATE SET "
            "(low, high, row_count, versions, written_at) = "
            "(excluded.low, excluded.high, excluded.row_count, excluded.versions, excluded.written_at)",
            (self._target.table.fullname, digest, keys.low, keys.high, *stamp),
        )

    def prune(self) -> None:
        """Drop the oldest, where any were written and there are more than `MAX_RECEIPTS`."""
        if self._written:
            self._execute(
                f"DELETE FROM {self._name} WHERE (table_name, digest) IN (SELECT table_name, digest "  # noqa: S608
                f"FROM {self._name} WHERE table_name = %s ORDER BY written_at DESC OFFSET %s FOR UPDATE SKIP LOCKED)",
                (self._target.table.fullname, MAX_RECEIPTS),
            )


class Receipt:
    """The receipt of one frame: asked before it is sent, left behind once it is merged."""

    def __init__(self, receipts: Receipts, rows: pa.Table) -> None:
        self._receipts = receipts
        self._rows = rows
        self._digest = _digest(rows, receipts.table)
        self._before: tuple[KeyRange, Stamp] | None = None

    def holds(self) -> bool:
        """Whether the rows lie in the table just as they did when the receipt was written."""
        found = self._receipts.find(self._digest)
        if found is None:
            return False
        keys, stamp = found
        return self._receipts.stamp(keys, stamp.rows + 1) == stamp

    def look_before(self) -> None:
        """Note what lies in the rows' range before they are merged."""
        keys = KeyRange(*key_range(self._rows, self._receipts.table))
        self._before = keys, self._receipts.stamp(keys, self._limit + 1)

    def leave(self, written: int) -> None:
        """Write the receipt, where `written` makes it certain that the rows are what the stamped versions hold.

        Nothing was written: the comparison found the versions that were there before it, or some that came in between,
        in which case the stamp never fits again. All were written: the versions are our own, which nobody else can
        change before we commit. Some were: others may have changed the rest in between, so there is no receipt.
        """
        if self._before is None:
            return
        keys, stamp = self._before
        if written == self._rows.num_rows:
            stamp = self._receipts.stamp(keys, self._limit + 1)
        if written in (0, self._rows.num_rows) and stamp.rows <= self._limit:
            self._receipts.write(self._digest, keys, stamp)

    @property
    def _limit(self) -> int:
        return MAX_SPREAD * int(self._rows.num_rows)


def _digest(rows: pa.Table, table: sa.Table) -> bytes:
    """What identifies the rows' content and how they are merged."""
    columns = [table.columns[name] for name in rows.column_names]
    rules = [
        (column.name, str(column.type), column.primary_key, column.info.get("compare", True)) for column in columns
    ]
    digest = _Digest(repr(rules).encode())
    with pa.ipc.new_stream(digest, rows.schema.remove_metadata()) as stream:
        stream.write_table(rows, max_chunksize=_DIGEST_ROWS)
    return digest.sha256.digest()


class _Digest(io.RawIOBase):
    """A file of which only the digest is kept."""

    def __init__(self, start: bytes) -> None:
        self.sha256 = hashlib.sha256(start)

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        """Take `data` into the digest."""
        self.sha256.update(data)
        return len(data)

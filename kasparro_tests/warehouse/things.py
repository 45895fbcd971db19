"""A table that has nothing to do with coins, to merge into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from kasparro_pipeline.warehouse.merge import Frame, Merge, Merged

C_TEXT = sa.Text(collation="C")
TIME = sa.DateTime(timezone=True)

metadata = sa.MetaData(schema="shop")
thing = sa.Table(
    "thing",
    metadata,
    sa.Column("kind", C_TEXT, primary_key=True),
    sa.Column("no", sa.Integer, primary_key=True),
    sa.Column("price", sa.Numeric),
    sa.Column("Note", sa.Text),
    sa.Column("amount", sa.BigInteger),
    sa.Column("at", TIME),
    sa.Column("at_local", sa.DateTime),
    sa.Column("day", sa.Date),
    sa.Column("body", sa.LargeBinary),
    sa.Column("tags", ARRAY(sa.Text)),
    sa.Column("seen", sa.Text, info={"compare": False}),
    sa.Column("updated_at", TIME, server_default=sa.func.clock_timestamp(), onupdate=sa.func.clock_timestamp()),
)
daily = sa.Table(
    "daily",
    metadata,
    sa.Column("day", sa.Date, primary_key=True),
    sa.Column("kind", C_TEXT, primary_key=True),
    sa.Column("price", sa.Numeric),
)


def things(*rows: tuple[str, int, str | None]) -> pa.Table:
    """Rows of kind, no and price."""
    names = ("kind", "no", "price")
    types = (pa.string(), pa.int64(), pa.string())
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.table([pa.array(column, kind) for column, kind in zip(columns, types, strict=True)], names=list(names))


def merge(engine: sa.Engine, *frames: Frame, table: sa.Table = thing, **options: Any) -> Merged:
    """Merge `frames` in one transaction and commit."""
    with engine.begin() as connection:
        merging = Merge(connection, table, **options)
        for frame in frames:
            merging.frame(frame)
        return merging.finish()


def counts(merged: Merged) -> dict[str, int]:
    """Its counts that are not 0."""
    names = ("staged", "inserted", "updated", "unchanged", "rejected", "deleted")
    return {name: getattr(merged, name) for name in names if getattr(merged, name)}


def stored(engine: sa.Engine, *columns: str, table: sa.Table = thing) -> Sequence[tuple[Any, ...]]:
    """The rows in the order of the key; numbers as PostgreSQL's own text, so that no digit is lost on the way here."""
    chosen = [table.c[name] for name in columns or ("kind", "no", "price")]
    texts = [sa.cast(column, sa.Text) if isinstance(column.type, sa.Numeric) else column for column in chosen]
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.select(*texts).order_by(*table.primary_key.columns))]

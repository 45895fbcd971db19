"""What the sources call their coins, gathered from observations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.sources.keys import codes
from kasparro_pipeline.warehouse.tables import source_coin

MAX_COINS = 200_000
"""Rows about coins that are held in memory."""


class CoinNames:
    """What the sources call their coins; the latest observation's word counts. Written once for many frames."""

    def __init__(self) -> None:
        self._seen: list[pa.Table] = []

    def add(self, connection: sa.Connection, observations: pa.Table) -> None:
        """Remember the coins in `observations`; written at once only where there are very many."""
        if not len(observations):
            return
        self._seen.append(_newest(observations, "observed_at", "observed_at"))
        if sum(map(len, self._seen)) > MAX_COINS:
            self._seen = [self._all()]
        if len(self._seen[0]) > MAX_COINS // 2:
            self.write(connection)

    def write(self, connection: sa.Connection) -> None:
        """Write and forget them."""
        if self._seen:
            _write_coins(connection, self._all())
        self._seen = []

    def _all(self) -> pa.Table:
        return _newest(pa.concat_tables(self._seen), "first_seen", "last_seen")


def _newest(table: pa.Table, first: str, last: str) -> pa.Table:
    """One row a coin: least `first`; symbol, name and `last` of its latest row that has a symbol or a name."""
    named = pc.or_(pc.is_valid(table.column("symbol")), pc.is_valid(table.column("name"))).to_numpy()
    coins, sources, firsts, lasts = (codes(table.column(name)) for name in ("source_coin_id", "source", first, last))
    order = np.lexsort((lasts, named, coins, sources))
    is_last = np.append((np.diff(coins[order]) != 0) | (np.diff(sources[order]) != 0), True)
    starts = np.flatnonzero(np.append(True, is_last[:-1]))
    rows = table.take(pa.array(order[is_last]))
    least = pa.array(np.minimum.reduceat(firsts[order], starts)).cast(table.column(first).type)
    columns = [rows.column("source"), rows.column("source_coin_id"), least]
    columns += [rows.column(name) for name in (last, "symbol", "name")]
    return pa.table(columns, ["source", "source_coin_id", "first_seen", "last_seen", "symbol", "name"])


def _write_coins(connection: sa.Connection, coins: pa.Table) -> None:
    # One statement with an array a column: one a row would take longer than all of the load beside it.
    arrays = [
        sa.literal(
            column.to_pylist(),
            sa.ARRAY(sa.DateTime(timezone=True) if pa.types.is_timestamp(column.type) else sa.Text),
        )
        for column in coins.columns
    ]
    rows = sa.func.unnest(*arrays).table_valued(*coins.column_names).render_derived()
    statement = insert(source_coin).from_select(coins.column_names, sa.select(rows))
    new, old = statement.excluded, source_coin.c
    later = new.last_seen >= old.last_seen
    # A word without a symbol or name, as a history's may be, gives way to any that has one.
    counts = sa.case((_is_named(new) == _is_named(old), later), else_=_is_named(new))
    connection.execute(
        statement.on_conflict_do_update(
            index_elements=["source", "source_coin_id"],
            set_={
                "symbol": sa.case((counts, new.symbol), else_=old.symbol),
                "name": sa.case((counts, new.name), else_=old.name),
                "first_seen": sa.func.least(old.first_seen, new.first_seen),
                "last_seen": sa.case((counts, new.last_seen), else_=old.last_seen),
            },
            where=counts | (new.first_seen < old.first_seen),
        )
    )


def _is_named(columns: Any) -> sa.ColumnElement[bool]:  # noqa: ANN401 - columns of the table or of what is inserted
    return sa.or_(columns.symbol.is_not(None), columns.name.is_not(None))

"""A listing as one stream, however long: memory holds a block of it at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any

from psycopg import AsyncConnection

from kasparro_api import arrow, listing_sql
from kasparro_api.copying import copy_out
from kasparro_api.database import Database, DatabaseUnavailableError
from kasparro_api.listing import Kind
from kasparro_api.listing_query import ListingQuery
from kasparro_api.parameters import refused

EXPORTS = 4
"""At the same time; each keeps a connection busy."""
TIMEOUT_S = 600

# JSON has no raw control character, so nothing is ever quoted and each line is the text as it is
_LINES = r"FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02'"
_CELLS = {"guarded": listing_sql.as_guarded_cell, "exact": listing_sql.as_cell}

Blocks = AsyncGenerator[bytes, None]


class Exporter:
    """Exports from a database, a few at a time, of `max_rows` rows at most."""

    def __init__(self, database: Database, max_rows: int) -> None:
        self._database = database
        self._max_rows = max_rows
        self._places = asyncio.Semaphore(EXPORTS)

    def check(self, query: ListingQuery) -> None:
        """Raise a `RequestValidationError` when the limit is above what an export may have."""
        if query.limit is not None and query.limit > self._max_rows:
            raise refused("limit", f"an export has {self._max_rows} rows at most")

    async def begin(self, query: ListingQuery, given: Mapping[str, Any]) -> Blocks:
        """The rows in the format of `query`; the caller closes the generator.

        The first block is there when this returns, so that what is wrong with a query is known before an answer begins.

        Raises:
            DatabaseUnavailableError: the database is away, or busy with other exports.
            QueryTimeoutError: it took too long.
            TooManyRowsError: there are more rows than an export may have.
        """
        if self._places.locked():
            raise DatabaseUnavailableError(f"{EXPORTS} exports are under way already; try again soon")
        blocks = self._blocks(query, given)
        return _with_first(await anext(blocks, b""), blocks)

    async def _blocks(self, query: ListingQuery, given: Mapping[str, Any]) -> Blocks:
        async with self._places, self._snapshot() as connection:
            # one row more than may be, so that nothing is cut off in silence
            limit = query.limit or self._max_rows + 1
            async for block in _WRITERS[query.format or ""](connection, query, given, limit, self._max_rows):
                yield block

    @asynccontextmanager
    async def _snapshot(self) -> AsyncGenerator[AsyncConnection[Any], None]:
        """A connection on which all statements see the same rows."""
        async with self._database.connection() as connection:
            try:
                await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                await connection.execute(f"SET LOCAL statement_timeout = '{TIMEOUT_S}s'")
                yield connection
                await connection.execute("COMMIT")
            except BaseException:
                await connection.close()  # the rest of the rows is not wanted
                raise


async def _with_first(first: bytes, rest: Blocks) -> Blocks:
    try:
        yield first
        async for block in rest:
            yield block
    finally:
        await rest.aclose()


async def _csv(
    connection: AsyncConnection[Any], query: ListingQuery, given: Mapping[str, Any], limit: int, max_rows: int
) -> Blocks:
    statement, values = listing_sql.export(query, given, _CELLS[query.cells], limit)
    async for rows in copy_out(connection, statement, values, "FORMAT csv, HEADER", max_rows=max_rows + 1):
        yield b"".join(rows)


async def _ndjson(
    connection: AsyncConnection[Any], query: ListingQuery, given: Mapping[str, Any], limit: int, max_rows: int
) -> Blocks:
    statement, values = listing_sql.export(query, given, listing_sql.as_json, limit)
    lines = f"SELECT row_to_json(t)::text FROM ({statement}) t"  # noqa: S608
    async for rows in copy_out(connection, lines, values, _LINES, max_rows=max_rows):
        yield b"".join(rows)


async def _arrow(
    connection: AsyncConnection[Any], query: ListingQuery, given: Mapping[str, Any], limit: int, max_rows: int
) -> Blocks:
    columns = {name: query.listing.columns[name] for name in query.columns}
    numbers = [name for name, kind in columns.items() if kind is Kind.NUMBER] if query.numbers == "decimal" else []
    scales: dict[str, int | None] = {}
    if numbers:
        statement, values = listing_sql.digits(query, given, numbers, limit)
        (found,) = await (await connection.execute(statement, values)).fetchall()
        pairs = zip(found[: len(numbers)], found[len(numbers) :], strict=True)
        scales = {name: arrow.fitting_scale(*pair) for name, pair in zip(numbers, pairs, strict=True)}
    statement, values = listing_sql.export(query, given, listing_sql.as_arrow, limit)
    rows = copy_out(connection, statement, values, arrow.COPY_OPTIONS, max_rows=max_rows)
    async with aclosing(arrow.encoded(query.format or "", rows, arrow.types(columns, scales))) as pieces:
        async for piece in pieces:
            yield piece


_WRITERS = {"csv": _csv, "ndjson": _ndjson, "parquet": _arrow, "arrow": _arrow}

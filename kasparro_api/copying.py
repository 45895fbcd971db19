"""COPY … TO STDOUT passed through in blocks.

psycopg's own `Copy` costs three times PostgreSQL's work, a turn of the event loop for every row; here only the wait for
the next block is one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from psycopg import AsyncClientCursor, AsyncConnection, DataError, errors, pq
from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait

BLOCK_BYTES = 1 << 17


class TooManyRowsError(Exception):
    """There are more rows than may be given; its argument is how many may."""


async def copy_out(
    connection: AsyncConnection[Any], query: str, values: dict[str, Any], options: str, *, max_rows: int
) -> AsyncGenerator[list[bytes], None]:
    """The rows of `query` as COPY with `options` writes them, in lists of whole rows of about `BLOCK_BYTES`.

    COPY takes no bound values: they are put into the statement by psycopg, quoted as the server's own library does.
    A caller that stops early, or that an error stops, has to close the connection.

    Raises:
        psycopg.Error: as for any statement.
        TooManyRowsError: there are more than `max_rows` rows.
    """
    statement = AsyncClientCursor(connection).mogrify(f"COPY ({query}) TO STDOUT ({options})", values)
    await connection.wait(_begin(connection.pgconn, statement.encode()))
    count = 0
    more = True
    while more:
        rows, more = await connection.wait(_block(connection.pgconn))
        count += len(rows)
        if count > max_rows:
            raise TooManyRowsError(max_rows)
        if rows:
            yield rows


def _begin(pgconn: pq.abc.PGconn, statement: bytes) -> PQGen[None]:
    pgconn.send_query(statement)
    while pgconn.flush():
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    result = yield from _result(pgconn)
    if result is None or result.status != pq.ExecStatus.COPY_OUT:
        yield from _drain(pgconn)
        raise errors.error_from_result(result) if result else DataError("no answer to COPY")


def _block(pgconn: pq.abc.PGconn) -> PQGen[tuple[list[bytes], bool]]:
    rows: list[bytes] = []
    size = 0
    while size < BLOCK_BYTES:
        length, row = pgconn.get_copy_data(1)
        if length > 0:
            rows.append(row)  # type: ignore[arg-type]  # a view of bytes of its own
            size += length
        elif length == 0:
            yield Wait.R
            pgconn.consume_input()
        else:
            yield from _drain(pgconn)
            return rows, False
    return rows, True


def _drain(pgconn: pq.abc.PGconn) -> PQGen[None]:
    while (result := (yield from _result(pgconn))) is not None:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise errors.error_from_result(result)


def _result(pgconn: pq.abc.PGconn) -> PQGen[pq.abc.PGresult | None]:
    while pgconn.is_busy():
        yield Wait.R
        pgconn.consume_input()
    return pgconn.get_result()

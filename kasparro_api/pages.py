"""One page of a listing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date

from fastapi.exceptions import RequestValidationError
from psycopg import errors

from kasparro_api import queries
from kasparro_api.cursor import Cursor
from kasparro_api.database import Database
from kasparro_api.parameters import DataQuery


@dataclass(frozen=True, slots=True)
class Page:
    """Rows as PostgreSQL wrote them: a JSON object a line, divided by commas."""

    rows: bytes
    count: int
    next_cursor: str | None


async def unified_page(database: Database, query: DataQuery) -> Page:
    """The rows of the unified asset table that `query` asks for.

    Raises:
        DatabaseUnavailableError: the database is away.
        QueryTimeoutError: the query took too long.
        RequestValidationError: `as_of` is before the history that is kept.
    """
    statement, values = queries.data_page(query)
    async with database.connection() as connection:
        try:
            found = await (await connection.execute(statement, values, binary=True)).fetchone()
        except errors.InvalidParameterValue as error:  # raised by kasparro.history_reaches
            reason = error.diag.message_primary
            raise RequestValidationError([{"loc": ("query", "as_of"), "msg": reason}]) from None
    rows: bytes = found[0] if found and found[0] else b""
    count = rows.count(b"\n") + 1 if rows else 0  # JSON escapes line ends, so they stand between rows only
    if count <= query.limit:
        return Page(rows, count, None)
    rows = rows.rpartition(b",\n")[0]
    return Page(rows, query.limit, _cursor_after(rows.rpartition(b"\n")[2]))


def _cursor_after(row: bytes) -> str:
    last = json.loads(row)
    return Cursor(date.fromisoformat(last["day"]), last["coin_id"]).encode()

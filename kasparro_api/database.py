"""The API's connections to PostgreSQL: a pool that outlives the server, read-only sessions, errors told apart.

With ``KASPARRO_READ_URL`` there are two: one on the replica, from which everything is read that is served, and one on
the database itself, for keys and for what was asked to be run. Data versions come from where the data does.

The pool opens without the database, refuses quickly while it is away and finds it again by itself, also on another
port: the URL is resolved anew for every connection.
"""

from __future__ import annotations

import select
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import sqlalchemy as sa
from psycopg import AsyncConnection, OperationalError, errors
from psycopg_pool import AsyncConnectionPool

from kasparro_pipeline.settings import Settings
from kasparro_pipeline.warehouse.database import database_url, read_url
from kasparro_pipeline.warehouse.reader import BECOME_READER

POOL_SIZE = 10
STATEMENT_TIMEOUT_S = 10
CONNECT_TIMEOUT_S = 2
"""How long a request waits for a connection before it is answered with 503."""

_BROKEN_OFF = "the replica broke the query off to follow the database; ask again, or see max_standby_streaming_delay"

_SESSION = (
    "-c timezone=UTC -c default_transaction_read_only=on -c jit=off "  # compiling costs more than any of our queries
    f"-c statement_timeout={STATEMENT_TIMEOUT_S}s"
)


class DatabaseUnavailableError(Exception):
    """The database does not answer, or has no tables of ours; the message says which and what to do."""


class QueryTimeoutError(Exception):
    """The database gave up on a query after `STATEMENT_TIMEOUT_S` seconds."""


class Database:
    """A pool of read-only autocommit connections in UTC, to the database or to the replica that is only read."""

    def __init__(self, settings: Settings, *, reads: bool = False) -> None:
        self.is_replica = reads and settings.read_url is not None
        self.name = "the replica that KASPARRO_READ_URL names" if self.is_replica else "PostgreSQL"
        self._pool = AsyncConnectionPool(
            partial(_conninfo, settings, read_url if reads else database_url),
            kwargs={
                "autocommit": True,
                "options": _SESSION,
                "application_name": "kasparro-api",
                "connect_timeout": CONNECT_TIMEOUT_S,
            },
            min_size=1,
            max_size=POOL_SIZE,
            timeout=CONNECT_TIMEOUT_S,
            reconnect_timeout=1,  # after that the next request tries again at once, without a growing delay
            check=_check_open,
            configure=_become_reader,
            open=False,
            name="kasparro-api",
        )

    async def open(self) -> None:
        """Begin to connect in the background; returns at once, with or without a database."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection for one request.

        Raises:
            DatabaseUnavailableError: none could be had in `CONNECT_TIMEOUT_S` seconds, it broke, or tables are missing.
            QueryTimeoutError: a statement took too long.
        """
        try:
            async with self._pool.connection() as connection:
                yield connection
        except errors.QueryCanceled as error:
            raise QueryTimeoutError from error
        except errors.SerializationFailure as error:  # a read-only statement has this on a replica alone
            raise DatabaseUnavailableError(_BROKEN_OFF) from error
        except OperationalError as error:
            advice = "start it, or unset that to read from the database" if self.is_replica else "see `kasparro status`"
            raise DatabaseUnavailableError(f"{self.name} does not answer; {advice}") from error
        except (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn) as error:
            raise DatabaseUnavailableError(
                "PostgreSQL answers, but Kasparro's tables are missing or old; run `kasparro up`"
            ) from error

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection[Any]]:
        """A connection in a transaction that may write, where the role may.

        Raises:
            DatabaseUnavailableError: as `connection`.
            QueryTimeoutError: as `connection`.
        """
        async with self.connection() as connection, connection.transaction():
            await connection.execute("SET TRANSACTION READ WRITE")
            yield connection


def _conninfo(settings: Settings, url: Callable[[Settings], sa.URL]) -> str:
    return url(settings).set(drivername="postgresql").render_as_string(hide_password=False)


async def _become_reader(connection: AsyncConnection[Any]) -> None:
    """Give up every right but to read our tables, where the role for that was made."""
    await connection.execute(BECOME_READER)


async def _check_open(connection: AsyncConnection[Any]) -> None:
    """Drop a connection that the server has closed: an idle socket with something to read is at its end.

    Costs a microsecond, where a query to find out would cost a round trip on every request.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await connection.close()
        raise OperationalError("the server has closed this connection")

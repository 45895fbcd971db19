"""Data versions, asked for once by all requests that wait at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from kasparro_api.database import Database
from kasparro_pipeline.warehouse.versions import VERSIONS


class DataVersions:
    """The newest version of each table.

    An answer is never older than its question: who asks while a query is under way waits for the next one, which
    begins after that. So nothing that was committed before a request is missed, at the cost of a share of a query.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._running: asyncio.Task[Mapping[str, str]] | None = None
        self._next: asyncio.Task[Mapping[str, str]] | None = None

    async def now(self) -> Mapping[str, str]:
        """The version by table; a table that was never written to has none.

        Raises:
            DatabaseUnavailableError: the database is away.
            QueryTimeoutError: it took too long.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._ask(self._running))
            self._next.add_done_callback(_seen)
        return await asyncio.shield(self._next)

    async def _ask(self, before: asyncio.Task[Mapping[str, str]] | None) -> Mapping[str, str]:
        if before is not None:
            await asyncio.wait({before})
        self._running, self._next = self._next, None  # who comes from here on has to wait for another one
        async with self._database.connection() as connection:
            return dict(await (await connection.execute(VERSIONS)).fetchall())


def _seen(task: asyncio.Task[Mapping[str, str]]) -> None:
    """Take note of an error that nobody waits for any more."""
    if not task.cancelled():
        task.exception()

"""How often a vendor was asked: every try counted in the database, so that no crash and no other process loses one.

A day and a month are those of UTC, as the database's clock has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b

import sqlalchemy as sa

from kasparro_pipeline.errors import KasparroError

_COUNT = sa.text("""
    INSERT INTO kasparro.vendor_call AS c (source, day, calls, recent, per_day, per_month)
    VALUES (:source, (clock_timestamp() AT TIME ZONE 'UTC')::date, 1, ARRAY[clock_timestamp()], :per_day, :per_month)
    ON CONFLICT (source, day) DO UPDATE SET
        calls = c.calls + 1, per_day = excluded.per_day, per_month = excluded.per_month,
        recent = ARRAY(
            SELECT t FROM unnest(c.recent) AS t WHERE t > clock_timestamp() - make_interval(secs => :window)
        ) || excluded.recent
""")
_RECENT = sa.text("""
    SELECT greatest(0, extract(epoch FROM clock_timestamp() - t))
    FROM kasparro.vendor_call, unnest(recent) AS t
    WHERE source = :source AND t > clock_timestamp() - make_interval(secs => :window)
    ORDER BY t
""")
_SUMS = sa.text("""
    SELECT coalesce(sum(calls) FILTER (WHERE day = (clock_timestamp() AT TIME ZONE 'UTC')::date), 0),
           coalesce(sum(calls), 0)
    FROM kasparro.vendor_call
    WHERE source = :source AND day >= date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC')
""")


class BudgetSpentError(KasparroError):
    """The vendor's call budget allows no further call."""


@dataclass(frozen=True, slots=True)
class CallLedger:
    """One vendor's calls, and how many of them it may have."""

    engine: Callable[[], sa.Engine]
    source: str
    per_day: int | None = None
    per_month: int | None = None
    """None: no limit."""
    window_seconds: float = 60.0
    """How far back calls are remembered one by one."""

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other process asks this vendor, and keep the others waiting meanwhile.

        The lock is of a database session, so it ends with the process that holds it.
        """
        lock = sa.func.pg_advisory_lock(self._lock_key("turn"))
        unlock = sa.func.pg_advisory_unlock(self._lock_key("turn"))
        with self.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.select(lock))
            try:
                yield
            finally:
                with suppress(sa.exc.OperationalError):  # a session that is lost holds no lock
                    connection.execute(sa.select(unlock))

    def count(self) -> None:
        """Count one call that is about to be made, in a transaction of its own.

        Raises:
            BudgetSpentError: there is none left; it is not counted.
        """
        with self.engine().begin() as connection:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(self._lock_key("count"))))
            spent = self._spent(connection)
            if spent is not None:
                raise BudgetSpentError(spent)
            budget = {"per_day": self.per_day, "per_month": self.per_month}
            connection.execute(_COUNT, {"source": self.source, "window": self.window_seconds, **budget})

    def spent(self) -> str | None:
        """Why no further call may be made, in one line; None: one may."""
        with self.engine().connect() as connection:
            return self._spent(connection)

    def recent(self) -> list[float]:
        """How many seconds ago each call of the last `window_seconds` was made, the longest ago first."""
        with self.engine().connect() as connection:
            ages = connection.scalars(_RECENT, {"source": self.source, "window": self.window_seconds})
            return [float(age) for age in ages]

    def _spent(self, connection: sa.Connection) -> str | None:
        if self.per_day is None and self.per_month is None:
            return None
        today, month = connection.execute(_SUMS, {"source": self.source}).one()
        for calls, limit, of in ((today, self.per_day, "day"), (month, self.per_month, "month")):
            if limit is not None and calls >= limit:
                return (
                    f"{self.source}: all {limit} calls of this {of} (UTC) are made; wait for the next {of}, "
                    f"or raise budget.per_{of} in its defs.yaml if the plan allows more"
                )
        return None

    def _lock_key(self, what: str) -> int:
        digest = blake2b(f"vendor {what} {self.source}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, signed=True)

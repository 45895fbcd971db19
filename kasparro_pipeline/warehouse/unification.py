"""Making days of `unified_assets`: what is due, in one merge, and the record of it that commits with the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.warehouse.merge import Merged, Window
from kasparro_pipeline.warehouse.rules import demand
from kasparro_pipeline.warehouse.tables import coin_identity, unified_assets, unified_change, unified_day
from kasparro_pipeline.warehouse.touched import Due, Part, first_open_day, parts
from kasparro_pipeline.warehouse.unify import unify


@dataclass(slots=True)
class Unification:
    """Makes the days from `first` to before `end`, in one merge: hand `frames` to it, then `windows`, then `commit`.

    With `only_touched` only what has to be made again is: the days and coins touched, and what rests on them. Days of
    which observations were removed keep the rows they have.
    """

    first: date
    end: date
    version: str
    """See `rule_version`."""
    priorities: Mapping[str, int]
    run_id: str
    only_touched: bool = False
    _due: Due | None = field(default=None, init=False)
    _parts: list[Part] = field(default_factory=list, init=False)

    def frames(self, connection: sa.Connection) -> Iterator[sa.TextualSelect]:
        """The rows, some days at a time; what is touched from now on stays for the next run."""
        # Who changes identities waits for us, and touches the days that we have made; or we wait for it.
        connection.execute(sa.text(f"LOCK TABLE {coin_identity.fullname} IN SHARE MODE"))
        self._due = Due(connection, self.first, self.end)
        days = self._due.days(connection, self.version)
        if not self.only_touched:
            days = {self.first + timedelta(days=n): None for n in range((self.end - self.first).days)}
        first_open = first_open_day(connection)
        self._parts = list(parts({day: coins for day, coins in days.items() if day >= first_open}))
        for part in self._parts:
            yield unify(part, self.priorities)

    def windows(self) -> list[Window]:
        """Of which rows the frames have told all that there are."""
        return [
            Window("day", part.first, part.end)
            if part.coin_ids is None
            else Window("day", part.first, part.end, "coin_id", tuple(sorted(part.coin_ids)))
            for part in self._parts
        ]

    def commit(self, connection: sa.Connection, merged: Merged) -> None:
        """Note, in the transaction that made these days, that it did and by which rule; they are due no more.

        Raises:
            ChecksFailedError: a day would break a rule that blocks.
        """
        days = [part.first + timedelta(days=n) for part in self._parts for n in range((part.end - part.first).days)]
        demand(connection, unified_assets, set(days))
        if self._due is not None:
            self._due.done(connection)
        if merged.inserted or merged.updated or merged.deleted:
            noted = insert(unified_change).values(began_at=sa.func.now(), committed_at=sa.func.clock_timestamp())
            connection.execute(noted.on_conflict_do_nothing())
        values = {"rule_version": self.version, "priorities": dict(self.priorities), "run_id": self.run_id}
        if not days:
            return
        made = insert(unified_day).values([{"day": day, **values, "unified_at": sa.func.now()} for day in days])
        told = [*values, "unified_at"]
        connection.execute(
            made.on_conflict_do_update(index_elements=["day"], set_={name: made.excluded[name] for name in told})
        )

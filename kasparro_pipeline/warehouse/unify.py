"""The rule for `unified_assets`, for all who run it or explain what it chose, and the record of which days it made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.warehouse.merge import Merged, Window
from kasparro_pipeline.warehouse.rules import demand
from kasparro_pipeline.warehouse.tables import coin_identity, unified_assets, unified_change, unified_day
from kasparro_pipeline.warehouse.touched import Due, Part, parts

RULE = (Path(__file__).parent / "unify.sql").read_text(encoding="utf-8")
"""A statement that gives the columns of `unified_assets` and ``why``: every source's value and verdict by field."""

_COLUMNS = [column.name for column in unified_assets.columns if column.name != "updated_at"]


def rule_version(priorities: Mapping[str, int]) -> str:
    """Changes whenever the same observations might become other rows; `priorities` are those that are configured."""
    return hashlib.sha256(f"{RULE}{sorted(priorities.items())}".encode()).hexdigest()[:12]


def unify(part: Part, priorities: Mapping[str, int]) -> sa.TextualSelect:
    """The rows of `unified_assets` for these days and coins.

    `priorities` of the sources: the lower, the sooner a source's word is taken.
    """
    start, end = (datetime.combine(day, time(), UTC) for day in (part.first, part.end))
    bound = sa.text(f"SELECT {', '.join(_COLUMNS)} FROM (\n{RULE}) AS rule").bindparams(  # noqa: S608 - our own text
        start=start,
        end=end,
        coin_ids=None if part.coin_ids is None else sorted(part.coin_ids),
        sources=list(priorities),
        priorities=list(priorities.values()),
    )
    return bound.columns(*(sa.column(name, unified_assets.c[name].type) for name in _COLUMNS))


@dataclass(slots=True)
class Unification:
    """Makes the days from `first` to before `end`, in one merge: hand `frames` to it, then `windows`, then `commit`.

    With `only_touched` only what has to be made again is: the days and coins touched, and what rests on them.
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
        self._parts = list(parts(days))
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

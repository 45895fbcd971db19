"""The rule for `unified_assets`, for all who run it or explain what it chose, and the record of which days it made."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.warehouse.tables import touched_day, unified_assets, unified_change, unified_day

if TYPE_CHECKING:  # it takes pandas and Arrow, 110 MB that the API, which reads the rule here, does without
    from kasparro_pipeline.warehouse.merge import Merged

HISTORY_DAYS = 3
"""So many days before a day are looked at by the rule, to tell a jump."""
DAYS_AT_ONCE = 31
"""A statement of the rule makes no more days, so that a run over years needs no more memory and disk than this."""

RULE = (Path(__file__).parent / "unify.sql").read_text(encoding="utf-8")
"""A statement that gives the columns of `unified_assets` and ``why``: every source's value and verdict by field."""

_COLUMNS = [column.name for column in unified_assets.columns if column.name != "updated_at"]


def rule_version(priorities: Mapping[str, int]) -> str:
    """Changes whenever the same observations might become other rows; `priorities` are those that are configured."""
    return hashlib.sha256(f"{RULE}{sorted(priorities.items())}".encode()).hexdigest()[:12]


def unify(start: datetime, end: datetime, priorities: Mapping[str, int]) -> Iterator[sa.TextualSelect]:
    """The rows of `unified_assets` for the days from `start` to before `end` (midnights, UTC), some days at a time.

    `priorities` of the sources: the lower, the sooner a source's word is taken.
    """
    while start < end:
        until = min(start + timedelta(days=DAYS_AT_ONCE), end)
        yield _unified_between(start, until, priorities)
        start = until


def _unified_between(start: datetime, end: datetime, priorities: Mapping[str, int]) -> sa.TextualSelect:
    bound = sa.text(f"SELECT {', '.join(_COLUMNS)} FROM (\n{RULE}) AS rule").bindparams(  # noqa: S608 - our own text
        start=start, end=end, coin_id=None, sources=list(priorities), priorities=list(priorities.values())
    )
    return bound.columns(*(sa.column(name, unified_assets.c[name].type) for name in _COLUMNS))


def record(  # noqa: PLR0913
    connection: sa.Connection,
    merged: Merged,
    start: datetime,
    end: datetime,
    *,
    version: str,
    priorities: Mapping[str, int],
    run_id: str,
) -> None:
    """Note, in the transaction that made these days, that it did and by which rule."""
    if merged.inserted or merged.updated or merged.deleted:
        noted = insert(unified_change).values(began_at=sa.func.now(), committed_at=sa.func.clock_timestamp())
        connection.execute(noted.on_conflict_do_nothing())
    days = [start.date() + timedelta(days=n) for n in range((end - start).days)]
    values = {"rule_version": version, "priorities": dict(priorities), "run_id": run_id, "unified_at": sa.func.now()}
    made = insert(unified_day).values([{"day": day, **values} for day in days])
    connection.execute(
        made.on_conflict_do_update(index_elements=["day"], set_={name: made.excluded[name] for name in values})
    )


def due_days(connection: sa.Connection, failing: Collection[date] = ()) -> list[date]:
    """The days touched, and those made before whose rows may rest on a touched day that is not `failing`."""
    touched, made = touched_day.c.day, unified_day.c.day
    after = sa.select(made).join(touched_day, (made > touched) & (made <= touched + HISTORY_DAYS))
    after = after.where(touched.not_in(failing))
    return list(connection.scalars(sa.select(touched).union(after).order_by("day")))


def touch_days_of_other_rules(connection: sa.Connection, version: str) -> None:
    """Have every day made again that another version of the rule has made."""
    stale = sa.select(unified_day.c.day).where(unified_day.c.rule_version != version)
    connection.execute(sa.insert(touched_day).from_select(["day"], stale))

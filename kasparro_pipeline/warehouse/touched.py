"""What has to be unified again: which days, and which coins of them.

Whoever changes observations or identities says so here, in the same transaction, and knows nothing of what follows from
it: that a coin may have become another one, that the days after a day rest on it, that another rule makes all anew.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from kasparro_pipeline.warehouse.tables import kept_since, touched_day, unified_assets, unified_day

HISTORY_DAYS = 3
"""So many days before a day are looked at by the rule, to tell a jump."""
DAYS_AT_ONCE = 31
"""A statement of the rule makes no more days, so that a run over years needs no more memory and disk than this."""
MAX_COINS = 1000
"""Coins touched of one source on one day that are told one by one; where they are more, the day is made for all."""


class Touched:
    """The observations that a transaction has changed, by day; `write` says so in ``touched_day``."""

    def __init__(self) -> None:
        self._coins: dict[tuple[date, str], set[str] | None] = {}

    def add(self, source: str, coins: Mapping[date, Collection[str] | None]) -> None:
        """Coins of a source by day, as the source calls them; None: very many."""
        for day, more in coins.items():
            known = self._coins.setdefault((day, source), set())
            if known is not None:
                known |= set(more or ())
                if more is None or len(known) > MAX_COINS:
                    self._coins[day, source] = None

    def add_written(self, listed: Mapping[tuple[Any, ...], Collection[str] | None]) -> None:
        """What a merge has written: coins (None: very many) by day, source, and whatever else it counts by."""
        for (day, source, *_), coins in listed.items():
            self.add(source, {day: coins})

    def write(self, connection: sa.Connection) -> None:
        """Say that `unified_assets` has to be made again for these."""
        rows = [
            {"day": day, "source": source, "source_coin_ids": None if coins is None else sorted(coins)}
            for (day, source), coins in sorted(self._coins.items(), key=lambda item: item[0])
        ]
        if rows:
            connection.execute(sa.insert(touched_day), rows)


def touch_coin(
    connection: sa.Connection, coin_id: str, source: str, source_coin_id: str, since: datetime | None = None
) -> None:
    """Touch this source's coin on every day (from that of `since` on) to whose unified row of `coin_id` the source
    contributed.

    Days that were not unified yet are touched already.
    """
    told = (unified_assets.c.coin_id == coin_id) & (sa.literal(source) == sa.any_(unified_assets.c.sources))
    if since is not None:
        told &= unified_assets.c.day >= since.astimezone(UTC).date()
    days = sa.select(
        unified_assets.c.day, sa.literal(source), sa.literal([source_coin_id], touched_day.c.source_coin_ids.type)
    ).where(told)
    connection.execute(sa.insert(touched_day).from_select(["day", "source", "source_coin_ids"], days))


def first_open_day(connection: sa.Connection) -> date:
    """The first day that may still be unified: before it, observations that its rows rest on are no longer kept."""
    since = connection.scalar(sa.select(kept_since.c.since).where(kept_since.c.table_name == "observation"))
    return since.astimezone(UTC).date() + timedelta(days=HISTORY_DAYS) if since else date.min


def touch_days_of_other_rules(connection: sa.Connection, version: str) -> None:
    """Have every day made again that another version of the rule has made, as far as it may be."""
    stale = sa.select(unified_day.c.day).where(
        unified_day.c.rule_version != version, unified_day.c.day >= first_open_day(connection)
    )
    connection.execute(sa.insert(touched_day).from_select(["day"], stale))


def due_days(connection: sa.Connection, failing: Collection[date] = ()) -> list[date]:
    """The days touched, and those made before whose rows may rest on a touched day that is not `failing`."""
    touched, made = touched_day.c.day, unified_day.c.day
    after = sa.select(made).join(touched_day, (made > touched) & (made <= touched + HISTORY_DAYS))
    after = after.where(touched.not_in(failing), ~touched_day.c.by_history)
    return list(connection.scalars(sa.select(touched).union(after).order_by("day")))


@dataclass(frozen=True, slots=True)
class Part:
    """Days of `unified_assets`, from `first` to before `end`, that are made in one statement."""

    first: date
    end: date
    coin_ids: frozenset[str] | None = None
    """The coins that are made; None: all."""

    def joined(self, other: Part) -> Part | None:
        """This part with the next one, where both are of a kind and small enough to be one."""
        if self.end != other.first or (other.end - self.first).days > DAYS_AT_ONCE:
            return None
        if self.coin_ids is None or other.coin_ids is None:
            return Part(self.first, other.end) if self.coin_ids == other.coin_ids else None
        coin_ids = self.coin_ids | other.coin_ids
        return Part(self.first, other.end, coin_ids) if len(coin_ids) <= MAX_COINS else None


def parts(days: Mapping[date, frozenset[str] | None]) -> Iterator[Part]:
    """Days with the coins that are to be made (None: all), joined into as few parts as may be."""
    part: Part | None = None
    for day, coin_ids in sorted(days.items()):
        one = Part(day, day + timedelta(days=1), coin_ids)
        joined = part.joined(one) if part else one
        if part and joined is None:
            yield part
        part = joined or one
    if part:
        yield part


_SCOPE = sa.text(
    f"""
WITH seen AS (
    SELECT day, source, source_coin_ids, by_history FROM kasparro.touched_day WHERE id = ANY (:seen)
), reached AS (
    SELECT day, source, source_coin_ids FROM seen
    UNION ALL
    SELECT u.day, s.source, s.source_coin_ids
    FROM seen AS s JOIN kasparro.unified_day AS u ON u.day > s.day AND u.day <= s.day + {HISTORY_DAYS}
    WHERE NOT s.by_history AND u.day < :end
), coin AS (
    SELECT r.day, i.coin_id
    FROM reached AS r
    CROSS JOIN unnest(r.source_coin_ids) AS c (source_coin_id)
    CROSS JOIN LATERAL (
        SELECT coin_id FROM kasparro.coin_identity_span WHERE source = r.source AND source_coin_id = c.source_coin_id
        UNION ALL
        SELECT coin_id FROM kasparro.coin_identity_history WHERE source = r.source AND source_coin_id = c.source_coin_id
    ) AS i
)
SELECT r.day, bool_or(r.source_coin_ids IS NULL) OR bool_or(u.day IS NULL) AS whole,
       (SELECT array_agg(DISTINCT c.coin_id) FROM coin AS c WHERE c.day = r.day) AS coin_ids
FROM reached AS r LEFT JOIN kasparro.unified_day AS u USING (day)
GROUP BY r.day
UNION ALL
SELECT day, true, NULL FROM kasparro.unified_day WHERE day >= :first AND day < :end AND rule_version <> :version
"""  # noqa: S608
)

_FOLLOW = sa.text(
    f"""
INSERT INTO kasparro.touched_day (day, source, source_coin_ids, by_history)
SELECT u.day, t.source, t.source_coin_ids, true
FROM kasparro.touched_day AS t JOIN kasparro.unified_day AS u ON u.day > t.day AND u.day <= t.day + {HISTORY_DAYS}
WHERE t.id = ANY (:seen) AND NOT t.by_history AND u.day >= :end
"""  # noqa: S608
)


class Due:
    """What was touched of the days from `first` to before `end`, at the moment it is made."""

    def __init__(self, connection: sa.Connection, first: date, end: date) -> None:
        query = sa.select(touched_day.c.id).where(touched_day.c.day >= first, touched_day.c.day < end)
        self._seen = connection.scalars(query).all()
        self._first, self._end = first, end

    def days(self, connection: sa.Connection, version: str) -> dict[date, frozenset[str] | None]:
        """By day the coins that have to be made again; None: all of them.

        These are all coins that a touched one is or ever was, on its day and on the days after whose history that is;
        and all coins of a day that was never made, or not by this `version` of the rule.
        """
        values = {"seen": list(self._seen), "first": self._first, "end": self._end, "version": version}
        found: dict[date, frozenset[str] | None] = {}
        for day, whole, coin_ids in connection.execute(_SCOPE, values):
            is_whole = whole or (day in found and found[day] is None)
            found[day] = None if is_whole else frozenset(coin_ids or ())
        return found

    def done(self, connection: sa.Connection) -> None:
        """Take it from what is due; days after `end` that rest on it are due for that."""
        connection.execute(_FOLLOW, {"seen": list(self._seen), "end": self._end})
        connection.execute(sa.delete(touched_day).where(touched_day.c.id.in_(self._seen)))

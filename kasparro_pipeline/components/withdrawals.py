"""Which observations no file holds any more: those that a restated file was delivered without.

A file's newest complete delivery replaces the ones before. An observation that none of its source's files holds now
stays, with the time of the delivery that dropped it in `withdrawn_at`; delivered again, that is cleared. Only blocks
that differ between two deliveries of a file are parsed for it, and, where a key is gone, those that may still hold it.
"""

from __future__ import annotations

from collections.abc import Set
from datetime import date, datetime
from itertools import groupby

import sqlalchemy as sa

from kasparro_pipeline.components.statements import Key, Statements
from kasparro_pipeline.io_managers.raw_payload import Deliveries, Kept
from kasparro_pipeline.warehouse.tables import delivery, observation

_MARK = sa.text(
    """
    UPDATE kasparro.observation AS o SET withdrawn_at = k.withdrawn_at
    FROM unnest(CAST(:coins AS text[]), CAST(:times AS timestamptz[]), CAST(:marks AS timestamptz[]))
        AS k (source_coin_id, observed_at, withdrawn_at)
    WHERE o.source = :source AND o.observed_at = k.observed_at AND o.source_coin_id = k.source_coin_id
      AND o.observed_at BETWEEN :first AND :last -- tells which partitions
      AND o.withdrawn_at IS DISTINCT FROM k.withdrawn_at
    RETURNING (o.observed_at AT TIME ZONE 'UTC')::date, o.source_coin_id, o.withdrawn_at IS NOT NULL
    """
)


class Withdrawals:
    """Keeps `withdrawn_at` of one source's observations, file delivery by file delivery."""

    def __init__(self, connection: sa.Connection, deliveries: Deliveries, statements: Statements) -> None:
        self._connection = connection
        self._deliveries = deliveries
        self._statements = statements

    def settle(self, source: str, partition: str, fetched_at: datetime) -> tuple[dict[date, set[str]], int]:
        """Mark what this delivery of the file, parsed just now, changes; coins touched by day, and rows withdrawn.

        A delivery that could not be read at all changes nothing: it does not say that the rows are gone.
        """
        complete = self._complete(source)
        history = complete.get(partition, [])
        if fetched_at not in history:
            return {}, 0
        place = history.index(fetched_at)
        now, older, newer = (
            self._blocks(source, partition, history[at]) if 0 <= at < len(history) else {}
            for at in (place, place + 1, place - 1)
        )
        is_newest = fetched_at == max(times[0] for times in complete.values())
        if is_newest:
            marks = self._newest(source, fetched_at, now, older, complete)
        else:
            keys = self._keys(now, newer) | self._keys(older, newer) | self._keys(now, older) | self._keys(older, now)
            dropped = self._dropped(source, keys, complete)
            marks = {key: dropped.get(key) for key in keys}
        return self._mark(source, marks)

    def is_first(self, source: str, partition: str) -> bool:
        """Whether the file has never been delivered before, and nothing is withdrawn that it could bring back."""
        times = sa.select(delivery.c.fetched_at).where(
            delivery.c.source == source, delivery.c.partition == partition, delivery.c.position == 0
        )
        withdrawn = sa.exists().where(observation.c.source == source, observation.c.withdrawn_at.is_not(None))
        only_one = len(self._connection.scalars(times.limit(2)).all()) < 2
        return only_one and not self._connection.scalar(sa.select(withdrawn))

    def _newest(
        self,
        source: str,
        fetched_at: datetime,
        now: dict[tuple[str, str], Kept],
        older: dict[tuple[str, str], Kept],
        complete: dict[str, list[datetime]],
    ) -> dict[Key, datetime | None]:
        """In the order of time: what is gone from this file and in no other, and what is here again."""
        gone = self._keys(older, now)
        added = [kept for block, kept in now.items() if block not in older and self._may_return(kept)]
        held = {key for kept in added for key in self._statements.keys(kept)}
        if gone:
            held |= self._keys(now, older)
        gone -= held
        marks: dict[Key, datetime | None] = dict.fromkeys(held)
        current = {partition: times[:1] for partition, times in complete.items()}
        still = self._found(source, gone, current)
        return marks | {key: fetched_at for key in gone if key not in still}

    def _may_return(self, kept: Kept) -> bool:
        """Whether a withdrawn observation lies where the block's are."""
        withdrawn = sa.exists().where(
            observation.c.source == kept.source,
            observation.c.withdrawn_at.is_not(None),
            observation.c.observed_at.between(kept.first_observed_at, kept.last_observed_at),
        )
        return kept.first_observed_at is not None and bool(self._connection.scalar(sa.select(withdrawn)))

    def _dropped(self, source: str, keys: Set[Key], complete: dict[str, list[datetime]]) -> dict[Key, datetime]:
        """When the last file dropped each of those keys that no file holds now."""
        dropped: dict[Key, datetime] = {}
        held: set[Key] = set()
        for (partition, last), found in self._last_held(source, keys, complete).items():
            place = complete[partition].index(last)
            if place == 0:
                held |= found
            for key in found:
                dropped[key] = max(dropped.get(key, complete[partition][place - 1]), complete[partition][place - 1])
        return {key: at for key, at in dropped.items() if key not in held}

    def _found(self, source: str, keys: Set[Key], complete: dict[str, list[datetime]]) -> set[Key]:
        """Those of `keys` that one of the deliveries `complete` holds."""
        return {key for found in self._last_held(source, keys, complete).values() for key in found}

    def _last_held(
        self, source: str, keys: Set[Key], complete: dict[str, list[datetime]]
    ) -> dict[tuple[str, datetime], set[Key]]:
        """By file delivery, the keys that it, and none of its file after it, holds."""
        if not keys:
            return {}
        last: dict[tuple[str, datetime], set[Key]] = {}
        blocks = self._deliveries.find(
            self._connection,
            delivery.c.source == source,
            delivery.c.fetched_at.in_({at for times in complete.values() for at in times}),
            delivery.c.first_observed_at <= max(at for _, at in keys),
            delivery.c.last_observed_at >= min(at for _, at in keys),
        )
        by_file = groupby(
            sorted(blocks, key=lambda kept: (kept.partition, kept.fetched_at), reverse=True),
            key=lambda kept: kept.partition,
        )
        for partition, of_file in by_file:
            left, seen = set(keys), set()
            for kept in of_file:
                if kept.fetched_at not in complete.get(partition, ()) or not left or _block(kept) in seen:
                    continue
                found = self._statements.rows(kept, left).keys()
                last.setdefault((partition, kept.fetched_at), set()).update(found)
                seen.add(_block(kept))
                left -= found
        return last

    def _keys(self, blocks: dict[tuple[str, str], Kept], without: dict[tuple[str, str], Kept]) -> set[Key]:
        """The keys in `blocks` that are not among `without`."""
        return {key for block, kept in blocks.items() if block not in without for key in self._statements.keys(kept)}

    def _blocks(self, source: str, partition: str, fetched_at: datetime) -> dict[tuple[str, str], Kept]:
        found = self._deliveries.find(
            self._connection,
            delivery.c.source == source,
            delivery.c.partition == partition,
            delivery.c.fetched_at == fetched_at,
        )
        return {_block(kept): kept for kept in found}

    def _complete(self, source: str) -> dict[str, list[datetime]]:
        """The deliveries of each file that say what it holds, newest first."""
        records, quarantined = sa.func.sum(delivery.c.records), sa.func.sum(delivery.c.quarantined)
        query = (
            sa.select(delivery.c.partition, delivery.c.fetched_at)
            .where(delivery.c.source == source)
            .group_by(delivery.c.partition, delivery.c.fetched_at)
            .having(
                sa.func.bool_or(delivery.c.is_last),
                sa.func.bool_and(delivery.c.parser_version.is_not(None)),
                (records > quarantined) | (quarantined == 0),
            )
            .order_by(delivery.c.partition, delivery.c.fetched_at.desc())
        )
        complete: dict[str, list[datetime]] = {}
        for partition, fetched_at in self._connection.execute(query):
            complete.setdefault(partition, []).append(fetched_at)
        return complete

    def _mark(self, source: str, marks: dict[Key, datetime | None]) -> tuple[dict[date, set[str]], int]:
        if not marks:
            return {}, 0
        parameters = {
            "source": source,
            "coins": [coin for coin, _ in marks],
            "times": [at for _, at in marks],
            "marks": list(marks.values()),
            "first": min(at for _, at in marks),
            "last": max(at for _, at in marks),
        }
        rows = self._connection.execute(_MARK, parameters).all()
        touched: dict[date, set[str]] = {}
        for day, coin, _ in rows:
            touched.setdefault(day, set()).add(coin)
        return touched, sum(withdrawn for *_, withdrawn in rows)


def _block(kept: Kept) -> tuple[str, str]:
    """What makes two blocks the same: bytes, and the dialect they are read by."""
    return kept.sha256, (kept.parser_version or "").rpartition(":")[2]

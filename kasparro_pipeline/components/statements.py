"""What kept deliveries say of given keys, and which word counts where a delivery is parsed after later ones.

Of all that a source's deliveries say of one key, the delivery of the highest `Rank` counts, whichever was parsed first.
The observation's provenance is the delivery since which that has been said without another word in between. Deliveries
mostly come in their order, and then a merge keeps both rules by itself; this is for those that do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, Protocol

import pyarrow as pa
import sqlalchemy as sa

from kasparro_pipeline.io_managers.raw_payload import Kept, Rank
from kasparro_pipeline.sources.records import NUMBER_COLUMNS, ParsedPayload
from kasparro_pipeline.warehouse.tables import observation

Key = tuple[str, datetime]
"""source_coin_id and observed_at."""
Row = dict[str, Any]

PARSED_KEPT = 8
"""Payloads whose rows are held in memory, in case they are asked again."""

_VALUES = ("symbol", "name", *NUMBER_COLUMNS, "rank")
_KEY = ("source", "source_coin_id", "observed_at")
_STORED = sa.text(
    """
    SELECT o.*, d.partition AS owner_partition, d.position AS owner_position
    FROM unnest(CAST(:coins AS text[]), CAST(:times AS timestamptz[])) AS k (source_coin_id, observed_at)
    JOIN kasparro.observation AS o
        ON o.source = :source AND o.observed_at = k.observed_at AND o.source_coin_id = k.source_coin_id
        AND o.observed_at BETWEEN :first AND :last -- tells which partitions
    LEFT JOIN LATERAL (
        SELECT partition, position FROM kasparro.delivery
        WHERE source = o.source AND sha256 = o.payload_sha256 AND fetched_at = o.fetched_at
        ORDER BY partition DESC, position DESC LIMIT 1
    ) AS d ON true
    """
)


class Parses(Protocol):
    """Makes observations of a delivery."""

    def parse(self, kept: Kept) -> ParsedPayload:
        """The delivery's records."""


def keys_of(observations: pa.Table) -> list[Key]:
    """The keys of one source's observations, in their order."""
    columns = [observations.column(name).to_pylist() for name in ("source_coin_id", "observed_at")]
    return list(zip(*columns, strict=True))


class Statements:
    """What deliveries say, parsed again when asked for; the last few are held in memory."""

    def __init__(self, parser: Parses) -> None:
        self._parse = lru_cache(PARSED_KEPT)(parser.parse)

    def keys(self, kept: Kept) -> set[Key]:
        """All keys the delivery speaks of."""
        return set(keys_of(self._parse(kept).observations))

    def rows(self, kept: Kept, keys: Set[Key]) -> dict[Key, Row]:
        """What the delivery says of those of `keys` that it speaks of."""
        if not any(may_speak_of(kept, key) for key in keys):
            return {}
        said = self._parse(kept).observations
        places = {key: place for place, key in enumerate(keys_of(said)) if key in keys}
        return dict(zip(places, said.take(list(places.values())).to_pylist(), strict=True)) if places else {}


def may_speak_of(kept: Kept, key: Key) -> bool:
    """False where the account of the delivery says that it does not."""
    if kept.first_observed_at is None or kept.last_observed_at is None:
        return True
    coin, at = key
    within = kept.first_observed_at <= at <= kept.last_observed_at
    return within and (kept.first_coin_id or "") <= coin <= (kept.last_coin_id or "")


@dataclass(frozen=True, slots=True)
class Settled:
    """What of a delivery counts, where later ones were parsed before it."""

    observations: pa.Table
    """To be merged as if nothing had been parsed before."""
    overruled: int
    """Records of which a later delivery says something else."""


def settle(connection: sa.Connection, kept: Kept, said: pa.Table, later: Sequence[Kept], do: Statements) -> Settled:
    """What of `said` counts beside `later`, the deliveries after `kept` that were parsed before it, oldest first.

    Rows whose words are stored already, and whose provenance only changes, are written here.
    """
    keys = keys_of(said)
    stored = _stored(connection, kept.source, keys)
    rows = dict(zip(keys, said.to_pylist(), strict=True))
    overruled: set[Key] = set()
    breaks: set[Key] = set()
    continues: set[Key] = set()
    for key, (old, since) in stored.items():
        if kept.rank >= since:
            if not _same(rows[key], old):
                breaks.add(key)
        elif _same(rows[key], old):
            continues.add(key)
        else:
            overruled.add(key)
    following = _first_words(later, breaks, do)
    overruled |= following.keys()
    continues -= _broken(later, {key: stored[key] for key in continues}, do)
    _own(connection, [*following.values(), *(rows[key] for key in continues)])
    if not overruled:
        return Settled(said, 0)
    return Settled(said.filter(pa.array([key not in overruled for key in keys])), len(overruled))


def _stored(connection: sa.Connection, source: str, keys: list[Key]) -> dict[Key, tuple[Row, Rank]]:
    """The stored rows with these keys, and the rank of the delivery that each is from."""
    if not keys:
        return {}
    times = [at for _, at in keys]
    span = {"first": min(times), "last": max(times)}
    parameters = {"source": source, "coins": [coin for coin, _ in keys], "times": times, **span}
    return {
        (row["source_coin_id"], row["observed_at"]): (
            dict(row),
            (row["fetched_at"], row["owner_partition"] or "", row["owner_position"] or 0),
        )
        for row in connection.execute(_STORED, parameters).mappings()
    }


def _first_words(later: Sequence[Kept], keys: Set[Key], do: Statements) -> dict[Key, Row]:
    """What the first of `later` to speak of each key says."""
    found: dict[Key, Row] = {}
    for kept in later:
        if len(found) == len(keys):
            break
        found |= do.rows(kept, keys - found.keys())
    return found


def _broken(later: Sequence[Kept], stored: Mapping[Key, tuple[Row, Rank]], do: Statements) -> set[Key]:
    """The keys of which one of `later`, before the delivery that the stored row is from, says something else."""
    broken: set[Key] = set()
    for kept in later:
        left = {key for key, (_, since) in stored.items() if kept.rank < since} - broken
        if not left:
            break
        broken |= {key for key, row in do.rows(kept, left).items() if not _same(row, stored[key][0])}
    return broken


def _same(said: Row, stored: Row) -> bool:
    """Whether a delivery says what is stored, of all that it speaks of: a history says less than a snapshot."""
    return all(_value(name, said[name]) == stored[name] for name in _VALUES if name in said)


def _value(name: str, value: Any) -> Any:  # noqa: ANN401 - what a column holds
    return Decimal(value) if name in NUMBER_COLUMNS and value is not None else value


def _own(connection: sa.Connection, rows: list[Row]) -> None:
    """Let these rows be where the equal stored ones are from, with the digits as they stand there."""
    by_columns: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_columns.setdefault(tuple(name for name in row if name not in _KEY), []).append(row)
    for names, alike in by_columns.items():
        statement = (
            sa.update(observation)
            .where(*(observation.c[name] == sa.bindparam(f"key_{name}") for name in _KEY))
            .values({name: sa.bindparam(name) for name in names})
        )
        values = [
            {name: _value(name, row[name]) for name in names} | {f"key_{name}": row[name] for name in _KEY}
            for row in alike
        ]
        connection.execute(statement, values)

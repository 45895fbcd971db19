"""What a vendor says of past days: one call a coin and range, and the points in its answer as observations.

A vendor answers with records (CoinPaprika), or with one series of ``[time, value]`` pairs for each column (CoinGecko).
Either way an answer is about the one coin it was asked for, which it does not name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple, Self
from urllib.parse import quote

import msgspec

from kasparro_pipeline.sources.collect import FIRST_DAY, ROW_COLUMNS, Collector, unreadable
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.http import NoSuchError, VendorClient
from kasparro_pipeline.sources.json_records import Coin, JsonMapping, converter, parse_json
from kasparro_pipeline.sources.json_text import UNREADABLE, Path, records_at, value_at
from kasparro_pipeline.sources.records import Checkpoint, Delivery, ParsedPayload, Payload

_pair = msgspec.json.Decoder(tuple[msgspec.Raw, msgspec.Raw]).decode
_ALWAYS = ("source", "source_coin_id", "observed_at", "symbol", "name", "fetched_at", "payload_sha256", "position")


@dataclass(frozen=True, slots=True)
class HistorySpec:
    """What to ask a vendor for: the past of some coins. ``{id}`` in the endpoint stands for the coin."""

    endpoint: str
    coins: tuple[str, ...]
    from_param: str
    to_param: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    times: Literal["unix", "unix_ms", "iso", "day"] = "unix"
    """How moments are written in the request: seconds or milliseconds since 1970, RFC 3339, or the day alone."""
    max_days: int | None = None
    """Days that one call may ask for; None: any number."""


@dataclass(frozen=True, slots=True)
class HistoryMapping:
    """Where the values are in an answer: `records` of one point each, or `series` of pairs by column."""

    records: JsonMapping | None = None
    series: Mapping[str, Path] = field(default_factory=dict)
    """Column to the path of its array of ``[time, value]``."""
    zero_is_null: frozenset[str] = frozenset()

    @property
    def columns(self) -> frozenset[str]:
        """The columns of an observation that an answer speaks of, beside its key and the coin's names."""
        return frozenset(self.records.columns if self.records else self.series)

    @property
    def decides(self) -> tuple[object, ...]:
        """All that decides what is made of the same bytes; its repr is stable."""
        columns = self.records.columns if self.records else self.series
        record_path = self.records.record_path if self.records else None
        return sorted(columns.items()), record_path, sorted(self.zero_is_null)


class Days(NamedTuple):
    """First and last day of a range, both included."""

    first: date
    last: date


@dataclass(frozen=True, slots=True)
class Backfill:
    """How far the history of a range of days has been fetched: what a checkpoint's cursor holds."""

    days: Days
    coins: tuple[str, ...]
    started_at: datetime
    calls: int = 0
    """Calls whose answers are kept."""

    @classmethod
    def begin(cls, days: Days, coins: tuple[str, ...]) -> Self:
        """One that starts now."""
        return cls(days, coins, datetime.now(UTC))

    def resumed(self, cursor: Mapping[str, Any]) -> Backfill:
        """The one that left `cursor` behind, where it asked for the same; else this one."""
        if cursor.get("history") != self.cursor()["history"]:
            return self
        return replace(self, started_at=datetime.fromisoformat(cursor["started_at"]), calls=int(cursor["calls"]))

    def cursor(self) -> dict[str, Any]:
        """JSON that `resumed` understands."""
        return {
            "history": [*(day.isoformat() for day in self.days), *self.coins],
            "started_at": self.started_at.isoformat(),
            "calls": self.calls,
        }


class HistoryFetch:
    """Fetches the history of a range of days: iterate over `payloads`, then look at `unknown`.

    Every answer is a delivery of the range's first day.
    """

    def __init__(self, client: VendorClient, spec: HistorySpec, backfill: Backfill) -> None:
        self.unknown: list[str] = []
        """Coins that the vendor does not know, or has no history of: it answered 404."""
        self._client = client
        self._spec = spec
        self._backfill = backfill

    def payloads(self) -> Iterator[Payload]:
        """The answers, coin by coin.

        Raises:
            FetchError: an answer cannot be had, for another reason than 404.
        """
        days = self._backfill.days
        calls = [(coin, chunk) for coin in self._spec.coins for chunk in _chunks(days, self._spec.max_days)]
        for index, (coin, chunk) in enumerate(calls):
            if index < self._backfill.calls or coin in self.unknown:
                continue
            endpoint = self._spec.endpoint.replace("{id}", quote(coin, safe=""))
            try:
                answer = self._client.get(endpoint, self._params(coin, chunk))
            except NoSuchError:
                self.unknown.append(coin)
                continue
            yield Payload(
                source=self._client.source,
                partition=days.first.isoformat(),
                position=index,
                fetched_at=answer.received_at,
                body=answer.body,
                request=answer.url,
                source_coin_id=coin,
                checkpoint=Checkpoint(replace(self._backfill, calls=index + 1).cursor(), index + 1 == len(calls)),
            )

    def _params(self, coin: str, days: Days) -> Mapping[str, str | int]:
        start = datetime.combine(days.first, time(), UTC)
        end = datetime.combine(days.last, time(23, 59, 59), UTC)
        params = {
            name: value.replace("{id}", coin) if isinstance(value, str) else value
            for name, value in self._spec.params.items()
        }
        return params | {self._spec.from_param: self._moment(start), self._spec.to_param: self._moment(end)}

    def _moment(self, moment: datetime) -> str | int:
        if self._spec.times in {"unix", "unix_ms"}:
            return int(moment.timestamp()) * (1000 if self._spec.times == "unix_ms" else 1)
        return f"{moment:%Y-%m-%d}" if self._spec.times == "day" else f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def parse_history(
    delivery: Delivery, mapping: HistoryMapping, coin: Coin, first_day: date = FIRST_DAY
) -> ParsedPayload:
    """The points of one answer as observations of `coin`.

    The table has no column that the answer does not speak of, so that merging it leaves alone what a snapshot of the
    same moment said beyond it.
    """
    if mapping.records is not None:
        parsed = parse_json(delivery, mapping.records, first_day, coin)
    else:
        parsed = _parse_series(delivery, mapping, coin, first_day)
    spoken_of = [name for name in parsed.observations.column_names if name in mapping.columns or name in _ALWAYS]
    return replace(parsed, observations=parsed.observations.select(spoken_of))


def _parse_series(delivery: Delivery, mapping: HistoryMapping, coin: Coin, first_day: date) -> ParsedPayload:
    try:
        points = _points(delivery.body, mapping.series)
    except RefusedError as refused:
        return unreadable(delivery, refused)
    collector = Collector(delivery, lambda position: f"{delivery.request} record {position}", first_day)
    convert = {name: converter(name, name in mapping.zero_is_null) for name in ("observed_at", *mapping.series)}
    for position, (key, values) in enumerate(points.items(), 1):
        record = b"{%s}" % b", ".join(b'"%s": %s' % (name.encode(), bytes(raw)) for name, raw in values.items())
        try:
            row: list[object] = [None] * len(ROW_COLUMNS)
            row[0], row[2], row[3] = coin
            if key.broken:
                raise RefusedError("bad_type", "a point of a series is a pair of time and value")
            for name, raw in values.items():
                row[ROW_COLUMNS.index(name)] = convert[name](name, raw)
            collector.take(position, tuple(row), record)
        except RefusedError as refused:
            collector.refuse(position, refused, record)
    return collector.parsed()


class _Moment(NamedTuple):
    """What the values of one point have in common: the time as the vendor wrote it, the how manieth of that time."""

    time: bytes
    turn: int
    broken: bool = False


def _points(body: bytes, series: Mapping[str, Path]) -> dict[_Moment, dict[str, msgspec.Raw | bytes]]:
    """The values of each moment, in the order in which the moments come.

    Raises:
        RefusedError: ``unreadable_payload``; a series is missing or no array.
    """
    points: dict[_Moment, dict[str, msgspec.Raw | bytes]] = {}
    for name, path in series.items():
        found = value_at(body, path)
        if found is None:
            raise RefusedError("unreadable_payload", f"the answer has no {'.'.join(path)!r}")
        try:
            pairs = records_at(bytes(found), ())
        except RefusedError as refused:
            raise RefusedError("unreadable_payload", f"no array at {'.'.join(path)}: {refused.reason}") from None
        turns: Counter[bytes] = Counter()
        for index, pair in enumerate(pairs):
            try:
                moment, value = _pair(pair)
                key = _Moment(bytes(moment), turns[bytes(moment)])
                turns[bytes(moment)] += 1
            except UNREADABLE:
                points[_Moment(name.encode(), index, broken=True)] = {name: pair}
                continue
            points.setdefault(key, {"observed_at": moment})[name] = value
    return points


def _chunks(days: Days, longest: int | None) -> Iterator[Days]:
    """The range in pieces of at most `longest` days."""
    first = days.first
    while first <= days.last:
        last = days.last if longest is None else min(days.last, first + timedelta(days=longest - 1))
        yield Days(first, last)
        first = last + timedelta(days=1)

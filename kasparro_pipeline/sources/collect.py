"""Accounting for one payload: every record ends as an observation, as a duplicate, or in quarantine."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta

import msgspec
import pyarrow as pa

from kasparro_pipeline.sources.fields import RefusedError, shown
from kasparro_pipeline.sources.records import (
    NUMBER_COLUMNS,
    OBSERVATION_SCHEMA,
    Delivery,
    ParsedPayload,
    Quarantined,
)

FIRST_DAY = date(2009, 1, 3)
ROW_COLUMNS = ("source_coin_id", "observed_at", "symbol", "name", *NUMBER_COLUMNS, "rank")
"""What a record says itself, in the order of a `Row`."""
MAX_RECORD_SHOWN = 16_384

Row = tuple[object, ...]
Source = str | bytes | msgspec.Raw
"""A record as it came."""


class Collector:
    """Takes the records of one delivery in their order and keeps the books.

    Of two different records with one key the later one counts and the earlier is quarantined as ``conflict``; of two
    equal ones the first counts and the other is a duplicate.
    """

    def __init__(self, delivery: Delivery, locate: Callable[[int], str], first_day: date = FIRST_DAY) -> None:
        self._delivery = delivery
        self._locate = locate
        self._earliest, self._end = bounds(delivery, first_day)
        self._kept: dict[Row, tuple[int, Row, Source]] = {}
        self._quarantined: list[Quarantined] = []
        self._duplicates = 0

    def take(self, position: int, row: Row, record: Source) -> None:
        """Count `row`, read from `record`.

        Raises:
            RefusedError: its coin or time is missing, or its day is out of bounds; hand it to `refuse`.
        """
        coin, observed_at = row[0], row[1]
        if coin is None:
            raise RefusedError("missing_key", "source_coin_id is missing")
        if not isinstance(observed_at, datetime):
            raise RefusedError("missing_key", "observed_at is missing")
        if observed_at < self._earliest:
            raise RefusedError("before_first_day", f"observed_at {observed_at} is before {self._earliest.date()}")
        if observed_at >= self._end:
            raise RefusedError("future_day", f"observed_at {observed_at} is on a day after it was fetched")
        key = row[:2]
        earlier = self._kept.get(key)
        if earlier is not None:
            if earlier[1] == row:
                self._duplicates += 1
                return
            reason = f"{self._locate(position)} says something else of {shown(str(coin))} at {observed_at}, and counts"
            self.refuse(earlier[0], RefusedError("conflict", reason), earlier[2])
        self._kept[key] = (position, row, record)

    def refuse(self, position: int, refused: RefusedError, record: Source) -> None:
        """Count a record as quarantined."""
        self._quarantined.append(
            Quarantined(position, self._locate(position), refused.code, refused.reason, shown_record(record))
        )

    def parsed(self) -> ParsedPayload:
        """The books, closed."""
        records = len(self._kept) + self._duplicates + len(self._quarantined)
        self._quarantined.sort(key=lambda quarantined: quarantined.position)
        return ParsedPayload(self._table(), records, self._duplicates, self._quarantined)

    def _table(self) -> pa.Table:
        kept = self._kept.values()
        constants = {
            "source": self._delivery.source,
            "fetched_at": self._delivery.fetched_at,
            "payload_sha256": self._delivery.sha256,
        }
        said = list(zip(*(row for _, row, _ in kept), strict=True)) or [()] * len(ROW_COLUMNS)
        columns = dict(zip(ROW_COLUMNS, said, strict=True)) | {"position": tuple(position for position, _, _ in kept)}
        arrays = [
            pa.repeat(pa.scalar(constants[field.name], field.type), len(kept))
            if field.name in constants
            else pa.array(columns[field.name], field.type)
            for field in OBSERVATION_SCHEMA
        ]
        return pa.table(arrays, OBSERVATION_SCHEMA)


def bounds(delivery: Delivery, first_day: date) -> tuple[datetime, datetime]:
    """From when on, and before when, something can have been observed: up to the end of the day it was fetched on."""
    day_after = delivery.fetched_at.astimezone(UTC).date() + timedelta(days=1)
    return datetime.combine(first_day, time(), UTC), datetime.combine(day_after, time(), UTC)


def nothing() -> ParsedPayload:
    """A payload without a record."""
    return ParsedPayload(OBSERVATION_SCHEMA.empty_table(), 0, 0)


def unreadable(delivery: Delivery, refused: RefusedError) -> ParsedPayload:
    """A payload that is refused as a whole: one record, and that one quarantined."""
    quarantined = Quarantined(0, delivery.request, refused.code, refused.reason, shown_record(delivery.body))
    return ParsedPayload(OBSERVATION_SCHEMA.empty_table(), 1, 0, [quarantined])


def shown_record(record: Source) -> str:
    """A record as text that PostgreSQL can hold: bytes that are no UTF-8 and NUL characters are written as escapes."""
    data = _encoded(record) if isinstance(record, str) else bytes(record)
    shown = data[:MAX_RECORD_SHOWN].decode("utf-8", "backslashreplace").replace("\0", "\\x00").strip("\r\n")
    return shown if len(data) <= MAX_RECORD_SHOWN else f"{shown}… ({len(data)} bytes)"


def _encoded(record: str) -> bytes:
    try:
        return record.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # of a file in UTF-16
        return record.encode("utf-8", "surrogatepass")

"""The partitions that sources and unified assets share, and how days are joined into runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from kasparro_pipeline.settings import settings

NEAR_DAYS = 7
"""Days no further apart than this are made in one run."""

ONLY_WAITING = "kasparro/only_waiting"
"""Tag of a run that parses what no parser has parsed yet, and leaves what another version of it has."""

ONLY_TOUCHED = "kasparro/only_touched"
"""Tag of a run of `unified_assets` that makes what was touched of its days, and not all of them."""


def daily() -> dg.DailyPartitionsDefinition:
    """One partition a UTC day, from the first day to today; one definition for all assets that run together."""
    return dg.DailyPartitionsDefinition(start_date=settings().first_day.isoformat(), end_offset=1)


def today() -> str:
    """The partition of this moment."""
    return datetime.now(UTC).date().isoformat()


def drops() -> dg.DynamicPartitionsDefinition:
    """One partition a CSV drop: its path below the drop folder."""
    return dg.DynamicPartitionsDefinition(name="csv_drops")


def day_ranges(days: Iterable[date], apart: Collection[date] = ()) -> list[tuple[date, date]]:
    """First and last day of each group of near days, in order; no group reaches over a day of `apart`."""
    ranges: list[tuple[date, date]] = []
    for day in sorted(days):
        near = bool(ranges) and day - ranges[-1][1] <= timedelta(days=NEAR_DAYS)
        if near and not any(ranges[-1][1] < between < day for between in apart):
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges

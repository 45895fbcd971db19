"""The partitions that sources and unified assets share, and how partitions are joined into runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from kasparro_pipeline.settings import settings

NEAR_DAYS = 7
"""Days no further apart than this are made in one run."""

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
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


def range_tags(start: str, end: str) -> dict[str, str]:
    """Tags of a run over the partitions from `start` to `end`."""
    return {RANGE_START: start, RANGE_END: end}


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


def key_ranges(keys: Iterable[str], order: Sequence[str]) -> list[tuple[str, str]]:
    """First and last key of each group of `keys` that stand side by side in `order`."""
    place = {key: index for index, key in enumerate(order)}
    ranges: list[tuple[str, str]] = []
    for key in sorted(keys, key=place.__getitem__):
        if ranges and place[key] == place[ranges[-1][1]] + 1:
            ranges[-1] = (ranges[-1][0], key)
        else:
            ranges.append((key, key))
    return ranges

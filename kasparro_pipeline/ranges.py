"""Runs, and ranges of partitions that they are over: how Dagster is told of one, and how keys are joined into few."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SOURCE_TAG = "kasparro/source"
"""Of a run: its source; the source's job sets it."""
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def range_tags(start: str, end: str) -> dict[str, str]:
    """Tags of a run over the partitions from `start` to `end`."""
    return {RANGE_START: start, RANGE_END: end}


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

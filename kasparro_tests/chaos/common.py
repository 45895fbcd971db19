"""What the drills have in common: how they speak, and how their server runs."""

from __future__ import annotations

from collections.abc import Mapping

FIRST_DAY = "2026-09-01"  # few partitions, which Dagster goes through again and again
OPTIONS = {"fsync": "off"}  # a killed server loses nothing that the operating system has; commits stay synchronous


class ChaosError(Exception):
    """Something that must not happen, in one line."""


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)  # noqa: T201


def in_words(counts: Mapping[str, int]) -> str:
    """The counts with their names."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())

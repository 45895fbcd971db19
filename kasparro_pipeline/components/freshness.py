"""How old a source's newest payload may be before people are warned, and before it counts as late."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import dagster as dg
from dagster._utils.schedules import cron_string_iterator, is_valid_cron_string
from pydantic import model_validator

from kasparro_pipeline.components.yaml_types import Count

WARN_AFTER = 3
FAIL_AFTER = 12
"""Times the longest pause between two ticks of the source's schedule."""
LOOKED_AT_TICKS = 200


class Freshness(dg.Model, dg.Resolvable):
    """Minutes since the newest materialization after which an asset is shown as about to be late, and as late."""

    warn_minutes: Count
    fail_minutes: Count

    @model_validator(mode="after")
    def _warns_first(self) -> Freshness:
        if not 0 < self.warn_minutes < self.fail_minutes:
            raise ValueError("freshness: warn_minutes must be at least 1, and less than fail_minutes")
        return self

    @classmethod
    def of_interval(cls, interval: timedelta) -> Freshness:
        """What is expected of a source that is fetched every so often."""
        minutes = max(1, round(interval / timedelta(minutes=1)))
        return cls(warn_minutes=WARN_AFTER * minutes, fail_minutes=FAIL_AFTER * minutes)

    @property
    def late_after(self) -> timedelta:
        """From when on it is late."""
        return timedelta(minutes=self.fail_minutes)

    def policy(self) -> dg.FreshnessPolicy:
        """As Dagster shows it."""
        return dg.FreshnessPolicy.time_window(
            fail_window=self.late_after, warn_window=timedelta(minutes=self.warn_minutes)
        )


def longest_pause(cron: str) -> timedelta:
    """The longest time between two ticks, as far as the next `LOOKED_AT_TICKS` of them tell.

    Raises:
        ValueError: `cron` is none.
    """
    if not is_valid_cron_string(cron):
        raise ValueError(f"{cron!r} is no cron line; write five fields, such as '*/15 * * * *'")
    ticks = islice(cron_string_iterator(datetime.now(UTC).timestamp(), cron, "UTC"), LOOKED_AT_TICKS)
    return max(later - earlier for earlier, later in pairwise(ticks))

"""Another try of a step, where what failed may pass by itself and nobody stands by to try again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import psycopg
import sqlalchemy as sa

from kasparro_pipeline.errors import KasparroError

MAX_RETRIES = 2
FIRST_WAIT_SECONDS = 30.0
GROWTH = 4
"""Each further wait is so many times as long. Up to half is added by chance, so that not all come back at once."""

_STARTED_BY_ITSELF = ("dagster/schedule_name", "dagster/sensor_name", "dagster/backfill")


@contextmanager
def retried(context: dg.OutputContext) -> Iterator[None]:
    """Have Dagster try the step again when it fails by what `can_pass`, in a run that started by itself.

    Raises:
        dagster.RetryRequested: instead of such an error.
    """
    try:
        yield
    except Exception as error:
        if not can_pass(error) or not any(tag in context.step_context.dagster_run.tags for tag in _STARTED_BY_ITSELF):
            raise
        wait = FIRST_WAIT_SECONDS * GROWTH**context.step_context.previous_attempt_count
        wait *= random.uniform(1, 1.5)  # noqa: S311 - no secret
        raise dg.RetryRequested(max_retries=MAX_RETRIES, seconds_to_wait=wait) from error


def can_pass(error: BaseException) -> bool:
    """Whether it is of the vendor or of the way to it, or the database is away; what a person has to mend is not."""
    if isinstance(error, KasparroError):
        return error.can_pass
    return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError | psycopg.OperationalError)

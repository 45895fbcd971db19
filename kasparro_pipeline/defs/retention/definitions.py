"""The job that forgets once a day what is older than the settings say."""

import dagster as dg

from kasparro_pipeline.retention import prune
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.database import current_engine

JOB = "retention"


@dg.op(name="prune")
def _prune(context: dg.OpExecutionContext) -> None:
    pruned = prune(current_engine(), context.instance, settings()).as_dict()
    context.log.info("removed: " + ", ".join(f"{table} {rows:,}" for table, rows in pruned.items()))


@dg.job(name=JOB, description="Removes what is older than the KASPARRO_…_DAYS settings say.")
def _retention() -> None:
    _prune()


@dg.schedule(
    name=f"{JOB}_daily",
    job=_retention,
    cron_schedule="40 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Forgets what is old, where a setting says so, and brings the planner's statistics up to date.",
)
def _daily(_: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    return dg.RunRequest()


@dg.definitions
def defs() -> dg.Definitions:
    """A job and its schedule."""
    return dg.Definitions(jobs=[_retention], schedules=[_daily])

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
    description="Forgets what is old, where a setting says so.",
)
def _daily(_: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    chosen = settings()
    days = (chosen.history_days, chosen.observation_days, chosen.payload_days, chosen.event_days, chosen.run_days)
    if any(days):
        return dg.RunRequest()
    return dg.SkipReason("everything is kept for good")


@dg.definitions
def defs() -> dg.Definitions:
    """A job and its schedule."""
    return dg.Definitions(jobs=[_retention], schedules=[_daily])

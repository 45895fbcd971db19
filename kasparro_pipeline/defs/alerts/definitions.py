"""The sensor that looks every half a minute for what went wrong and what is well again, and tells people once."""

from collections.abc import Iterable, Iterator, Sequence

import dagster as dg
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG

from kasparro_pipeline.alerts.channels import Channel, channels, message_of
from kasparro_pipeline.alerts.incidents import FailedRun, Watched, standing
from kasparro_pipeline.alerts.record import News, take_note, tell
from kasparro_pipeline.components.all_sources import watched_sources
from kasparro_pipeline.components.partitions import drops
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.ranges import RANGE_END, RANGE_START
from kasparro_pipeline.services import local_url
from kasparro_pipeline.settings import settings
from kasparro_pipeline.sources.drops import find_drops
from kasparro_pipeline.warehouse.database import current_engine

WILL_RETRY = "dagster/will_retry"
"""Tag of a failed run that Dagster itself starts again."""
RUNS_LOOKED_AT = 200
"""Of each job; a file that failed before them is taken for settled."""
_FINISHED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
NOT_SET = (
    "no channel is set, so nobody is told; set KASPARRO_ALERT_WEBHOOK_URL, "
    "or KASPARRO_ALERT_EMAIL_TO and KASPARRO_SMTP_URL"
)


@dg.definitions
def defs(context: dg.ComponentLoadContext) -> dg.Definitions:
    """The sensor knows the schedules and budgets of all sources."""
    watched = watched_sources(context)

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells people once of failed runs and checks, late sources, drift, spent budgets and grown "
        "quarantine, and once more when it is over.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        try:
            chosen = channels(settings())
        except KasparroError as error:
            return dg.SkipReason(f"nobody is told: {error}")
        if not chosen:
            return dg.SkipReason(NOT_SET)
        jobs = context.repository_def.job_names if context.repository_def else []
        problems = look_and_tell(context.instance, jobs, watched, chosen)
        for problem in problems:
            context.log.warning(problem)
        return dg.SkipReason("; ".join(problems) or "everything that there is to tell is told")

    return dg.Definitions(sensors=[alerts])


def look_and_tell(
    instance: dg.DagsterInstance, jobs: Iterable[str], watched: list[Watched], chosen: list[Channel]
) -> list[str]:
    """Record what has become wrong or well, and tell it; why it could not be told, a line a channel."""
    failed = failed_runs(instance, jobs)
    with current_engine().begin() as connection:
        take_note(connection, standing(connection, watched, failed), [channel.name for channel in chosen])
    return [problem for channel in chosen if (problem := _tell(channel))]


def failed_runs(instance: dg.DagsterInstance, jobs: Iterable[str]) -> list[FailedRun]:
    """The jobs whose newest finished run has failed and will not be started again by Dagster.

    Of a job over files each file counts for itself, until it is loaded or no longer there: that another one is well
    says nothing of it.

    Assets materialized by their automation condition count each for itself. Those that somebody materialized by hand do
    not: whoever did it sees how it ends.
    """
    found = []
    for job in sorted(jobs):
        if not job.startswith("__"):
            runs = instance.get_runs(dg.RunsFilter(job_name=job, statuses=_FINISHED), limit=RUNS_LOOKED_AT)
            found += list(_still_failed(instance, runs))
    return [*found, *_failed_automations(instance)]


def _failed_automations(instance: dg.DagsterInstance) -> Iterator[FailedRun]:
    by_condition = dg.RunsFilter(tags={AUTOMATION_CONDITION_TAG: "true"}, statuses=_FINISHED)
    settled: set[dg.AssetKey] = set()
    for run in instance.get_runs(by_condition, limit=RUNS_LOOKED_AT):
        assets = set(run.asset_selection or ()) - settled
        if assets and run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(WILL_RETRY) != "true":
            yield FailedRun(", ".join(sorted(asset.to_user_string() for asset in assets)), run.run_id)
        settled |= assets


def _still_failed(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> Iterator[FailedRun]:
    """Those of a job's `runs`, newest first, that have failed with nothing better after them."""
    known = instance.get_dynamic_partitions(drops().name or "")
    places = {key: place for place, key in enumerate(known)}
    settled: set[str] = set()
    there: set[str] | None = None
    for run in runs:
        failed = run.status is dg.DagsterRunStatus.FAILURE and run.tags.get(WILL_RETRY) != "true"
        first, last = run.tags.get(RANGE_START, ""), run.tags.get(RANGE_END, "")
        if first not in places or last not in places:  # days
            if failed and not settled:
                yield FailedRun(run.job_name, run.run_id)
            return
        files = set(known[places[first] : places[last] + 1])
        if failed and files - settled:
            if there is None:
                there = {drop.partition for drop in find_drops(settings().drop_dir)}
            if (files - settled) & there:
                yield FailedRun(f"{run.job_name} {first}" + (f"...{last}" if last != first else ""), run.run_id)
        settled |= files


def dagster_public_url() -> str:
    """Where people reach the Dagster UI."""
    chosen = settings()
    return chosen.dagster_public_url or local_url(chosen.host, chosen.dagster_port)


def _tell(channel: Channel) -> str | None:
    def send(news: list[News]) -> None:
        channel.send(message_of(news, dagster_public_url()))

    with current_engine().begin() as connection:
        return tell(connection, channel.name, send)

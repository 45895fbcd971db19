"""From observations to one row per coin and day, and the sensor that runs it for the days touched."""

from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kasparro_pipeline.components.all_sources import (
    declared_priorities,
    observations_and_sources,
    observations_of_all,
    soonest_freshness,
    source_priorities,
)
from kasparro_pipeline.components.column_lineage import lineage_metadata, unified_origins
from kasparro_pipeline.components.freshness import Freshness
from kasparro_pipeline.components.partitions import ONLY_TOUCHED, daily, day_ranges, today
from kasparro_pipeline.defs.unified_assets.checks import checks_of, report_failed
from kasparro_pipeline.io_managers.postgres import PARTITION_COLUMN, REPLACE, TABLE, Load
from kasparro_pipeline.ranges import range_tags
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.rules import ChecksFailedError, days_that_fail
from kasparro_pipeline.warehouse.statistics import analyze
from kasparro_pipeline.warehouse.tables import coin, coin_identity, observation, unified_assets
from kasparro_pipeline.warehouse.touched import due_days
from kasparro_pipeline.warehouse.unification import Unification
from kasparro_pipeline.warehouse.unify import rule_version

JOB = "unify"
ONLY_WHAT_IS_DUE = {ONLY_TOUCHED: "true"}
"""Tags of a run for `touched_ranges`."""
RETRY_AFTER = timedelta(minutes=5)
"""After a failed run the sensor waits this long before it starts the next."""
WAITS_FOR = timedelta(hours=1)
"""So long at most the sensor waits for the end of a run, which may be one that nobody can tell of (`run_health`)."""

_TABLES = {"coins": coin, "coin_identity": coin_identity, "unified_assets": unified_assets}
_GOING = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dg.definitions
def defs(context: dg.ComponentLoadContext) -> dg.Definitions:
    """The assets stand on the observations of every source there is."""
    deps = observations_of_all(context)
    observed = [checks_of(observation, asset, pattern) for asset, pattern in observations_and_sources(context)]
    ours = [checks_of(table, [name]) for name, table in _TABLES.items()]
    # The checks on observations run again here, on the days to be unified, because a check blocks within a run only.
    selection = dg.AssetSelection.assets(*_TABLES) | dg.AssetSelection.checks(
        *(k for c in observed for k in c.check_keys)
    )
    job = dg.define_asset_job(JOB, selection=selection)
    return dg.Definitions(
        assets=[_unified_assets(declared_priorities(context), deps, soonest_freshness(context))],
        asset_checks=[*observed, *ours],
        jobs=[job],
        sensors=[_touched_days(job)],
    )


def _unified_assets(
    priorities: dict[str, int], deps: list[dg.AssetDep], freshness: Freshness | None
) -> dg.AssetsDefinition:
    version = rule_version(priorities)
    origins = unified_origins(dep.asset_key for dep in deps)

    @dg.asset(
        key="unified_assets",
        description="The unified asset table: one row per coin and day, chosen by the rule in unify.sql.",
        deps=["coins", "coin_identity", *deps],
        partitions_def=daily(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="postgres",
        freshness_policy=freshness.policy() if freshness else None,
        group_name="unified",
        kinds={"postgres"},
        code_version=version,
        metadata={
            TABLE: unified_assets.fullname,
            PARTITION_COLUMN: "day",
            REPLACE: True,
            **lineage_metadata(unified_assets, origins),
        },
    )
    def unified(context: dg.AssetExecutionContext) -> dg.Output[Load]:
        analyze(current_engine(), only_grown=True)
        start, end = context.partition_time_window
        run = Unification(
            start.date(),
            end.date(),
            version,
            source_priorities(priorities),
            context.run.run_id,
            only_touched=ONLY_TOUCHED in context.run.tags,
        )

        def failed(error: BaseException) -> None:
            if isinstance(error, ChecksFailedError):
                report_failed(context, unified_assets, error.found)

        return dg.Output(Load(run.frames, before_commit=run.commit, parts=run.windows, on_error=failed))

    return unified


def _touched_days(job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name="touched_days",
        job=job,
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes unified_assets again for exactly the days whose observations or identities changed.",
    )
    def touched_days(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        for record in context.instance.get_run_records(dg.RunsFilter(job_name=JOB), limit=1):
            status, age = record.dagster_run.status, datetime.now(UTC) - record.update_timestamp.replace(tzinfo=UTC)
            if status in _GOING and age < WAITS_FOR:
                return dg.SensorResult(skip_reason="a run is under way")
            if status is dg.DagsterRunStatus.FAILURE and age < RETRY_AFTER:
                wait = (RETRY_AFTER - age).seconds
                return dg.SensorResult(skip_reason=f"the last run failed; trying again in {wait} s")
        ranges = touched_ranges()
        if not ranges:
            return dg.SensorResult(skip_reason="no day was touched")
        return dg.SensorResult(
            run_requests=[dg.RunRequest(tags=range_tags(*pair) | ONLY_WHAT_IS_DUE) for pair in ranges]
        )

    return touched_days


def touched_ranges() -> list[tuple[str, str]]:
    """The days to be made again, near ones joined: first and last partition of each range.

    A day that failed a blocking check is a range of its own, and comes last, so that it stops no other.
    """
    with current_engine().connect() as connection:
        failing = days_that_fail(connection)
        days = [day for day in due_days(connection, failing) if day.isoformat() <= today()]
    ranges = day_ranges([day for day in days if day not in failing], apart=failing)
    ranges += [(day, day) for day in days if day in failing]
    return [(first.isoformat(), last.isoformat()) for first, last in ranges]

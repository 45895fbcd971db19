"""From observations to one row per coin and day, and the sensor that runs it for the days touched."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kasparro_pipeline.components.all_sources import declared_priorities, observations_of_all, source_priorities
from kasparro_pipeline.components.partitions import daily, day_ranges, range_tags
from kasparro_pipeline.io_managers.postgres import PARTITION_COLUMN, REPLACE, TABLE, Load, column_schema
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.merge import Merged
from kasparro_pipeline.warehouse.tables import touched_day, unified_assets

JOB = "unify"
RETRY_AFTER = timedelta(minutes=5)
"""After a failed run the sensor waits this long before it starts the next."""

_SQL = (Path(__file__).parent / "unify.sql").read_text(encoding="utf-8")
_COLUMNS = (
    *("coin_id", "day", "symbol", "name", "price_usd", "market_cap_usd", "volume_24h_usd", "circulating_supply"),
    *("total_supply", "max_supply", "rank", "price_source", "source_count", "sources", "price_spread_pct", "flags"),
    "observed_at",
)
"""What unify.sql selects, in its order."""
_GOING = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dg.definitions
def defs(context: dg.ComponentLoadContext) -> dg.Definitions:
    """The assets stand on the observations of every source there is."""
    job = dg.define_asset_job(JOB, selection=dg.AssetSelection.assets("coins", "coin_identity", "unified_assets"))
    unified = _unified_assets(declared_priorities(context), observations_of_all(context))
    return dg.Definitions(assets=[unified], jobs=[job], sensors=[_touched_days(job)])


def _unified_assets(priorities: dict[str, int], deps: list[dg.AssetDep]) -> dg.AssetsDefinition:
    @dg.asset(
        key="unified_assets",
        description="The unified asset table: one row per coin and day, chosen by the rule in unify.sql.",
        deps=["coins", "coin_identity", *deps],
        partitions_def=daily(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="postgres",
        group_name="unified",
        kinds={"postgres"},
        code_version=hashlib.sha256(_SQL.encode()).hexdigest()[:12],
        metadata={
            TABLE: unified_assets.fullname,
            PARTITION_COLUMN: "day",
            REPLACE: True,
            "dagster/column_schema": column_schema(unified_assets),
        },
    )
    def unified(context: dg.AssetExecutionContext) -> dg.Output[Load]:
        start, end = context.partition_time_window
        seen = _touched_between(start, end)

        def before_commit(connection: sa.Connection, _: Merged) -> None:
            connection.execute(sa.delete(touched_day).where(touched_day.c.id.in_(seen)))

        return dg.Output(Load([unify(start, end, source_priorities(priorities))], before_commit=before_commit))

    return unified


def unify(start: datetime, end: datetime, priorities: dict[str, int]) -> sa.TextualSelect:
    """The rows of `unified_assets` for the days from `start` to before `end`, by the rule in ``unify.sql``."""
    bound = sa.text(_SQL).bindparams(
        start=start, end=end, sources=list(priorities), priorities=list(priorities.values())
    )
    return bound.columns(*(sa.column(name, unified_assets.c[name].type) for name in _COLUMNS))


def _touched_days(job: UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    @dg.sensor(
        name="touched_days",
        job=job,
        minimum_interval_seconds=15,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes unified_assets again for exactly the days whose observations or identities changed.",
    )
    def touched_days(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        runs = context.instance.get_runs(dg.RunsFilter(job_name=JOB), limit=1)
        if runs and runs[0].status in _GOING:
            return dg.SensorResult(skip_reason="a run is under way")
        records = context.instance.get_run_records(dg.RunsFilter(job_name=JOB), limit=1)
        if records and records[0].dagster_run.status is dg.DagsterRunStatus.FAILURE:
            wait = records[0].update_timestamp.replace(tzinfo=UTC) + RETRY_AFTER - datetime.now(UTC)
            if wait > timedelta(0):
                return dg.SensorResult(skip_reason=f"the last run failed; trying again in {wait.seconds} s")
        ranges = touched_ranges()
        if not ranges:
            return dg.SensorResult(skip_reason="no day was touched")
        return dg.SensorResult(run_requests=[dg.RunRequest(tags=range_tags(*pair)) for pair in ranges])

    return touched_days


def touched_ranges() -> list[tuple[str, str]]:
    """The touched days, near ones joined: first and last partition of each range."""
    with current_engine().connect() as connection:
        days = connection.scalars(sa.select(touched_day.c.day).distinct()).all()
    return [(first.isoformat(), last.isoformat()) for first, last in day_ranges(days)]


def _touched_between(start: datetime, end: datetime) -> Sequence[int]:
    """Ids of what is to be done for these days; what is touched from now on stays for the next run."""
    query = sa.select(touched_day.c.id).where(touched_day.c.day >= start.date(), touched_day.c.day < end.date())
    with current_engine().connect() as connection:
        return connection.scalars(query).all()

"""From observations to one row per coin and day, and the sensor that runs it for the days touched."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pandas as pd
import sqlalchemy as sa
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from kasparro_pipeline.components import ApiSource, CsvSource
from kasparro_pipeline.components.column_lineage import lineage_metadata, unified_origins
from kasparro_pipeline.components.observations import touch_days
from kasparro_pipeline.components.partitions import daily, day_ranges, range_tags, today
from kasparro_pipeline.defs.unified_assets.checks import checks_of
from kasparro_pipeline.identity.match import Identity, SourceCoin, curated_overrides, identify
from kasparro_pipeline.io_managers.postgres import PARTITION_COLUMN, REPLACE, TABLE, Load, column_schema
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.merge import Merged
from kasparro_pipeline.warehouse.rules import days_that_fail
from kasparro_pipeline.warehouse.tables import (
    coin,
    coin_identity,
    observation,
    source_coin,
    touched_day,
    unified_assets,
)
from kasparro_pipeline.warehouse.unify import due_days, record, rule_version, unify

JOB = "unify"
RETRY_AFTER = timedelta(minutes=5)
"""After a failed run the sensor waits this long before it starts the next."""

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
    api = context.component_tree.get_all_components(ApiSource)
    files = context.component_tree.get_all_components(CsvSource)
    priorities = component_priorities(api, files)
    deps = [dg.AssetDep([source.source, "observations"]) for source in api]
    deps += [dg.AssetDep([source.name, "observations"], partition_mapping=dg.AllPartitionMapping()) for source in files]
    observed = [checks_of(observation, [source.source, "observations"], source.source) for source in api]
    observed += [checks_of(observation, [source.name, "observations"], "csv\\_%") for source in files]
    ours = [checks_of(table, [name]) for name, table in _TABLES.items()]
    # The checks on observations run again here, on the days to be unified, because a check blocks within a run only.
    selection = dg.AssetSelection.assets(*_TABLES) | dg.AssetSelection.checks(
        *(k for c in observed for k in c.check_keys)
    )
    job = dg.define_asset_job(JOB, selection=selection)
    return dg.Definitions(
        assets=[_coins(priorities, deps), _unified_assets(priorities, deps)],
        asset_checks=[*observed, *ours],
        jobs=[job],
        sensors=[_touched_days(job)],
    )


def component_priorities(api: Iterable[ApiSource], files: Iterable[CsvSource]) -> dict[str, int]:
    """What the components say of whose word is taken sooner."""
    return {source.source: source.priority for source in api} | {source.name: source.priority for source in files}


def _coins(priorities: dict[str, int], deps: list[dg.AssetDep]) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name="coins",
        outs={
            "coins": dg.AssetOut(
                key="coins",
                description="One crypto asset, whatever the sources call it.",
                io_manager_key="postgres",
                metadata={TABLE: coin.fullname, "dagster/column_schema": column_schema(coin)},
                kinds={"postgres"},
                code_version="1",
            ),
            "coin_identity": dg.AssetOut(
                key="coin_identity",
                description="Which coin each source's coin is, by which method, with what confidence and evidence.",
                io_manager_key="postgres",
                metadata={TABLE: coin_identity.fullname, "dagster/column_schema": column_schema(coin_identity)},
                kinds={"postgres"},
                code_version="1",
            ),
        },
        deps=deps,
        group_name="unified",
    )
    def coins() -> tuple[pd.DataFrame, Load]:
        named, before = _read_coins()
        existing = {key: coin_id for key, coin_id in before.items() if coin_id is not None}
        identities = identify(named.values(), curated_overrides(), _source_priorities(priorities), existing)
        moved = [i for i in identities if existing.get((i.source, i.source_coin_id), i.coin_id) != i.coin_id]
        return _coin_rows(identities, named), Load([_identity_rows(identities)], before_commit=_after_identity(moved))

    return coins


def _unified_assets(priorities: dict[str, int], deps: list[dg.AssetDep]) -> dg.AssetsDefinition:
    version = rule_version(priorities)
    origins = unified_origins(dep.asset_key for dep in deps)

    @dg.asset(
        key="unified_assets",
        description="The unified asset table: one row per coin and day, chosen by the rule in unify.sql.",
        deps=["coins", "coin_identity", *deps],
        partitions_def=daily(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        io_manager_key="postgres",
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
        start, end = context.partition_time_window
        seen = _touched_between(start, end)
        of_sources = _source_priorities(priorities)

        def before_commit(connection: sa.Connection, merged: Merged) -> None:
            connection.execute(sa.delete(touched_day).where(touched_day.c.id.in_(seen)))
            record(connection, merged, start, end, version=version, priorities=of_sources, run_id=context.run.run_id)

        return dg.Output(Load(unify(start, end, of_sources), before_commit=before_commit))

    return unified


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
    """The days to be made again, near ones joined: first and last partition of each range.

    A day that failed a blocking check is a range of its own, and comes last, so that it stops no other.
    """
    with current_engine().connect() as connection:
        failing = days_that_fail(connection)
        days = [day for day in due_days(connection, failing) if day.isoformat() <= today()]
    ranges = day_ranges([day for day in days if day not in failing], apart=failing)
    ranges += [(day, day) for day in days if day in failing]
    return [(first.isoformat(), last.isoformat()) for first, last in ranges]


def _touched_between(start: datetime, end: datetime) -> Sequence[int]:
    """Ids of what is to be done for these days; what is touched from now on stays for the next run."""
    query = sa.select(touched_day.c.id).where(touched_day.c.day >= start.date(), touched_day.c.day < end.date())
    with current_engine().connect() as connection:
        return connection.scalars(query).all()


def _read_coins() -> tuple[dict[tuple[str, str], SourceCoin], dict[tuple[str, str], str | None]]:
    """What the sources call their coins, and the coin each of them is so far."""
    query = sa.select(
        source_coin.c.source,
        source_coin.c.source_coin_id,
        source_coin.c.symbol,
        source_coin.c.name,
        coin_identity.c.coin_id,
    ).join_from(
        source_coin,
        coin_identity,
        (source_coin.c.source == coin_identity.c.source)
        & (source_coin.c.source_coin_id == coin_identity.c.source_coin_id),
        isouter=True,
    )
    named: dict[tuple[str, str], SourceCoin] = {}
    before: dict[tuple[str, str], str | None] = {}
    with current_engine().connect() as connection:
        for source, source_coin_id, symbol, name, coin_id in connection.execute(query):
            named[source, source_coin_id] = SourceCoin(source, source_coin_id, symbol, name)
            before[source, source_coin_id] = coin_id
    return named, before


def _source_priorities(priorities: dict[str, int]) -> dict[str, int]:
    """Priority of every source with observations: each drop folder has that of the component it belongs to."""
    with current_engine().connect() as connection:
        sources = connection.scalars(sa.select(source_coin.c.source).distinct()).all()
    return {
        source: priorities.get(source, priorities.get("csv_drops", 1000) if source.startswith("csv_") else 1000)
        for source in sources
    }


def _coin_rows(identities: list[Identity], named: dict[tuple[str, str], SourceCoin]) -> pd.DataFrame:
    """One row a coin, named as its first member is."""
    rows: dict[str, tuple[str, str | None, str | None]] = {}
    for identity in identities:
        member = named[identity.source, identity.source_coin_id]
        if identity.coin_id not in rows or rows[identity.coin_id][1] is None:
            rows[identity.coin_id] = (identity.coin_id, member.symbol, member.name)
    return pd.DataFrame(rows.values(), columns=["coin_id", "symbol", "name"], dtype=object)


def _identity_rows(identities: list[Identity]) -> pd.DataFrame:
    columns = list(Identity.__dataclass_fields__)
    rows = [tuple(getattr(identity, name) for name in columns) for identity in identities]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def _after_identity(moved: list[Identity]) -> Any:  # noqa: ANN401 - a function for Load
    """Touch the days of coins that became another one, and drop coins that are none any more."""

    def before_commit(connection: sa.Connection, _: Merged) -> None:
        for identity in moved:
            days = sa.select(sa.cast(sa.func.timezone("UTC", observation.c.observed_at), sa.Date)).where(
                observation.c.source == identity.source, observation.c.source_coin_id == identity.source_coin_id
            )
            touch_days(connection, connection.scalars(days.distinct()))
        unused = ~sa.exists().where(coin_identity.c.coin_id == coin.c.coin_id)
        connection.execute(sa.delete(coin).where(unused))

    return before_commit

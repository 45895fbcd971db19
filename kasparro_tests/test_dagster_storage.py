"""Dagster's event log as we keep it: what a run over many partitions leaves in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster_postgres.event_log import PostgresEventLogStorage

from kasparro_pipeline.dagster_storage import APPLICATION_NAME, dagster_url
from kasparro_pipeline.services import environment, make_dagster_home
from kasparro_pipeline.settings import settings

DAYS = dg.DailyPartitionsDefinition("2025-01-01", end_date="2025-09-01")
PLANNED = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
TAGS = {"dagster/asset_partition_range_start": "2025-01-01", "dagster/asset_partition_range_end": "2025-08-31"}


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def first() -> None:
    """One of two, so that planned events of two assets come in one batch."""


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run(), deps=[first])
def second() -> None:
    """The other."""


@pytest.fixture
def instance(database: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("KASPARRO_HOME", str(tmp_path))
    settings.cache_clear()
    make_dagster_home(settings())
    for name, value in environment(settings()).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        yield instance
        instance.event_log_storage._engine.dispose()


def test_a_range_is_planned_and_materialized_for_each_partition(instance: dg.DagsterInstance) -> None:
    assert int(os.environ["DAGSTER_EVENT_BATCH_SIZE"]) > 1
    definitions = dg.Definitions(assets=[first, second], executor=dg.in_process_executor)
    run = definitions.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, tags=TAGS)
    days = set(DAYS.get_partition_keys())
    assert len(days) == 243
    for asset in (first, second):
        assert instance.get_materialized_partitions(asset.key) == days
        planned = instance.get_records_for_run(run.run_id, of_type=PLANNED).records
        assert sorted(r.partition_key for r in planned if r.asset_key == asset.key) == sorted(days)
        (record,) = instance.get_asset_records([asset.key])
        assert record.asset_entry.last_run_id == run.run_id


def test_connections_are_kept_and_outlive_the_server_closing_them(instance: dg.DagsterInstance) -> None:
    engine = sa.create_engine(dagster_url(), isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    kept = f"FROM pg_stat_activity WHERE datname = current_database() AND application_name = '{APPLICATION_NAME}'"
    assert instance.get_asset_keys() == instance.get_asset_keys() == []
    with engine.connect() as connection:
        assert connection.exec_driver_sql(f"SELECT count(*) {kept}").scalar() == 1
        connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) {kept}")
    assert instance.get_asset_keys() == []


def test_a_run_has_failed_before_the_event_that_says_so_can_be_seen(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, seen = PostgresEventLogStorage.store_event, []

    def look(storage: PostgresEventLogStorage, event: dg.EventLogEntry) -> None:
        run = instance.get_run_by_id(event.run_id)
        seen.append((event.dagster_event_type, run and run.status))
        store(storage, event)

    monkeypatch.setattr(PostgresEventLogStorage, "store_event", look)
    run = instance.create_run_for_job(dg.JobDefinition(graph_def=dg.GraphDefinition(name="nothing")))
    instance.report_run_failed(run)
    assert seen == [(dg.DagsterEventType.RUN_FAILURE, dg.DagsterRunStatus.FAILURE)]
    (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
    assert record.dagster_run.tags["dagster/will_retry"] == "true"
    assert record.end_time

"""Forgetting in Dagster's tables, as the asset does it: what was materialized stays known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
import pytest
import sqlalchemy as sa

from kasparro_pipeline.defs.retention import definitions as retention
from kasparro_pipeline.load import Loader
from kasparro_pipeline.retention import Pruned
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.tables import delivery, observation, raw_payload
from kasparro_tests.test_load import Environment, kasparro

COUNTS = "SELECT (SELECT count(*) FROM dagster.event_logs), (SELECT count(*) FROM dagster.runs)"


@pytest.fixture(scope="module")
def place(
    server: sa.URL, template: sa.URL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Environment, Loader]]:
    """A file loaded twice, replaced in between; then everything is made a hundred days older."""
    nowhere = "http://127.0.0.1:1"
    with kasparro(server, template, tmp_path_factory.mktemp("place"), nowhere, nowhere) as environment_:
        loader = Loader()
        (environment_.drop_dir / "desk").mkdir()
        for price in ("1.5", "2.5"):
            rows = "".join(f"ZZZ,Some Coin,2026-11-{day:02},{price}\n" for day in range(1, 9))
            (environment_.drop_dir / "desk" / "a.csv").write_text(f"symbol,name,date,price\n{rows}")
            report = loader.load(["csv_desk"])
            assert not report.failed, report
        with environment_.engine.begin() as connection:
            old = "- interval '100 days'"
            connection.exec_driver_sql(f"UPDATE dagster.event_logs SET timestamp = timestamp {old}")
            connection.exec_driver_sql(f"UPDATE dagster.runs SET update_timestamp = update_timestamp {old}")
            connection.exec_driver_sql(f"UPDATE kasparro.delivery SET fetched_at = fetched_at {old}")
            connection.exec_driver_sql(f"UPDATE kasparro.observation SET fetched_at = fetched_at {old}")
        yield environment_, loader


def run(monkeypatch: pytest.MonkeyPatch, loader: Loader, **days: int) -> None:
    """The asset in Dagster, with these settings."""
    for name, value in days.items():
        monkeypatch.setenv(f"KASPARRO_{name.upper()}_DAYS", str(value))
    settings.cache_clear()
    job = loader._definitions.resolve_implicit_global_asset_job_def()
    assert job.execute_in_process(instance=loader._instance, asset_selection=[retention.retention.key]).success


def counts(environment_: Environment) -> tuple[int, int]:
    with environment_.engine.connect() as connection:
        return tuple(connection.exec_driver_sql(COUNTS).one())


def materialized(loader: Loader) -> dict[str, set[str]]:
    keys = ("csv_drops/raw", "csv_drops/observations", "unified_assets")
    return {key: loader._instance.get_materialized_partitions(dg.AssetKey.from_user_string(key)) for key in keys} | {
        "coins": {str(loader._instance.get_latest_materialization_event(dg.AssetKey("coins")) is not None)}
    }


def test_what_is_old_is_forgotten_and_nothing_that_is_needed(place, monkeypatch: pytest.MonkeyPatch) -> None:
    environment_, loader = place
    known = materialized(loader)
    assert known["csv_drops/raw"] == {"desk/a.csv"}
    assert len(known["unified_assets"]) == 8
    before = counts(environment_)
    run(monkeypatch, loader, event=0)
    after = counts(environment_)
    assert after[1] == before[1] + 1  # its own run, and nothing else happened
    assert after[0] > before[0]
    run(monkeypatch, loader, event=101)
    assert counts(environment_)[0] > after[0]
    run(monkeypatch, loader, event=90)
    assert counts(environment_)[0] < after[0]
    assert materialized(loader) == known
    runs = counts(environment_)[1]
    run(monkeypatch, loader, run=90)
    assert counts(environment_)[1] < runs
    assert materialized(loader) == known

    payloads = environment_.count(raw_payload)
    run(monkeypatch, loader, payload=90)
    assert environment_.count(raw_payload) < payloads
    with environment_.engine.connect() as connection:
        stored = connection.exec_driver_sql("SELECT o::text FROM kasparro.observation o ORDER BY 1").all()
        connection.execute(sa.update(delivery).values(parser_version="old"))
        connection.commit()
        report = loader.reprocess()
        assert not report.failed, report
        assert connection.exec_driver_sql("SELECT o::text FROM kasparro.observation o ORDER BY 1").all() == stored


def test_the_planner_knows_the_partitioned_tables_after_it(place, monkeypatch: pytest.MonkeyPatch) -> None:
    environment_, loader = place
    run(monkeypatch, loader, event=0)
    with environment_.engine.connect() as connection:
        counted = connection.exec_driver_sql(
            "SELECT reltuples FROM pg_class WHERE oid = 'kasparro.observation'::regclass"
        ).scalar_one()
        assert counted == connection.scalar(sa.select(sa.func.count()).select_from(observation))


def test_its_materialization_says_what_was_removed(place, monkeypatch: pytest.MonkeyPatch) -> None:
    _, loader = place
    run(monkeypatch, loader, event=0)
    event = loader._instance.get_latest_materialization_event(retention.retention.key)
    assert {name: value.value for name, value in event.asset_materialization.metadata.items()} == Pruned().as_dict()


def test_it_is_materialized_once_a_day_also_when_its_minute_was_slept_through() -> None:
    definitions = dg.Definitions(assets=[retention.retention])
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = None

        def requested(moment: datetime) -> int:
            nonlocal cursor
            result = dg.evaluate_automation_conditions(
                definitions, instance=instance, evaluation_time=moment, cursor=cursor
            )
            cursor = result.cursor
            return result.total_requested

        assert requested(datetime(2026, 11, 20, 12, tzinfo=UTC)) == 0
        assert requested(datetime(2026, 11, 21, 3, 39, tzinfo=UTC)) == 0
        assert requested(datetime(2026, 11, 21, 3, 41, tzinfo=UTC)) == 1
        assert requested(datetime(2026, 11, 21, 3, 42, tzinfo=UTC)) == 0
        assert requested(datetime(2026, 11, 22, 9, tzinfo=UTC)) == 1
        assert requested(datetime(2026, 11, 22, 10, tzinfo=UTC)) == 0


def test_its_automation_is_on(place) -> None:
    _, loader = place
    assert loader._definitions.resolve_sensor_def("retention_daily").default_status is dg.DefaultSensorStatus.RUNNING

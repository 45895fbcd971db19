from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from kasparro_api import queries
from kasparro_api.schemas import Health, Stats
from kasparro_pipeline.warehouse.tables import (
    delivery,
    failed_check,
    observation,
    quarantine,
    raw_payload,
    source_run,
    unified_assets,
)
from kasparro_tests.api.rows import insert, unified
from kasparro_tests.api.serving import app_on, served

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def step(source: str, run_id: str, minutes: int, status: str = "success", **columns: Any) -> dict[str, Any]:
    started = NOON + timedelta(minutes=minutes)
    return {
        "source": source,
        "run_id": run_id,
        "asset_key": f"{source}/observations",
        "partition": "2026-11-01",
        "status": status,
        "started_at": started,
        "ended_at": None if status == "running" else started + timedelta(milliseconds=1500),
        **columns,
    }


def payload(source: str, sha256: str, size: int) -> dict[str, Any]:
    return {"source": source, "sha256": sha256, "body": b"z" * 7, "size_bytes": size, "first_fetched_at": NOON}


def delivered(source: str, sha256: str, position: int, **columns: Any) -> dict[str, Any]:
    place = {"source": source, "partition": "2026-11-01", "position": position, "fetched_at": NOON}
    return {**place, "sha256": sha256, "request": "http://x/", "first_record": 1, "is_last": True, **columns}


def refused(source: str, position: int, reason_code: str) -> dict[str, Any]:
    return {
        "source": source,
        "payload_sha256": "a",
        "position": position,
        "location": f"x record {position}",
        "reason_code": reason_code,
        "reason": "because",
        "record": "{}",
        "parser_version": "1",
    }


def observed(source: str, coin: str) -> dict[str, Any]:
    key = {"source": source, "source_coin_id": coin, "observed_at": NOON}
    return {**key, "fetched_at": NOON, "payload_sha256": "a", "position": 1}


def test_health_of_a_fresh_database_is_ok(service: httpx.Client) -> None:
    answer = service.get("/health")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    report = Health.model_validate_json(answer.content)
    assert (report.status, report.database.reachable, report.sources) == ("ok", True, {})
    assert report.metadata.request_id == answer.headers["x-request-id"]


def test_health_tells_each_sources_last_run(service: httpx.Client, engine: sa.Engine) -> None:
    insert(
        engine,
        source_run,
        [
            step("coingecko", "run-1", 0, "failure", error="HTTP 500"),
            step("coingecko", "run-2", 5),
            step("coingecko", "run-3", 10, "running"),
            step("coinpaprika", "run-4", 0),
        ],
    )
    answer = service.get("/health")
    report = Health.model_validate_json(answer.content)
    assert (answer.status_code, report.status) == (200, "ok")
    gecko = report.sources["coingecko"]
    assert (gecko.last_run.run_id, gecko.last_run.status, gecko.last_run.ended_at) == ("run-3", "running", None)
    assert gecko.last_success_at == NOON + timedelta(minutes=5, milliseconds=1500)
    assert gecko.last_failure_at == NOON + timedelta(milliseconds=1500)
    assert not gecko.failing
    assert report.sources["coinpaprika"].last_failure_at is None


def test_health_is_degraded_while_a_sources_newest_finished_run_failed(
    service: httpx.Client, engine: sa.Engine
) -> None:
    insert(
        engine,
        source_run,
        [
            step("coingecko", "run-1", 0),
            step("coingecko", "run-2", 5, asset_key="coingecko/raw"),
            step("coingecko", "run-2", 6, "failure", error="half a JSON"),
            step("coingecko", "run-3", 9, "running"),
        ],
    )
    answer = service.get("/health")
    report = Health.model_validate_json(answer.content)
    assert (answer.status_code, report.status, report.sources["coingecko"].failing) == (200, "degraded", True)
    insert(engine, source_run, [step("coingecko", "run-4", 12)])
    assert service.get("/health").json()["status"] == "ok"


def test_health_is_degraded_while_a_check_fails_and_says_which(service: httpx.Client, engine: sa.Engine) -> None:
    check = {"asset_key": "coingecko/observations", "check_name": "no_future_day", "detail": "2 observations"}
    warning = {**check, "check_name": "coin_count", "day": None, "severity": "warning", "blocking": False}
    insert(engine, failed_check, [warning])
    report = Health.model_validate_json(service.get("/health").content)
    assert (report.status, [failed.check for failed in report.failed_checks]) == ("ok", ["coin_count"])
    insert(engine, failed_check, [{**check, "day": date(2026, 11, 1), "severity": "error", "blocking": True}])
    answer = service.get("/health")
    report = Health.model_validate_json(answer.content)
    assert (answer.status_code, report.status) == (200, "degraded")
    first = report.failed_checks[0]
    assert (first.asset_key, first.check, first.day) == (check["asset_key"], "no_future_day", date(2026, 11, 1))


def test_stats_of_a_fresh_database_are_empty(service: httpx.Client) -> None:
    answer = service.get("/stats")
    assert answer.status_code == 200
    stats = Stats.model_validate_json(answer.content)
    assert stats.sources == {}
    assert (stats.unified_assets.rows.count, stats.unified_assets.rows.exact) == (0, True)
    assert stats.unified_assets.last_day is None


def test_stats_tell_what_was_processed_by_source(service: httpx.Client, engine: sa.Engine) -> None:
    counts = {"records": 9, "inserted": 4, "updated": 2, "unchanged": 1, "quarantined": 2}
    insert(engine, raw_payload, [payload("coingecko", "a", 100), payload("coingecko", "b", 50)])
    parsed = [delivered("coingecko", sha256, position, **counts) for position, sha256 in enumerate("ab")]
    insert(engine, delivery, [*parsed, delivered("coingecko", "b", 2)])
    insert(engine, quarantine, [refused("coingecko", i, "bad_number" if i else "conflict") for i in range(4)])
    insert(engine, observation, [observed("coingecko", f"coin-{i}") for i in range(8)])
    insert(engine, source_run, [step("coingecko", f"run-{i}", i, **counts) for i in range(12)])
    insert(engine, source_run, [step("csv_drops", "run-x", 0, "failure", error="a.csv: binary_file")])

    stats = Stats.model_validate_json(service.get("/stats").content)
    gecko, drops = stats.sources["coingecko"], stats.sources["csv_drops"]
    assert list(stats.sources) == ["coingecko", "csv_drops"]
    assert gecko.deliveries.model_dump() == {"count": 3, **{name: 2 * n for name, n in counts.items()}}
    assert gecko.payloads.model_dump() == {"count": 2, "bytes": 150, "stored_bytes": 14}
    assert gecko.quarantine.model_dump() == {"count": 4, "by_reason": {"bad_number": 3, "conflict": 1}}
    assert gecko.observations.model_dump() == {"count": 8, "exact": True}
    assert [run.run_id for run in gecko.runs.recent] == [f"run-{i}" for i in range(11, 1, -1)]
    assert gecko.runs.last_success is not None
    assert (gecko.runs.last_success.run_id, gecko.runs.last_success.duration_s) == ("run-11", 1.5)
    assert gecko.runs.last_success.records == 9
    assert gecko.runs.last_failure is None
    assert drops.runs.last_failure is not None
    assert drops.runs.last_failure.error == "a.csv: binary_file"
    assert (drops.deliveries.count, drops.observations.count, drops.quarantine.by_reason) == (0, 0, {})


def test_stats_estimate_large_tables(service: httpx.Client, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "COUNTED_UP_TO", 10)
    insert(engine, observation, [observed("coingecko", f"{i}") for i in range(60)])
    insert(engine, observation, [observed("coinpaprika", f"{i}") for i in range(20)])
    insert(engine, unified_assets, [unified(f"{i}", date(2026, 11, 1)) for i in range(30)])
    with engine.begin() as connection:
        connection.execute(sa.text("ANALYZE kasparro.observation, kasparro.unified_assets"))
    stats = Stats.model_validate_json(service.get("/stats").content)
    assert stats.sources["coingecko"].observations.model_dump() == {"count": 60, "exact": False}
    assert stats.sources["coinpaprika"].observations.model_dump() == {"count": 20, "exact": False}
    assert stats.unified_assets.rows.model_dump() == {"count": 30, "exact": False}


def test_stats_tell_the_days_and_the_last_write_of_the_unified_table(service: httpx.Client, engine: sa.Engine) -> None:
    days = [date(2026, 10, 1), date(2026, 11, 1)]
    insert(engine, unified_assets, [unified("bitcoin", day) for day in days])
    told = service.get("/stats").json()["unified_assets"]
    assert told == {
        "rows": {"count": 2, "exact": True},
        "first_day": "2026-10-01",
        "last_day": "2026-11-01",
        "last_updated_at": "2026-11-01T12:00:00Z",
    }


def test_a_database_without_our_tables_is_told(server: sa.URL) -> None:
    with served(app_on(server.set(database="postgres"))) as client:
        answer = client.get("/health")
        assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
        assert "run `kasparro up`" in answer.json()["database"]["detail"]
        assert client.get("/data").status_code == 503
        assert "tables are missing" in client.get("/stats").json()["detail"]

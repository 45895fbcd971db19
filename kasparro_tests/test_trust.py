"""Where a number came from, and what keeps it right, from end to end: Dagster's own runs, a real database, the API."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

import dagster as dg
import httpx
import pytest
import sqlalchemy as sa
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluation

from kasparro_pipeline.components.drift import CHECK as DRIFT
from kasparro_pipeline.defs.unified_assets.definitions import touched_ranges
from kasparro_pipeline.load import Loader, LoadReport
from kasparro_pipeline.settings import settings
from kasparro_pipeline.simulator.app import create_app
from kasparro_pipeline.simulator.drops import write_today
from kasparro_pipeline.warehouse import unify
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.rules import RULES
from kasparro_pipeline.warehouse.statistics import GROWN
from kasparro_pipeline.warehouse.tables import (
    delivery,
    failed_check,
    observation,
    touched_day,
    unified_assets,
    unified_day,
)
from kasparro_tests.api.serving import app_on, served
from kasparro_tests.sources.vendor import Reply, running_vendor
from kasparro_tests.test_load import VENDORS, Environment, kasparro, running

BAD_DAY = date(2026, 3, 5)
GOOD_DAYS = (date(2026, 3, 3), date(2026, 3, 6))


@pytest.fixture(scope="module")
def loaded(
    server: sa.URL, template: sa.URL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Environment, LoadReport, Loader]]:
    now = datetime.now(UTC)
    folder = tmp_path_factory.mktemp("trust")
    with (
        running(create_app(clock=lambda: now, rate_per_minute=100_000)) as url,
        kasparro(server, template, folder, f"{url}/api/v3", f"{url}/v1") as environment_,
    ):
        write_today(environment_.drop_dir)
        days = "".join(f"ZZZ,Some Coin,{day},1.50\n" for day in (BAD_DAY, *GOOD_DAYS))
        (environment_.drop_dir / "desk").mkdir()
        (environment_.drop_dir / "desk" / "a.csv").write_text(f"symbol,name,date,price\n{days}")
        loader = Loader()
        yield environment_, loader.load(), loader


@pytest.fixture
def service(loaded: tuple[Environment, LoadReport, Loader]) -> Iterator[httpx.Client]:
    with served(app_on(loaded[0].engine.url)) as client:
        yield client


def test_every_number_leads_to_the_vendors_own_bytes(loaded, service: httpx.Client) -> None:
    environment_, report, _ = loaded
    assert not report.failed, report
    told = service.get(f"/data/bitcoin/{environment_.today}/lineage").json()
    verdicts = {entry["source"]: entry["verdict"] for entry in told["fields"]["price_usd"]}
    assert verdicts.pop("csv_sample_exchange") in {"later_priority", "stale"}  # by the time of day of this test
    assert verdicts == {"coingecko": "chosen", "coinpaprika": "later_priority"}
    said = {one["source"]: one for one in told["observations"]}
    for source, path in {"coingecko": ["current_price"], "coinpaprika": ["quotes", "USD", "price"]}.items():
        body = service.get(f"/payloads/{said[source]['payload_sha256']}").content
        assert hashlib.sha256(body).hexdigest() == said[source]["payload_sha256"]
        number = json.loads(body, parse_float=str, parse_int=str)[said[source]["position"] - 1]
        for name in path:
            number = number[name]
        assert number == said[source]["price_usd"]
    assert told["row"]["price_usd"] == said["coingecko"]["price_usd"]
    desk = service.get(f"/payloads/{said['csv_sample_exchange']['payload_sha256']}").text.splitlines()
    assert said["csv_sample_exchange"]["price_usd"] in desk[said["csv_sample_exchange"]["position"] - 1]
    instance = dg.DagsterInstance.get()
    runs = {told["unified_by"]["run_id"]}
    for payload in told["payloads"]:
        for delivered in payload["deliveries"]:
            runs |= {delivered["run_id"], delivered["parse_run_id"]}
            assert delivered["parser_version"]
    assert all(instance.has_run(run_id) for run_id in runs)


def test_every_column_is_traced_to_the_vendors_fields(loaded) -> None:
    graph = loaded[2]._definitions.resolve_asset_graph()

    def origins(key: dg.AssetKey, column: str) -> set[tuple[str, str]]:
        lineage = graph.get(key).metadata.get("dagster/column_lineage")
        deps = lineage.deps_by_column.get(column, []) if lineage else []
        assert all(dep.asset_key in graph.get(key).parent_keys for dep in deps)
        found = {origin for dep in deps for origin in origins(dep.asset_key, dep.column_name)}
        return found or {(key.to_user_string(), column)}

    prices = origins(dg.AssetKey("unified_assets"), "price_usd")
    assert {
        ("coingecko/raw", "current_price"),
        ("coinpaprika/raw", "quotes.USD.price"),
        ("csv_drops/raw", "close"),
    } <= prices
    flags = origins(dg.AssetKey("unified_assets"), "flags")
    assert {("coingecko/raw", "market_cap_rank"), ("coingecko/raw", "last_updated")} <= flags
    assert ("coingecko/raw", "image") not in flags
    for column in unified_assets.columns:
        if column.name != "updated_at":
            assert origins(dg.AssetKey("unified_assets"), column.name) != {("unified_assets", column.name)}


def test_every_rule_is_a_check_that_passed(loaded) -> None:
    environment_, _, loader = loaded
    keys = {key for key in loader._definitions.resolve_asset_graph().asset_check_keys if key.name != DRIFT}
    assert {key.name for key in keys} == {rule.name for rule in RULES}
    observed = {key.asset_key.to_user_string() for key in keys}
    assert observed == {
        *(f"{source}/observations" for source in (*VENDORS, "csv_drops")),
        *("coins", "coin_identity", "unified_assets"),
    }
    summaries = dg.DagsterInstance.get().event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    assert len(summaries) == len(keys)
    for key, record in summaries.items():
        evaluation = record.event.dagster_event.event_specific_data
        assert isinstance(evaluation, AssetCheckEvaluation)
        assert evaluation.passed, (key, evaluation.metadata)
    assert environment_.rows(sa.select(failed_check)) == []


def touch(environment_: Environment, *days: date) -> None:
    with environment_.engine.begin() as connection:
        connection.execute(sa.insert(touched_day), [{"day": day} for day in days])


def test_a_day_that_fails_a_check_is_not_unified_and_stops_no_other(loaded, service: httpx.Client) -> None:
    environment_, _, loader = loaded
    engine = environment_.engine
    noon = datetime.combine(BAD_DAY, time(12), UTC)
    made_up = sa.select(delivery).where(delivery.c.source == "coingecko").limit(1)
    (row,) = environment_.rows(made_up)
    with engine.begin() as connection:
        tampered = {**row._mapping, "fetched_at": noon, "partition": str(BAD_DAY), "inserted": row.inserted + 1}
        connection.execute(sa.insert(delivery).values(tampered))
        prices = {"price_usd": observation.c.price_usd + 1}
        connection.execute(sa.update(observation).where(observation.c.source == "csv_desk").values(prices))
    touch(environment_, BAD_DAY, *GOOD_DAYS)
    prices_of = sa.select(unified_assets.c.day, unified_assets.c.price_usd).where(
        unified_assets.c.day <= GOOD_DAYS[1], unified_assets.c.day >= GOOD_DAYS[0]
    )
    report = loader.unify()
    assert report.failed
    assert report.error is not None
    assert report.days_unified == 2
    stored = {day: str(price) for day, price in environment_.rows(prices_of)}
    assert stored == {GOOD_DAYS[0]: "2.50", BAD_DAY: "1.50", GOOD_DAYS[1]: "2.50"}
    health = service.get("/health").json()
    assert health["status"] == "degraded"
    (failed,) = health["failed_checks"]
    assert (failed["asset_key"], failed["check"], failed["day"], failed["blocking"]) == (
        "coingecko/observations",
        "accounted_for",
        str(BAD_DAY),
        True,
    )
    assert failed["detail"].startswith("1 deliveries, such as http")
    assert touched_ranges() == [(str(BAD_DAY), str(BAD_DAY))]

    with engine.begin() as connection:
        connection.execute(sa.delete(delivery).where(delivery.c.fetched_at == noon))
    assert not loader.unify().failed
    assert {str(price) for _, price in environment_.rows(prices_of)} == {"2.50"}
    assert service.get("/health").json()["failed_checks"] == []


def test_a_day_that_lost_most_of_a_vendors_coins_is_not_unified(
    loaded, service: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment_, _, loader = loaded
    engine, before = environment_.engine, BAD_DAY - timedelta(days=1)
    (row,) = environment_.rows(sa.select(delivery).where(delivery.c.source == "coingecko").limit(1))
    listed = {**row._mapping, "is_last": True, "source_coin_id": None}
    coins = {"sources": ["coingecko"], "source_count": 1, "flags": ["no_price"]}
    with engine.begin() as connection:
        for day in (before, BAD_DAY):
            noon = datetime.combine(day, time(12), UTC)
            connection.execute(sa.insert(delivery).values({**listed, "partition": str(day), "fetched_at": noon}))
        rows = [{"coin_id": f"c{n}", "day": before, "observed_at": noon, **coins} for n in range(12)]
        connection.execute(sa.insert(unified_assets), rows)
    touch(environment_, BAD_DAY)
    report = loader.unify()
    told = f"not unified, checks failed: coin_count on {BAD_DAY}: 0 coins of coingecko after 12 the day before"
    assert report.error == told
    (failed,) = service.get("/health").json()["failed_checks"]
    assert (failed["check"], failed["day"], failed["blocking"], failed["severity"]) == (
        "coin_count",
        str(BAD_DAY),
        True,
        "error",
    )
    key = dg.AssetCheckKey(dg.AssetKey("unified_assets"), "coin_count")
    evaluated = dg.DagsterInstance.get().event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert evaluated.event.dagster_event.event_specific_data.passed is False

    monkeypatch.setenv("KASPARRO_CHECK_COIN_COUNT", "0")
    settings.cache_clear()
    assert not loader.unify().failed
    assert service.get("/health").json()["failed_checks"] == []
    with engine.begin() as connection:
        connection.execute(sa.delete(unified_assets).where(unified_assets.c.day == before))
        connection.execute(sa.delete(delivery).where(delivery.c.partition.in_([str(before), str(BAD_DAY)])))
    settings.cache_clear()


def test_the_days_after_a_touched_one_are_made_again_with_it(loaded) -> None:
    environment_, _, _ = loaded
    touch(environment_, GOOD_DAYS[0])
    assert touched_ranges() == [(str(GOOD_DAYS[0]), str(GOOD_DAYS[1]))]
    touch(environment_, environment_.today, environment_.today + timedelta(days=3))
    today = str(environment_.today)
    assert touched_ranges() == [(str(GOOD_DAYS[0]), str(GOOD_DAYS[1])), (today, today)]  # the future has no partition
    with environment_.engine.begin() as connection:
        connection.execute(sa.delete(touched_day))


def test_another_rule_makes_all_days_again_without_a_vendor(loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    environment_, _, loader = loaded
    days = {row.day: row for row in environment_.rows(sa.select(unified_day))}
    assert {row.rule_version for row in days.values()} == {unify.rule_version(loader._priorities)}
    monkeypatch.setattr(unify, "RULE", unify.RULE.replace("spread > 5 THEN", "spread >= 0 THEN"))
    with running_vendor(Reply(status=500)) as vendor:
        for source in VENDORS:
            monkeypatch.setenv(f"KASPARRO_{source.upper()}_URL", vendor.url)
        other = Loader()
        asset = other._definitions.resolve_asset_graph().get(dg.AssetKey("unified_assets"))
        assert asset.code_version == unify.rule_version(loader._priorities) != days[BAD_DAY].rule_version
        report = other.reprocess()
        assert vendor.requests == []
    assert not report.failed, report
    assert report.days_unified == len(days)
    now = {row.day: row.rule_version for row in environment_.rows(sa.select(unified_day))}
    assert now == dict.fromkeys(days, asset.code_version)
    flagged = sa.select(sa.func.count()).where(sa.literal("wide_spread") == sa.any_(unified_assets.c.flags))
    several = sa.select(sa.func.count()).where(unified_assets.c.price_spread_pct.is_not(None))
    assert environment_.rows(flagged) == environment_.rows(several) != [(0,)]
    assert other.reprocess().days_unified == 0


def test_the_planner_is_told_of_many_new_observations_before_they_are_unified(loaded) -> None:
    environment_, _, loader = loaded
    touch(environment_, GOOD_DAYS[0])
    current_engine().dispose()  # sessions that end tell the server's statistics what they wrote
    assert not loader.unify().failed
    counted = sa.text("SELECT reltuples FROM pg_class WHERE oid = 'kasparro.observation'::regclass")
    with environment_.engine.connect() as connection:
        stored = connection.scalar(sa.select(sa.func.count()).select_from(observation))
        assert 0 < stored <= GROWN * connection.scalar(counted)

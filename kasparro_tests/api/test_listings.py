"""The listings besides the unified table, and what is told of one coin, one run, two runs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from kasparro_api import listing_sql, listings
from kasparro_api.listing import Kind, Listing
from kasparro_api.listing_query import query_model
from kasparro_api.schemas import CoinAnswer, CoinRow, Comparison, ObservationRow, Page, RunAnswer, RunRow, SourceRow
from kasparro_pipeline.warehouse.calls import CallLedger
from kasparro_pipeline.warehouse.tables import (
    coin,
    coin_identity,
    delivery,
    failed_check,
    observation,
    quarantine,
    raw_payload,
    source_coin,
    source_run,
    touched_day,
    unified_assets,
    vendor_call,
)
from kasparro_tests.api.rows import insert, unified
from kasparro_tests.api.test_operations import delivered, payload, refused, step

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAY = NOON.date()


def get(service: httpx.Client, path: str, **parameters: Any) -> list[dict[str, Any]]:
    answer = service.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def ids(rows: list[dict[str, Any]], name: str = "coin_id") -> list[str]:
    return [row[name] for row in rows]


def called(source: str, source_coin_id: str, coin_id: str) -> dict[str, Any]:
    told = {"method": "own", "confidence": Decimal("0.90"), "evidence": "because"}
    return {"source": source, "source_coin_id": source_coin_id, "coin_id": coin_id, **told}


def observed(source: str, source_coin_id: str, at: datetime, price: str, sha256: str = "a") -> dict[str, Any]:
    key = {"source": source, "source_coin_id": source_coin_id, "observed_at": at, "price_usd": Decimal(price)}
    return {**key, "fetched_at": at, "payload_sha256": sha256, "position": 1}


@pytest.fixture
def coins(engine: sa.Engine) -> None:
    names = [("bitcoin", "BTC", "Bitcoin"), ("bitcoin-cash", "BCH", "Bitcoin Cash"), ("x", None, None)]
    insert(engine, coin, [dict(zip(("coin_id", "symbol", "name"), told, strict=True)) for told in names])
    known = [("coingecko", "bitcoin", "bitcoin"), ("csv_desk", "BTC", "bitcoin"), ("coingecko", "bch", "bitcoin-cash")]
    insert(engine, coin_identity, [called(*told) for told in known])


@pytest.mark.usefixtures("coins")
def test_coins_are_listed_and_searched(service: httpx.Client) -> None:
    answer = service.get("/coins")
    page = Page[CoinRow].model_validate_json(answer.content)
    assert [(row.coin_id, row.sources) for row in page.data] == [
        ("bitcoin", ["coingecko", "csv_desk"]),
        ("bitcoin-cash", ["coingecko"]),
        ("x", []),
    ]
    for parameters, found in (
        ({"q": "cash"}, ["bitcoin-cash"]),
        ({"q": "BIT"}, ["bitcoin", "bitcoin-cash"]),
        ({"q": "bch bit"}, ["bitcoin-cash"]),
        ({"q": "oin"}, []),
        ({"symbol": "btc,bch"}, ["bitcoin", "bitcoin-cash"]),
        ({"source": "csv_desk"}, ["bitcoin"]),
        ({"sort": "-coin_id", "limit": 1}, ["x"]),
    ):
        assert ids(get(service, "/coins", **parameters)) == found, parameters


def test_the_search_is_answered_by_an_index(engine: sa.Engine) -> None:
    (search,) = [one for one in listings.COINS.filters if one.name == "q"]
    with engine.connect() as connection:
        connection.exec_driver_sql("SET enable_seqscan = off")
        condition = search.condition.replace("%(q)s", "'bit:*'")
        plan = connection.exec_driver_sql(f"EXPLAIN SELECT FROM kasparro.coin t WHERE {condition}").scalars()
        assert "coin_words" in "".join(plan)


@pytest.mark.usefixtures("coins")
def test_one_coin_with_who_calls_it_what_and_its_newest_row(service: httpx.Client, engine: sa.Engine) -> None:
    days = [DAY, DAY - timedelta(days=1)]
    insert(engine, unified_assets, [unified("bitcoin", day, price_usd=Decimal("1.50")) for day in days])
    told = CoinAnswer.model_validate_json(service.get("/coins/bitcoin").content).data
    assert [(one.source, one.source_coin_id, one.confidence) for one in told.identities] == [
        ("coingecko", "bitcoin", "0.90"),
        ("csv_desk", "BTC", "0.90"),
    ]
    assert (told.latest.day, told.latest.price_usd) == (DAY, "1.50")
    assert CoinAnswer.model_validate_json(service.get("/coins/x").content).data.latest is None


@pytest.mark.parametrize("path", ["/coins/{}", "/coins/{}/history", "/coins/{}/observations?format=csv", "/runs/{}"])
def test_what_there_is_not_is_a_404(service: httpx.Client, path: str) -> None:
    for name in ("nothing", "%00", "a%00b", "%27%3B--", "%F0%9F%9A%80", "%25s"):
        answer = service.get(path.format(name))
        assert answer.status_code == 404, name
        assert "there is no such" in answer.json()["detail"]


@pytest.mark.usefixtures("coins")
def test_history_has_days_or_the_last_of_each_week_or_month(service: httpx.Client, engine: sa.Engine) -> None:
    days = [date(2026, 10, 30), date(2026, 10, 31), date(2026, 11, 1), date(2026, 11, 2)]  # Friday to Monday
    insert(engine, unified_assets, [unified(coin_id, day) for coin_id in ("bitcoin", "x") for day in days])
    for parameters, found in (
        ({}, [3, 2, 1, 0]),
        ({"sort": "day", "limit": 2}, [0, 1]),
        ({"interval": "week"}, [3, 2]),
        ({"interval": "month", "sort": "day"}, [1, 3]),
        ({"from": "2026-10-31", "to": "2026-11-01"}, [2, 1]),
    ):
        rows = get(service, "/coins/bitcoin/history", **parameters)
        assert [(row["coin_id"], row["day"]) for row in rows] == [("bitcoin", days[i].isoformat()) for i in found]
    first = service.get("/coins/bitcoin/history?interval=week&limit=1").json()["metadata"]["next_cursor"]
    (row,) = get(service, "/coins/bitcoin/history", interval="week", limit=1, cursor=first)
    assert row["day"] == "2026-11-01"
    assert "interval: Input should be" in service.get("/coins/bitcoin/history?interval=year").json()["detail"]


@pytest.mark.usefixtures("coins")
def test_observations_of_a_coin_are_those_of_all_its_names(service: httpx.Client, engine: sa.Engine) -> None:
    later = NOON + timedelta(microseconds=1)
    rows = [
        observed("coingecko", "bitcoin", NOON, "1.0"),
        observed("csv_desk", "BTC", NOON, "1.10"),
        observed("coingecko", "bitcoin", later, "1.2"),
        observed("coingecko", "bch", later, "9"),
    ]
    insert(engine, observation, rows)
    page = Page[ObservationRow].model_validate_json(service.get("/coins/bitcoin/observations").content)
    assert [row.price_usd for row in page.data] == ["1.2", "1.0", "1.10"]
    found, cursor = [], None
    while True:
        parameters = {"limit": 1, "sort": "observed_at"} | ({"cursor": cursor} if cursor else {})
        body = service.get("/coins/bitcoin/observations", params=parameters).json()
        found += [row["price_usd"] for row in body["data"]]
        if (cursor := body["metadata"]["next_cursor"]) is None:
            break
    assert found == ["1.0", "1.10", "1.2"]
    for parameters, prices in (
        ({"from": "2026-11-01T12:00:00.000001Z"}, ["1.2"]),
        ({"to": "2026-11-01T12:00:00Z"}, ["1.0", "1.10"]),
        ({"to": "2026-11-01", "source": "csv_desk"}, ["1.10"]),
        ({"from": "2026-11-02"}, []),
        ({"min_price": "1.1"}, ["1.2", "1.10"]),
    ):
        rows = get(service, "/coins/bitcoin/observations", **parameters)
        assert ids(rows, "price_usd") == prices, parameters


def test_latest_is_the_newest_day_by_market_cap(service: httpx.Client, engine: sa.Engine) -> None:
    caps = {"a": "5", "b": "1970000000000000000000000000000000000.5", "c": None, "d": "5", "e": None}
    rows = [
        unified(name, DAY, market_cap_usd=cap and Decimal(cap), volume_24h_usd=Decimal(i))
        for i, (name, cap) in enumerate(caps.items())
    ]
    insert(engine, unified_assets, [*rows, unified("old", DAY - timedelta(days=1), market_cap_usd=Decimal("1e99"))])
    found, parameters = [], {"limit": 2, "fields": "coin_id"}
    while True:
        body = service.get("/latest", params=parameters).json()
        found += ids(body["data"])
        if (cursor := body["metadata"]["next_cursor"]) is None:
            break
        parameters["cursor"] = cursor
    assert found == ["b", "a", "d", "c", "e"]
    assert ids(get(service, "/latest", sort="-volume_24h", limit=2)) == ["e", "d"]


def test_sources_tell_what_each_has_brought(service: httpx.Client, engine: sa.Engine) -> None:
    seen = {"first_seen": NOON, "last_seen": NOON + timedelta(hours=1)}
    insert(engine, source_coin, [{"source": "coingecko", "source_coin_id": str(i), **seen} for i in range(3)])
    insert(engine, source_run, [step("coingecko", "r", 0), step("csv_desk", "s", 0, "failure")])
    insert(engine, quarantine, [refused("csv_desk", 1, "bad")])
    gecko, desk = Page[SourceRow].model_validate_json(service.get("/sources").content).data
    assert (gecko.source, gecko.coins, gecko.first_observed_at, gecko.quarantined) == ("coingecko", 3, NOON, 0)
    assert (gecko.last_observed_at, gecko.last_success_at) == (seen["last_seen"], NOON + timedelta(milliseconds=1500))
    assert (desk.source, desk.coins, desk.last_success_at, desk.quarantined) == ("csv_desk", 0, None, 1)


def test_runs_are_listed_and_one_is_told_step_by_step(service: httpx.Client, engine: sa.Engine) -> None:
    counts = {"records": 5, "inserted": 3, "quarantined": 2}
    steps = [
        step("coingecko", "one", 0, asset_key="coingecko/raw"),
        step("coingecko", "one", 1, **counts),
        step("csv_desk", "two", 5, "failure", error="half a file"),
        step("coingecko", "two", 6, **counts),
        step("csv_desk", "three", 9, "running"),
    ]
    insert(engine, source_run, steps)
    runs = Page[RunRow].model_validate_json(service.get("/runs").content).data
    assert [(run.run_id, run.status, run.records) for run in runs] == [
        ("three", "running", None),
        ("two", "failure", 5),
        ("one", "success", 5),
    ]
    assert (runs[0].duration_s, runs[1].error, runs[1].sources) == (None, "half a file", ["coingecko", "csv_desk"])
    assert runs[2].duration_s == "61.500"
    for parameters, found in (
        ({"source": "coingecko"}, ["two", "one"]),
        ({"status": "failure,running"}, ["three", "two"]),
        ({"run_id": "one"}, ["one"]),
        ({"to": "2026-11-01T12:05:00Z"}, ["two", "one"]),
        ({"limit": 1}, ["three"]),
        ({"source": "csv_desk"}, ["three", "two"]),
        ({"source": "csv_desk,coingecko"}, ["three", "two", "one"]),
        ({"source": "coingecko", "status": "failure"}, ["two"]),
        ({"source": "coingecko", "status": "running"}, []),
    ):
        assert ids(get(service, "/runs", **parameters), "run_id") == found, parameters
    first = service.get("/runs", params={"source": "coingecko", "limit": 1}).json()
    rest = get(service, "/runs", source="coingecko", limit=1, cursor=first["metadata"]["next_cursor"])
    assert (ids(first["data"], "run_id"), ids(rest, "run_id")) == (["two"], ["one"])
    told = RunAnswer.model_validate_json(service.get("/runs/one").content).data
    assert [told_step.asset_key for told_step in told.steps] == ["coingecko/raw", "coingecko/observations"]


MANY_RUNS = """
INSERT INTO kasparro.source_run (run_id, asset_key, source, partition, status, started_at)
SELECT 'run-' || n, 'raw', CASE WHEN mod(n, 1000) = 3 THEN 'rare' ELSE 'usual' END, 'x',
       CASE WHEN mod(n, 1000) = 7 THEN 'failure' ELSE 'success' END, timestamptz '2026-01-01' + n * interval '1 min'
FROM generate_series(1, 5000) n
"""


def test_no_more_runs_are_looked_at_than_a_page_tells(engine: sa.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(MANY_RUNS)
        connection.exec_driver_sql("VACUUM ANALYZE kasparro.source_run")
        for asked in ("", "status=failure", "status=running", "source=rare", "source=usual", "run_id=run-7"):
            query = query_model(listings.RUNS).checked(f"limit=10&{asked}".encode(), "json")
            statement, values = listing_sql.page(query, {})
            plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values).scalar_one()
            assert _rows_read(plan[0]["Plan"]) < 500, asked


def _rows_read(node: dict[str, Any]) -> float:
    seen = node["Actual Rows"] + sum(count for name, count in node.items() if name.startswith("Rows Removed"))
    return seen * node["Actual Loops"] + sum(map(_rows_read, node.get("Plans", [])))


def test_two_runs_side_by_side(service: httpx.Client, engine: sa.Engine) -> None:
    later = NOON + timedelta(hours=1)
    insert(engine, source_run, [step("coingecko", "a", 0, records=12), step("coingecko", "b", 60, records=11)])
    insert(engine, raw_payload, [payload("coingecko", sha256, 1) for sha256 in ("before", "after", "other")])
    insert(
        engine,
        delivery,
        [
            delivered("coingecko", "before", 0, run_id="a"),
            delivered("coingecko", "after", 1, parse_run_id="b"),
            delivered("coingecko", "other", 2, run_id="c"),
        ],
    )
    before = [observed("coingecko", f"c{i}", NOON, "100", "before") for i in range(12)]
    moves = ["101", "101.1", "100.9", "101", "101.2", "100.8", "101", "101.05", "950", "101", "99.9"]
    after = [observed("coingecko", f"c{i}", later, price, "after") for i, price in enumerate(moves)]
    volumes = ["800", "900", "1200", "1", "1100", "700", "1300", "1000", "950", "0", "1050"]
    for row in before:
        row["volume_24h_usd"] = Decimal("1000.5")
    for row, volume in zip(after, volumes, strict=True):
        row["volume_24h_usd"] = Decimal(volume)
    insert(engine, observation, [*before, *after, observed("coingecko", "new", later, "1", "after")])
    insert(engine, observation, [observed("coingecko", "elsewhere", later, "1", "other")])
    told = Comparison.model_validate_json(service.get("/compare-runs?a=a&b=b").content).data
    assert (told.a.run_id, told.b.run_id, told.change.records, told.change.inserted) == ("a", "b", "-1", None)
    assert (told.coins.a, told.coins.b, told.coins.new_count, told.coins.vanished_count) == (12, 12, 1, 1)
    assert [one.source_coin_id for one in told.coins.new + told.coins.vanished] == ["new", "c11"]
    odd = told.anomalies
    assert [(one.source_coin_id, one.b, one.change_pct) for one in odd.price_usd.coins] == [
        ("c8", "950", "850.0000"),
        ("c10", "99.9", "-0.1000"),
    ]
    assert (odd.price_usd.count, odd.market_cap_usd.count) == (2, 0)
    # volumes scatter more, and only what is far out for a volume counts; an unknown one is none
    assert [(one.source_coin_id, one.a, one.b) for one in odd.volume_24h_usd.coins] == [("c3", "1000.5", "1")]
    assert service.get("/compare-runs?a=a&b=nothing").status_code == 404
    assert service.get("/compare-runs?a=a").json()["detail"] == "b: Field required"
    same = Comparison.model_validate_json(service.get("/compare-runs?a=a&b=a").content).data
    assert (same.anomalies.price_usd.count, same.coins.new_count, same.change.records) == (0, 0, "0")


@pytest.mark.parametrize("listing", [one for one in vars(listings).values() if isinstance(one, Listing)])
def test_every_declaration_is_served_by_the_database(engine: sa.Engine, listing: Listing) -> None:
    types = {
        Kind.NUMBER: "numeric",
        Kind.DAY: "date",
        Kind.TIME: "timestamp with time zone",
        Kind.TEXTS: "text[]",
        Kind.INTEGER: "bigint",
        Kind.TEXT: "text",
    }
    relations = [listing.relation, *(listing.variant.relations.values() if listing.variant else ())]
    for relation in relations:
        told = ", ".join(f"pg_typeof(t.{name})::text" for name in listing.columns)
        text = relation.replace("%(in_coin_id)s", "'x'")
        with engine.connect() as connection:
            found = connection.exec_driver_sql(f"SELECT {told} FROM (SELECT) one LEFT JOIN {text} t ON true").one()
        kinds = [type_.replace("integer", "bigint") for type_ in found]
        assert kinds == [types[kind] for kind in listing.columns.values()]


def test_metrics_tell_of_requests_and_of_the_data(service: httpx.Client, engine: sa.Engine) -> None:
    seen = {"first_seen": NOON, "last_seen": datetime.now(UTC) - timedelta(hours=1)}
    insert(engine, source_coin, [{"source": 'a"b', "source_coin_id": "1", **seen}])
    insert(engine, quarantine, [refused("coingecko", i, "bad") for i in range(3)])
    insert(engine, source_run, [step("coingecko", "r", 0)])
    insert(engine, touched_day, [{"day": DAY}, {"day": DAY}])
    insert(
        engine,
        failed_check,
        [{"asset_key": "x", "check_name": "y", "severity": "error", "blocking": True, "detail": ""}],
    )
    today = datetime.now(UTC).date()
    before = {"source": "coingecko", "recent": [], "day": today - timedelta(days=40), "calls": 1000}
    insert(engine, vendor_call, [before, {**before, "day": today.replace(day=1), "calls": 5, "per_day": 7}])
    for _ in range(2):
        CallLedger(lambda: engine, "coingecko", per_month=10_000).count()
    CallLedger(lambda: engine, "free").count()
    service.get("/coins/x/history")
    service.get("/nowhere")
    answer = service.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    told = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert 3600 <= float(told['kasparro_source_lag_seconds{source="a\\"b"}']) < 3700
    assert float(told['kasparro_quarantine_records{source="coingecko"}']) == 3
    assert float(told['kasparro_source_last_success_age_seconds{source="coingecko"}']) > 0
    assert told["kasparro_database_up"] == "1.0"
    assert told["kasparro_days_waiting"] == "1.0"
    assert (told['kasparro_failed_checks{severity="error"}'], told['kasparro_failed_checks{severity="warning"}']) == (
        "1.0",
        "0.0",
    )
    calls = {name: value for name, value in told.items() if name.startswith("kasparro_vendor_calls")}
    of_today = 7 if today.day == 1 else 2
    assert calls == {
        'kasparro_vendor_calls{period="day",source="coingecko"}': f"{of_today}.0",
        'kasparro_vendor_calls{period="month",source="coingecko"}': "7.0",
        'kasparro_vendor_calls_limit{period="month",source="coingecko"}': "10000.0",
        'kasparro_vendor_calls_left{period="month",source="coingecko"}': "9993.0",
        'kasparro_vendor_calls{period="day",source="free"}': "1.0",
        'kasparro_vendor_calls{period="month",source="free"}': "1.0",
    }
    route = 'kasparro_http_request_seconds_count{method="GET",route="/coins/{coin_id}/history",status="404"}'
    assert told[route] == "1.0"
    assert told['kasparro_http_request_seconds_count{method="GET",route="none",status="404"}'] == "1.0"


def test_metrics_without_a_database(bare_service: httpx.Client) -> None:
    answer = bare_service.get("/metrics")
    assert answer.status_code == 200
    assert "kasparro_database_up 0.0" in answer.text

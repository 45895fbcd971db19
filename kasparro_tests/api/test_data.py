from __future__ import annotations

import base64
import json
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from kasparro_api.schemas import DataPage, UnifiedRow
from kasparro_pipeline.warehouse.tables import unified_assets
from kasparro_tests.api.rows import insert, unified

DAY = date(2026, 11, 1)


def rows_of(service: httpx.Client, **parameters: Any) -> list[dict[str, Any]]:
    answer = service.get("/data", params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def keys(rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["day"], row["coin_id"]) for row in rows]


def token(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=").decode()


def test_empty_table_is_an_empty_page(service: httpx.Client) -> None:
    body = service.get("/data").json()
    assert body["data"] == []
    assert body["metadata"]["count"] == 0
    assert body["metadata"]["next_cursor"] is None


def test_page_is_as_documented(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified("bitcoin", DAY, price_usd=Decimal("67187.10"), rank=1, flags=["stale"])])
    answer = service.get("/data", headers={"X-Request-ID": "a-1"})
    page = DataPage.model_validate_json(answer.content)
    assert answer.headers["content-type"] == "application/json"
    assert (page.metadata.request_id, page.metadata.count, page.metadata.limit) == ("a-1", 1, 100)
    assert 0 < page.metadata.api_latency_ms < 20_000
    (row,) = answer.json()["data"]
    assert list(row) == list(UnifiedRow.model_fields) == [column.name for column in unified_assets.columns]
    assert row["price_usd"] == "67187.10"
    assert (row["rank"], row["source_count"], row["sources"], row["flags"]) == (1, 1, ["coingecko"], ["stale"])
    assert (row["day"], row["observed_at"]) == ("2026-11-01", "2026-11-01T12:00:00Z")
    assert row["name"] is None


def test_decimals_keep_every_digit(service: httpx.Client, engine: sa.Engine) -> None:
    digits = [
        "0",
        "0.00",
        "0.000000000000000001",
        "0.00000000000000000384",
        "9223372036854775807",
        "44456.5143042063789012345678901234567890123456789",
        "19700000000000000000000000000000000000",
    ]
    numbers = [unified(f"coin-{i}", DAY, price_usd=Decimal(d), max_supply=Decimal(d)) for i, d in enumerate(digits)]
    insert(engine, unified_assets, numbers)
    assert [(row["price_usd"], row["max_supply"]) for row in rows_of(service)] == [(d, d) for d in digits]


def test_text_is_escaped(service: httpx.Client, engine: sa.Engine) -> None:
    name = 'line\none, "quoted" \\ back \u2028 {"coin_id":"x"},\n{} \U0001f680 %s'
    insert(engine, unified_assets, [unified(f"coin-{i}", DAY, name=name, symbol='"') for i in range(3)])
    body = service.get("/data", params={"limit": 2}).json()
    assert [row["name"] for row in body["data"]] == [name, name]
    assert body["metadata"]["count"] == 2


def test_newest_day_first_then_coin_id_in_byte_order(service: httpx.Client, engine: sa.Engine) -> None:
    coins = ["Zed", "a-b", "a", "ab", "z"]
    days = [DAY, DAY - timedelta(days=1)]
    insert(engine, unified_assets, [unified(coin, day) for coin in coins for day in days])
    expected = [(day.isoformat(), coin) for day in days for coin in sorted(coins)]
    assert keys(rows_of(service)) == expected
    assert keys(walk(service, limit=3)) == expected


def walk(service: httpx.Client, **parameters: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    while True:
        body = service.get("/data", params=parameters).json()
        rows += body["data"]
        if body["metadata"]["next_cursor"] is None:
            return rows
        parameters["cursor"] = body["metadata"]["next_cursor"]


def test_last_page_has_no_cursor(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified(f"coin-{i}", DAY - timedelta(days=d)) for i in range(5) for d in range(2)])
    for limit in (1, 4, 5, 6, 9, 10, 11, 1000):
        rows = walk(service, limit=limit)
        assert len(rows) == len(set(keys(rows))) == 10


def test_paging_while_rows_arrive_skips_and_repeats_nothing(service: httpx.Client, engine: sa.Engine) -> None:
    before = [unified(f"coin-{i}0", DAY - timedelta(days=d)) for i in range(6) for d in range(8)]
    insert(engine, unified_assets, before)
    seen: list[dict[str, Any]] = []
    parameters: dict[str, Any] = {"limit": 5}
    for page in range(100):
        body = service.get("/data", params=parameters).json()
        seen += body["data"]
        newest = unified(f"coin-new-{page}", DAY + timedelta(days=page))
        spread = [unified(f"coin-{i}{page}x", DAY - timedelta(days=page % 8)) for i in range(6)]
        insert(engine, unified_assets, [newest, *spread] if page < 10 else [])
        if (cursor := body["metadata"]["next_cursor"]) is None:
            break
        parameters["cursor"] = cursor
    assert len(set(keys(seen))) == len(seen)
    assert {(row["day"].isoformat(), row["coin_id"]) for row in before} <= set(keys(seen))
    assert keys(seen) == sorted(keys(seen), key=lambda key: (-date.fromisoformat(key[0]).toordinal(), key[1]))


FILTERED = [
    unified("bitcoin", DAY, symbol="BTC", price_usd=Decimal("67187.1"), sources=["coingecko", "coinpaprika"]),
    unified("bitcoin", DAY - timedelta(days=1), symbol="BTC", price_usd=Decimal(66000), sources=["csv_drops"]),
    unified("ethereum", DAY, symbol="eth", price_usd=Decimal(2500), sources=["coinpaprika"]),
    unified("dust", DAY - timedelta(days=2), symbol="DST", price_usd=Decimal("1.0000000000000000000000000001")),
    unified("priceless", DAY - timedelta(days=3), symbol=None),
]


def test_filters(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, FILTERED)
    cases: list[tuple[dict[str, Any], set[int]]] = [
        ({"symbol": "btc"}, {0, 1}),
        ({"symbol": "ETH, Btc"}, {0, 1, 2}),
        ({"symbol": ["eth", "DST"]}, {2, 3}),
        ({"symbol": "bt%"}, set()),
        ({"coin_id": "ethereum"}, {2}),
        ({"coin_id": "ethereum,dust,nothing"}, {2, 3}),
        ({"coin_id": "Bitcoin"}, set()),
        ({"source": "coinpaprika"}, {0, 2}),
        ({"source": "csv_drops,coinpaprika"}, {0, 1, 2}),
        ({"from": "2026-10-31"}, {0, 1, 2}),
        ({"to": "2026-10-30"}, {3, 4}),
        ({"from": "2026-10-30", "to": "2026-10-31"}, {1, 3}),
        ({"min_price": "66000"}, {0, 1}),
        ({"min_price": "6.60000001e4"}, {0}),
        ({"max_price": "1"}, set()),
        ({"max_price": "1.0000000000000000000000000001"}, {3}),
        ({"min_price": "1.00000000000000000000000000011", "max_price": "2500.0"}, {2}),
        ({"symbol": "btc", "source": "coinpaprika", "min_price": "-1"}, {0}),
    ]
    for parameters, found in cases:
        expected = {(FILTERED[i]["day"].isoformat(), FILTERED[i]["coin_id"]) for i in found}
        assert set(keys(rows_of(service, **parameters))) == expected, parameters
        assert set(keys(walk(service, limit=1, **parameters))) == expected, parameters


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("limit=0", "limit: "),
        ("limit=1001", "limit: "),
        ("limit=ten", "limit: "),
        ("limit=1&limit=2", "limit: "),
        ("from=2026-13-01", "from: not a day: write YYYY-MM-DD"),
        ("to=20261101", "to: not a day"),
        ("to=1700000000", "to: not a day"),
        ("from=2026-11-02&to=2026-11-01", "from is after to"),
        ("min_price=2&max_price=1", "min_price is above max_price"),
        ("min_price=cheap", "min_price: not a decimal number"),
        ("min_price=NaN", "min_price: not a decimal number"),
        ("max_price=Infinity", "max_price: not a decimal number"),
        ("max_price=1e999999999", "max_price: not a decimal number"),
        ("symbol=", "symbol: a list with an empty"),
        ("symbol=btc,,eth", "symbol: a list with an empty"),
        ("coin_id=a%00b", "coin_id: a list with an empty or unreadable name"),
        ("symbol=" + ",".join(["x"] * 501), "symbol: a list of 501 names: give 500 at most"),
        ("symbl=btc", "unknown parameter symbl; allowed: as_of, coin_id, cursor, from, limit"),
        ("first_day=2026-11-01", "unknown parameter first_day"),
        ("cursor=", "cursor: not a cursor"),
        ("cursor=abc", "cursor: not a cursor"),
        ("cursor=%F0%9F%9A%80", "cursor: not a cursor"),
        (f"cursor={token(['2026-11-01'])}", "cursor: not a cursor"),
        (f"cursor={token(['2026-11-01', 1])}", "cursor: not a cursor"),
        (f"cursor={token([20261101, 'bitcoin'])}", "cursor: not a cursor"),
        (f"cursor={token(['2026-11-01', 'a' + chr(0)])}", "cursor: not a cursor"),
        (f"cursor={token({'day': 1, 'coin_id': 2})}", "cursor: not a cursor"),
        (f"cursor={token(['2026-11-01', 'bitcoin'])}%3D%3D", "cursor: not a cursor"),
    ],
)
def test_wrong_parameters_are_told(bare_service: httpx.Client, query: str, told: str) -> None:
    answer = bare_service.get(f"/data?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert told in answer.json()["detail"]
    assert answer.json()["status"] == 422


@pytest.mark.parametrize("parameter", ["symbol", "coin_id", "source"])
def test_injection_finds_nothing(service: httpx.Client, engine: sa.Engine, parameter: str) -> None:
    insert(engine, unified_assets, [unified("bitcoin", DAY, symbol="BTC")])
    for attempt in (
        "x' OR '1'='1",
        "x'; DROP TABLE kasparro.unified_assets; --",
        "%(limit)s",
        "%",
        "x\\' OR 1=1 --",
        "} UNION SELECT usename FROM pg_user --",
    ):
        assert rows_of(service, **{parameter: attempt}) == []
        assert rows_of(service, cursor=token(["2026-10-01", attempt])) == []
    assert len(rows_of(service)) == 1

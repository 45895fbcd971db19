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
from kasparro_pipeline.warehouse.tables import coin, unified_assets
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
    unified("ethereum", DAY, symbol="eth", price_usd=Decimal(2500), sources=["coinpaprika"], rank=2),
    unified(
        "dust",
        DAY - timedelta(days=2),
        symbol="DST",
        price_usd=Decimal("1.0000000000000000000000000001"),
        market_cap_usd=Decimal("1.97e37"),
        flags=["wide_spread"],
    ),
    unified("priceless", DAY - timedelta(days=3), symbol=None, flags=["no_price"]),
]
COINS = [
    {"coin_id": "bitcoin", "symbol": "BTC", "name": "Bitcoin"},
    {"coin_id": "ethereum", "symbol": "eth", "name": "Ethereum"},
    {"coin_id": "dust", "symbol": "DST", "name": "Née Dust"},
]


def test_filters(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, FILTERED)
    insert(engine, coin, COINS)
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
        ({"from": "2026-10-31T10:00Z", "to": "2026-11-01T01:59:00+02:00"}, {1}),
        ({"from": "2026-11-01T23:59", "to": "2026-11-02 00:00"}, {0, 2}),
        ({"to": "9999-12-31"}, {0, 1, 2, 3, 4}),
        ({"flags": "wide_spread,no_price"}, {3, 4}),
        ({"min_rank": "2"}, {2}),
        ({"max_source_count": "1", "min_market_cap": "1e37"}, {3}),
        ({"q": "bit"}, {0, 1}),
        ({"q": "cash BITCOIN"}, set()),
        ({"q": "ether'; DROP"}, set()),
        ({"q": "Ethereum|bitcoin"}, set()),
        ({"q": "née"}, {3}),
    ]
    for parameters, found in cases:
        expected = {(FILTERED[i]["day"].isoformat(), FILTERED[i]["coin_id"]) for i in found}
        assert set(keys(rows_of(service, **parameters))) == expected, parameters
        assert set(keys(walk(service, limit=1, **parameters))) == expected, parameters


def test_every_order_is_total_and_pages_whole(service: httpx.Client, engine: sa.Engine) -> None:
    days = [DAY - timedelta(days=d) for d in range(3)]
    insert(engine, unified_assets, [unified(coin_id, day) for coin_id in ("a", "b-c", "b") for day in days])
    orders = {
        "-day": lambda key: (-date.fromisoformat(key[0]).toordinal(), key[1]),
        "coin_id": lambda key: (key[1], key[0]),
    }
    for order, by in orders.items():
        back = order[1:] if order.startswith("-") else f"-{order}"
        there = keys(walk(service, limit=2, sort=order))
        assert there == sorted(there, key=by)
        assert len(set(there)) == 9
        assert keys(walk(service, limit=2, sort=back)) == there[::-1]


def test_fields_choose_columns_and_pages_go_on_without_the_keys(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified(f"c{i}", DAY, price_usd=Decimal(i)) for i in range(5)])
    rows = walk(service, limit=2, fields="price_usd,symbol")
    assert rows == [{"symbol": None, "price_usd": str(i)} for i in range(5)]


def test_the_next_page_is_linked_with_everything_that_was_asked(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified(f"c{i}", DAY, symbol="A&B") for i in range(3)])
    first = service.get("/v1/data", params={"limit": 2, "symbol": "a&b"})
    path, relation = first.headers["link"].split("; ")
    assert (relation, path[:12]) == ('rel="next"', "</v1/data?li")
    second = service.get(path[1:-1])
    assert [row["coin_id"] for row in second.json()["data"]] == ["c2"]
    assert "link" not in second.headers


def test_the_next_page_of_a_coin_with_a_foreign_name_is_linked(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified("コイン?", DAY - timedelta(days=n)) for n in range(2)])
    insert(engine, coin, [{"coin_id": "コイン?"}])
    first = service.get("/coins/%E3%82%B3%E3%82%A4%E3%83%B3%3F/history?limit=1")
    second = service.get(first.headers["link"].partition(">")[0][1:])
    assert [row["day"] for row in second.json()["data"]] == [str(DAY - timedelta(days=1))]


def test_count_tells_how_many_in_all(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified(f"c{i}", DAY) for i in range(7)])
    with engine.begin() as connection:
        connection.execute(sa.text("ANALYZE kasparro.unified_assets"))
    told = service.get("/data", params={"limit": 2, "count": "exact", "from": "2026-11-01"}).json()["metadata"]
    assert (told["count"], told["total"], told["total_exact"]) == (2, 7, True)
    told = service.get("/data", params={"limit": 2, "count": "estimated"}).json()["metadata"]
    assert (told["total"], told["total_exact"]) == (7, False)
    assert "total" not in service.get("/data").json()["metadata"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("limit=0", "limit: "),
        ("limit=1001", "limit: "),
        ("limit=ten", "limit: "),
        ("limit=1&limit=2", "limit: "),
        ("limit=20000001&format=csv", "limit: an export has 20000000 rows at most"),
        ("from=2026-13-01", "from: not a day or time: write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ"),
        ("to=20261101", "to: not a day or time"),
        ("to=1700000000", "to: not a day or time"),
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
        (f"cursor={token(['-day', '2026-11-01', chr(0xD800)])}", "cursor: not a cursor"),
        (f"cursor={token(['-day', '2026-11-01', 'x'])}&sort=coin_id", "cursor: made for sort=-day"),
        (f"cursor={token(['-day', '2026-13-01', 'x'])}", "cursor: not a cursor"),
        ("sort=price_usd", "sort: Input should be '-day', 'day', 'coin_id' or '-coin_id'"),
        ("fields=coin_id,prize", "fields: no prize; allowed: coin_id, day, symbol"),
        ("count=all", "count: Input should be 'none', 'estimated' or 'exact'"),
        ("format=xlsx", "format: Input should be 'json', 'csv', 'ndjson', 'parquet' or 'arrow'"),
        ("q=%24%24", "q: nothing to search for"),
        ("min_rank=1.5", "min_rank: not an integer"),
        ("min_rank=9223372036854775808", "min_rank: not an integer"),
        ("from=2026-11-02T00:00Z&to=2026-11-01", "from is after to"),
        (
            "symbl=btc",
            "unknown parameter symbl; allowed: as_of, cells, coin_id, count, cursor, fields",
        ),
        ("first_day=2026-11-01", "unknown parameter first_day"),
        ("cursor=", "cursor: not a cursor"),
        ("cursor=abc", "cursor: not a cursor"),
        ("cursor=%F0%9F%9A%80", "cursor: not a cursor"),
        (f"cursor={token(['-day', '2026-11-01'])}", "cursor: not a cursor"),
        (f"cursor={token(['-day', '2026-11-01', 1])}", "cursor: not a cursor"),
        (f"cursor={token(['-day', 20261101, 'bitcoin'])}", "cursor: not a cursor"),
        (f"cursor={token(['-day', '2026-11-01', 'a' + chr(0)])}", "cursor: not a cursor"),
        (f"cursor={token({'day': 1, 'coin_id': 2})}", "cursor: not a cursor"),
        (f"cursor={token(['-day', '2026-11-01', 'bitcoin'])}%3D%3D", "cursor: not a cursor"),
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
        assert rows_of(service, cursor=token(["-day", "2026-10-01", attempt])) == []
    assert len(rows_of(service)) == 1

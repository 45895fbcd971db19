from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from .shapes import INTEGER, RUBY_FLOAT, RUBY_NUMBER, mismatches, number, read

MARKETS = "/api/v3/coins/markets"
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
MARKET = {
    "id": r"[a-z0-9-]+",
    "symbol": r"[a-z0-9]+",
    "name": r".+",
    "image": r"https://\S+",
    "current_price": number(RUBY_NUMBER),
    "market_cap": number(INTEGER),
    "market_cap_rank": number(INTEGER),
    "fully_diluted_valuation": number(INTEGER),
    "total_volume": number(INTEGER),
    "high_24h": number(RUBY_NUMBER),
    "low_24h": number(RUBY_NUMBER),
    "price_change_24h": number(RUBY_FLOAT),
    "price_change_percentage_24h": number(RUBY_FLOAT),
    "market_cap_change_24h": number(RUBY_FLOAT),
    "market_cap_change_percentage_24h": number(RUBY_FLOAT),
    "circulating_supply": number(RUBY_FLOAT),
    "total_supply": number(RUBY_FLOAT),
    "max_supply": number(RUBY_FLOAT),
    "ath": number(RUBY_NUMBER),
    "ath_change_percentage": number(RUBY_FLOAT),
    "ath_date": TIME,
    "atl": number(RUBY_NUMBER),
    "atl_change_percentage": number(RUBY_FLOAT),
    "atl_date": TIME,
    "roi": {"times": number(RUBY_FLOAT), "currency": "usd", "percentage": number(RUBY_FLOAT)},
    "last_updated": TIME,
}
NULLABLE = frozenset(
    {
        "market_cap",
        "market_cap_rank",
        "fully_diluted_valuation",
        "market_cap_change_24h",
        "market_cap_change_percentage_24h",
        "circulating_supply",
        "total_supply",
        "max_supply",
        "roi",
    }
)
NEVER_NULL = {"id", "symbol", "name", "image"}


def pages(client, per_page=250):
    page, records = 1, []
    while got := read(client.get(MARKETS, params={"vs_currency": "usd", "per_page": per_page, "page": page}).content):
        records += got
        page += 1
    return records


def test_records_look_like_the_vendors(client):
    records = pages(client)
    wrong = {r["id"]: mismatches(r, MARKET, NULLABLE) for r in records if r["current_price"] is not None}
    assert {coin: what for coin, what in wrong.items() if what} == {}
    for field in NULLABLE:
        nulls = sum(record[field] is None for record in records)
        assert 0 < nulls < len(records), field


def test_a_coin_without_a_price_is_null_throughout(client):
    records = [record for record in pages(client) if record["current_price"] is None]
    assert [record["id"] for record in records] == ["ghost-ledger"]
    assert {field for field, value in records[0].items() if value is not None} == NEVER_NULL


@pytest.mark.realdata
def test_fields_are_those_of_a_recorded_answer(recorded):
    assert list(recorded("coingecko/markets/2022-08-02_top250.json")[0]) == list(MARKET)


def test_odd_numbers_come_with_all_their_digits(client):
    ids = "quark-dust,forty-five-digits,heavy-water"
    records = {r["id"]: r for r in read(client.get(MARKETS, params={"vs_currency": "usd", "ids": ids}).content)}
    assert records["quark-dust"]["current_price"] == "3.84e-18"
    assert Decimal(records["quark-dust"]["circulating_supply"]) == 2**63 - 1
    assert records["forty-five-digits"]["total_supply"] == "1.23456789012345678901234567890123456789012345e+44"
    assert Decimal(records["heavy-water"]["fully_diluted_valuation"]).adjusted() == 37


@pytest.mark.parametrize("per_page", [250, 7])
def test_pages_hold_every_coin_once(client, per_page):
    ids = [record["id"] for record in pages(client, per_page)]
    assert len(ids) == len(set(ids)) == 432


def test_pages_hold_every_coin_once_while_minutes_pass(client, clock):
    clock.now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    ids = []
    for page in range(1, 46):
        ids += [
            r["id"] for r in client.get(MARKETS, params={"vs_currency": "usd", "per_page": 10, "page": page}).json()
        ]
        clock.now += timedelta(minutes=1)
    assert len(ids) == len(set(ids)) == 432


def test_a_page_has_at_most_250_records(client):
    assert len(client.get(MARKETS, params={"vs_currency": "usd", "per_page": 1000}).json()) == 250
    assert client.get(MARKETS, params={"vs_currency": "usd", "page": 99}).content == b"[]"


def ordered(client, order):
    answer = client.get(MARKETS, params={"vs_currency": "usd", "order": order, "per_page": 250})
    return read(answer.content)


@pytest.mark.parametrize(("order", "field"), [("volume_desc", "total_volume"), ("market_cap_desc", "market_cap_rank")])
def test_orders_by_number(client, order, field):
    numbers = [int(record[field]) for record in ordered(client, order)]
    assert numbers == sorted(numbers, reverse=field == "total_volume")
    up = ordered(client, order.replace("desc", "asc"))
    assert up[0]["id"] == "ghost-ledger" if field == "total_volume" else up[0]["market_cap_rank"] is None


def test_orders_by_id(client):
    ids = [record["id"] for record in ordered(client, "id_asc")]
    assert ids == sorted(ids)
    assert ordered(client, "id_desc")[0]["id"] > ids[-1]


def test_the_same_minute_gives_the_same_bytes_and_the_next_one_others(client, clock):
    def body():
        return client.get(MARKETS, params={"vs_currency": "usd", "per_page": 250}).content

    first = body()
    clock.now += timedelta(seconds=3)
    assert body() == first
    clock.now += timedelta(minutes=1)
    later = body()
    assert later != first
    clock.now -= timedelta(minutes=1)
    assert body() == first
    assert b'"last_updated":"2026-11-20T12:34:00.000Z"' in first
    assert b'"last_updated":"2026-11-20T12:35:00.000Z"' in later


def test_some_coins_were_last_updated_long_ago(client):
    days = {record["last_updated"][:10] for record in pages(client) if record["last_updated"]}
    assert max(days) == "2026-11-20"
    assert min(days) < "2026-11-10"


def test_the_list_names_all_coins_and_contracts_when_asked(client):
    plain = client.get("/api/v3/coins/list").json()
    assert {"id": "bitcoin", "symbol": "btc", "name": "Bitcoin"} in plain
    assert {entry["id"] for entry in plain} == {record["id"] for record in pages(client)}
    platforms = {e["id"]: e["platforms"] for e in client.get("/api/v3/coins/list?include_platform=true").json()}
    assert platforms["bitcoin"] == {}
    assert platforms["tether"] == {"ethereum": "0xdac17f958d2ee523a2206206994597c13d831ec7"}
    assert platforms["bonk"] == {"solana": "DezXAZ8z7PnrnRJjz3wXBoRgixCa6xjnB7YaB1pPB263"}
    assert list(platforms["binance-peg-weth"]) == ["binance-smart-chain"]


def test_a_list_that_has_not_changed_is_not_sent_again(client):
    first = client.get("/api/v3/coins/list?include_platform=true")
    again = client.get("/api/v3/coins/list?include_platform=true", headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def chart(client, coin, start, end):
    span = {"vs_currency": "usd", "from": int(start.timestamp()), "to": int(end.timestamp())}
    return client.get(f"/api/v3/coins/{coin}/market_chart/range", params=span)


def test_history_is_what_the_snapshots_said(client, clock):
    hours = [datetime(2026, 11, 19, 13, tzinfo=UTC) + timedelta(hours=hour) for hour in range(24)]
    answer = read(chart(client, "solana", clock.now - timedelta(days=1), clock.now).content)
    assert list(answer) == ["prices", "market_caps", "total_volumes"]
    assert [int(moment) for moment, _ in answer["prices"]] == [int(hour.timestamp()) * 1000 for hour in hours]
    clock.now = hours[5]
    snapshot = read(client.get(MARKETS, params={"vs_currency": "usd", "ids": "solana"}).content)[0]
    assert f"{Decimal(answer['prices'][5][1]):.2f}" == f"{Decimal(snapshot['current_price']):.2f}"
    assert f"{Decimal(answer['market_caps'][5][1]):.0f}" == snapshot["market_cap"]


def test_history_knows_no_future_and_every_coin_has_a_day_of_it(client, clock):
    later = read(chart(client, "bitcoin", clock.now, clock.now + timedelta(days=3)).content)
    assert later == {"prices": [], "market_caps": [], "total_volumes": []}
    for record in pages(client)[:432:20]:
        assert len(chart(client, record["id"], clock.now - timedelta(days=1), clock.now).json()["prices"]) == 24


def test_long_history_has_a_point_a_day(client, clock):
    prices = chart(client, "bitcoin", clock.now - timedelta(days=200), clock.now).json()["prices"]
    assert len(prices) == 200


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/coins/nope/market_chart/range?vs_currency=usd&from=1&to=2", 404, b'{"error":"coin not found"}'),
        ("/coins/bitcoin/market_chart/range?vs_currency=eur&from=1&to=2", 422, b'{"error":"invalid vs_currency"}'),
        ("/coins/markets?vs_currency=eur", 422, b'{"error":"invalid vs_currency"}'),
        ("/coins/markets?vs_currency=usd&order=best", 422, b'{"error":"invalid order"}'),
        ("/ping", 200, b'{"gecko_says":"(V3) To the Moon!"}'),
    ],
)
def test_other_answers(client, path, status, body):
    answer = client.get(f"/api/v3{path}")
    assert (answer.status_code, answer.content) == (status, body)

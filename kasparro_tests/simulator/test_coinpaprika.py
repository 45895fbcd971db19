from datetime import UTC, datetime, timedelta

import pytest

from .shapes import GO_FLOAT, INTEGER, mismatches, number, read

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
PERCENT = number(r"-?\d+(\.\d?[1-9])?")
USD = {
    "price": number(GO_FLOAT),
    "volume_24h": number(GO_FLOAT),
    "volume_24h_change_24h": PERCENT,
    "market_cap": number(INTEGER),
    "market_cap_change_24h": PERCENT,
    "percent_change_15m": PERCENT,
    "percent_change_30m": PERCENT,
    "percent_change_1h": PERCENT,
    "percent_change_6h": PERCENT,
    "percent_change_12h": PERCENT,
    "percent_change_24h": PERCENT,
    "percent_change_7d": PERCENT,
    "percent_change_30d": PERCENT,
    "percent_change_1y": PERCENT,
    "ath_price": number(GO_FLOAT),
    "ath_date": TIME,
    "percent_from_price_ath": PERCENT,
}
TICKER = {
    "id": r"[a-z0-9-]+",
    "name": r".+",
    "symbol": r"[A-Z0-9]+",
    "rank": number(INTEGER),
    "circulating_supply": number(INTEGER),
    "total_supply": number(INTEGER),
    "max_supply": number(INTEGER),
    "beta_value": number(GO_FLOAT),
    "first_data_at": TIME,
    "last_updated": TIME,
    "quotes": {"USD": USD},
}


@pytest.fixture
def tickers(client):
    return read(client.get("/v1/tickers", params={"quotes": "USD"}).content)


def test_records_look_like_the_vendors(tickers):
    wrong = {record["id"]: mismatches(record, TICKER) for record in tickers}
    assert {coin: what for coin, what in wrong.items() if what} == {}
    assert len(wrong) == len(tickers) == 387


@pytest.mark.realdata
def test_fields_are_those_of_a_recorded_answer(recorded):
    record = recorded("coinpaprika/tickers_2021-08-12_3795.json")[0]
    assert (list(record), list(record["quotes"]["USD"])) == (list(TICKER), list(USD))


def test_what_is_not_known_is_zero(tickers):
    for field in ("circulating_supply", "total_supply", "max_supply"):
        assert 0 < sum(record[field] == "0" for record in tickers) < len(tickers), field
    for record in tickers:
        assert (record["circulating_supply"] == "0") == (record["quotes"]["USD"]["market_cap"] == "0"), record["id"]


def test_ids_symbols_and_odd_numbers(tickers):
    by_id = {record["id"]: record for record in tickers}
    assert by_id["btc-bitcoin"]["symbol"] == "BTC"
    assert by_id["miota-iota"]["symbol"] == "MIOTA"
    assert by_id["dust-quark-dust"]["quotes"]["USD"]["price"] == "3.84e-18"
    assert by_id["dust-quark-dust"]["circulating_supply"] == "9223372036854775807"


def test_the_same_minute_gives_the_same_bytes_and_the_next_one_others(client, clock):
    first = client.get("/v1/tickers").content
    clock.now += timedelta(seconds=3)
    assert client.get("/v1/tickers?quotes=usd").content == first
    clock.now += timedelta(minutes=1)
    assert client.get("/v1/tickers").content != first


def test_coins_lists_the_delisted_too(client, tickers):
    coins = {coin["id"]: coin for coin in client.get("/v1/coins").json()}
    assert list(coins["btc-bitcoin"]) == ["id", "name", "symbol", "rank", "is_new", "is_active", "type"]
    assert coins["btc-bitcoin"]["type"] == "coin"
    assert coins["usdt-tether"]["type"] == "token"
    assert {id for id, coin in coins.items() if not coin["is_active"]} == {"ftt-ftx-token"}
    assert coins.keys() - {"ftt-ftx-token"} == {record["id"] for record in tickers}


def historical(client, **params):
    return client.get("/v1/tickers/sol-solana/historical", params=params)


def test_history_is_what_the_snapshots_said(client, clock):
    ticks = read(historical(client, start="2026-11-19T12:34:56Z", interval="1h").content)
    assert [tick["timestamp"] for tick in ticks][:2] == ["2026-11-19T13:00:00Z", "2026-11-19T14:00:00Z"]
    assert len(ticks) == 24
    clock.now = datetime(2026, 11, 19, 14, 0, 30, tzinfo=UTC)
    usd = next(r for r in read(client.get("/v1/tickers").content) if r["id"] == "sol-solana")["quotes"]["USD"]
    assert (ticks[1]["price"], ticks[1]["market_cap"]) == (usd["price"], usd["market_cap"])


@pytest.mark.parametrize("start", ["2026-11-20", "2026-11-20T00:00:00Z", "2026-11-20T02:00:00+02:00", "1795132800"])
def test_a_start_can_be_a_day_a_time_or_unix_seconds(client, start):
    ticks = historical(client, start=start, end="2026-11-20T01:00:00Z", interval="30m").json()
    assert [tick["timestamp"][11:16] for tick in ticks] == ["00:00", "00:30", "01:00"]


def test_history_is_cut_at_now_and_at_the_limit(client):
    assert historical(client, start="2026-11-21").json() == []
    assert len(historical(client, start="2026-11-20", end="2027-01-01", interval="1h").json()) == 13
    assert len(historical(client, start="2026-11-01", limit=10).json()) == 10


def test_contracts_are_listed_by_platform(client):
    found = {name: client.get(f"/v1/contracts/{name}").json() for name in client.get("/v1/contracts").json()}
    known = {record["id"] for record in client.get("/v1/coins").json()}
    assert all(record["id"] in known for records in found.values() for record in records)
    assert {"address": "DezXAZ8z7PnrnRJjz3wXBoRgixCa6xjnB7YaB1pPB263", "id": "bonk-bonk"}.items() <= next(
        record.items() for record in found["sol-solana"] if record["id"] == "bonk-bonk"
    )
    # what stands for WETH on another chain is a coin of its own for CoinGecko, and WETH for CoinPaprika
    assert [record["id"] for record in found["bnb-binance-coin"]] == ["weth-weth"]
    (gone,) = (record for record in found["eth-ethereum"] if not record["active"])
    assert gone["id"] == "ftt-ftx-token"


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/contracts/nope", 404, b'{"error":"id not found"}'),
        ("/tickers/nope/historical?start=2026-11-20", 404, b'{"error":"id not found"}'),
        ("/tickers/ftt-ftx-token/historical?start=2026-11-20", 404, b'{"error":"id not found"}'),
        ("/tickers/btc-bitcoin/historical?start=soon", 400, b'{"error":"invalid start: soon"}'),
        ("/tickers/btc-bitcoin/historical?start=1&interval=9h", 400, b'{"error":"invalid interval: 9h"}'),
        ("/tickers?quotes=KRW", 400, b'{"error":"invalid quotes: KRW"}'),
    ],
)
def test_other_answers(client, path, status, body):
    answer = client.get(f"/v1{path}")
    assert (answer.status_code, answer.content) == (status, body)

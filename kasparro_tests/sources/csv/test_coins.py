from __future__ import annotations

import pytest

from kasparro_pipeline.sources.csv.coins import coin_of_file
from kasparro_tests.sources.samples import read_csv


@pytest.mark.parametrize(
    ("stem", "coin"),
    [
        ("Bitcoin Historical Data - Investing.com", ("bitcoin", None, "Bitcoin", "USD")),
        ("Binance_Coin_Historical_Data_-_Investing.com", ("binance-coin", None, "Binance Coin", "USD")),
        ("Bitcoin_1.1.2024-31.1.2024_historical_data_coinmarketcap", ("bitcoin", None, "Bitcoin", "USD")),
        ("BTC_USD Bitfinex Historical Data", ("BTC_USD Bitfinex Historical Data:BTC/USD", "BTC", None, "USD")),
        ("BTC_EUR Kraken Historical Data", ("BTC_EUR Kraken Historical Data:BTC/EUR", "BTC", None, "EUR")),
        ("BTC-USD", ("BTC-USD:BTC/USD", "BTC", None, "USD")),
        ("Kraken_ETHUSD_d", ("Kraken_ETHUSD_d:ETH/USD", "ETH", None, "USD")),
        ("Binance_BTCUSDT_1h", ("Binance_BTCUSDT_1h:BTC/USDT", "BTC", None, "USDT")),
        ("btc-usd-max", ("btc-usd-max:BTC/USD", "BTC", None, "USD")),
        *((stem, None) for stem in ("prices", "prices_usd", "coin_Bitcoin", "industry", "2020-01-01", "")),
    ],
)
def test_what_a_files_name_says_of_its_coin(stem, coin):
    found = coin_of_file(stem, ())
    assert coin == (found and (found.source_coin_id, found.symbol, found.name, found.quote))


def observed(request: str, content: str):
    dialect, parsed = read_csv(content.encode(), request)
    return dialect.problem, parsed.observations.select(["source_coin_id", "name", "price_usd"]).to_pylist()


def test_a_file_about_one_coin_needs_no_column_for_it():
    content = '\ufeff"Date","Price","Vol."\n"Jan 07, 2022","3,199.93","962.58K"\n"Dec 07, 2017","415.02","-"\n'
    assert observed("investing/Ethereum Historical Data - Investing.com.csv", content) == (
        None,
        [
            {"source_coin_id": "ethereum", "name": "Ethereum", "price_usd": "3199.93"},
            {"source_coin_id": "ethereum", "name": "Ethereum", "price_usd": "415.02"},
        ],
    )


@pytest.mark.parametrize("name", ["BTC-EUR.csv", "BTC_EUR Kraken Historical Data.csv.gz", "Binance_BTCUSDT_d.zip"])
@pytest.mark.parametrize("header", ["Date,Close", "Date,Symbol,Close", "Date,Symbol,Close,Name"])
def test_a_price_in_another_currency_is_refused_where_only_the_files_name_tells(name, header):
    content = f"{header}\n" + ",".join(["2020-01-01", "BTC", "1.5", "Bitcoin"][: header.count(",") + 1]) + "\n"
    if header == "Date,Close":
        content = content.replace("BTC", "1.5")
    _, parsed = read_csv(content.encode(), f"yahoo/{name}")
    assert [refused.reason_code for refused in parsed.quarantined] == ["not_usd"]
    assert parsed.records == 1


def test_a_column_may_say_the_currency_of_the_price():
    content = "symbol,name,currency,date,price\nBTC,Bitcoin,EUR,2020-01-01,1\nBTC,Bitcoin,usd,2020-01-02,2\n"
    _, parsed = read_csv(content.encode())
    assert parsed.observations["price_usd"].to_pylist() == ["2"]
    assert [refused.reason_code for refused in parsed.quarantined] == ["not_usd"]


def test_a_name_alone_is_a_coin_too():
    assert observed("drop/a.csv", "Name,Date,Price\nBitcoin Cash,2020-01-01,1\n") == (
        None,
        [{"source_coin_id": "bitcoin-cash", "name": "Bitcoin Cash", "price_usd": "1"}],
    )

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasparro_pipeline.sources.csv.coins import split_pair
from kasparro_pipeline.sources.csv.dialect import read_dialect
from kasparro_pipeline.sources.csv.parse import parse_csv
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.records import OBSERVATION_SCHEMA
from kasparro_tests.sources.samples import CSV, NOW, delivery, read_csv

KAGGLE = "SNo,Name,Symbol,Date,High,Low,Open,Close,Volume,Marketcap\n"


def read(content: str | bytes, request: str = "drop/prices.csv"):
    _, parsed = read_csv(content.encode() if isinstance(content, str) else content, request)
    assert parsed.records == parsed.observations.num_rows + parsed.duplicates + len(parsed.quarantined)
    assert parsed.observations.schema == OBSERVATION_SCHEMA
    return parsed


def rows(content: str | bytes, *columns: str, request: str = "drop/prices.csv"):
    parsed = read(content, request)
    assert parsed.quarantined == []
    return [tuple(row[column] for column in columns) for row in parsed.observations.to_pylist()]


def codes(content: str | bytes, request: str = "drop/prices.csv"):
    return [(quarantined.location, quarantined.reason_code) for quarantined in read(content, request).quarantined]


def test_a_file_of_daily_rows():
    content = KAGGLE + "1,Stellar,XLM,2014-08-06 23:59:59,0.0034,0.0022,0.0023,0.0026570300105959177,35819.80078125,-\n"
    parsed = read(content)
    assert parsed.records == 1
    assert parsed.observations.to_pylist() == [
        {
            "source": "test",
            "source_coin_id": "xlm-stellar",
            "observed_at": datetime(2014, 8, 6, 23, 59, 59, tzinfo=UTC),
            "symbol": "XLM",
            "name": "Stellar",
            "price_usd": "0.0026570300105959177",
            "market_cap_usd": None,
            "volume_24h_usd": "35819.80078125",
            "circulating_supply": None,
            "total_supply": None,
            "max_supply": None,
            "rank": None,
            "fetched_at": NOW,
            "payload_sha256": delivery(content.encode()).sha256,
            "position": 2,
        }
    ]


def test_days_first_is_read_for_the_whole_file():
    content = KAGGLE + "1,Bitcoin,BTC,02-10-17 23:59,1,1,1,1.5,0,1\n2,Bitcoin,BTC,13-10-17 23:59,1,1,1,1.6,0,1\n"
    assert rows(content, "observed_at", "price_usd") == [
        (datetime(2017, 10, 2, 23, 59, tzinfo=UTC), "1.5"),
        (datetime(2017, 10, 13, 23, 59, tzinfo=UTC), "1.6"),
    ]


def test_an_exchange_file_below_a_junk_line():
    content = (
        "https://www.CryptoDataDownload.com\n"
        "unix,date,symbol,open,high,low,close,Volume BTC,Volume USD\n"
        "1660953600,2022-08-20 00:00:00,BTC/USD,20840.00,20972.00,20811.00,20957.00,244.3,5120243.21850132\n"
    )
    request = "exchange/Bitstamp_BTCUSD_d.csv"
    assert rows(
        content, "source_coin_id", "symbol", "name", "price_usd", "volume_24h_usd", "position", request=request
    ) == [("Bitstamp_BTCUSD_d:BTC/USD", "BTC", None, "20957.00", "5120243.21850132", 3)]


def test_a_pair_in_another_currency_is_not_taken_for_usd():
    content = "date,symbol,close\n2022-08-20,BTC/USDT,1\n2022-08-20,ETHUSD,2\n2022-08-20,XBTEUR,3\n2022-08-20,-,4\n"
    parsed = read(content)
    assert parsed.observations["source_coin_id"].to_pylist() == ["prices:ETH/USD"]
    assert [q.reason_code for q in parsed.quarantined] == ["not_usd", "not_usd", "missing_key"]
    assert parsed.quarantined[0].reason == "'BTC/USDT' is a price in USDT, not in USD"


@pytest.mark.parametrize(
    ("pair", "header", "expected"),
    [
        ("BTC/USD", (), ("BTC", "USD")),
        ("btc-usd", (), ("BTC", "USD")),
        ("BTC_USDT", (), ("BTC", "USDT")),
        ("BTCUSD", (), ("BTC", "USD")),
        ("SOLUSDT", (), ("SOL", "USDT")),
        ("ETHBTC", (), ("ETH", "BTC")),
        ("BNBUSD", ("Volume BNB", "Volume USD"), ("BNB", "USD")),
        ("BTCBUSD", ("volume_btc", "volume_busd"), ("BTC", "BUSD")),
        ("BTC", (), None),
        ("USD", (), None),
        ("XUSD", (), None),
        ("", (), None),
    ],
)
def test_pairs(pair, header, expected):
    assert split_pair(pair, header) == expected


def test_a_pair_that_can_be_split_in_two_ways_is_refused():
    with pytest.raises(RefusedError, match="may be BNB/USD or BN/BUSD") as caught:
        split_pair("BNBUSD")
    assert caught.value.code == "ambiguous_pair"


def test_an_id_or_a_symbol_stands_as_it_came():
    assert rows("id,date,price\nBitCoin,2020-01-01,1\n", "source_coin_id") == [("BitCoin",)]
    content = "Currency,Date,Closing Price (USD)\r\nBTC,2021-05-03,57493.9912222096\r\n"
    assert rows(content, "source_coin_id", "symbol", "price_usd") == [("BTC", "BTC", "57493.9912222096")]


@pytest.mark.parametrize(
    ("symbol", "name", "slug"),
    [
        ("BTC", "Bitcoin", "btc-bitcoin"),
        ("RUNE", "THORChain (ERC20)", "rune-thorchain-erc20"),
        ("Ξ", "以太坊", "ξ-以太坊"),
        ("$A", "b.c", "a-b-c"),
    ],
)
def test_symbol_and_name_make_a_slug(symbol, name, slug):
    assert rows(f"name,symbol,date,price\n{name},{symbol},2020-01-01,1\n", "source_coin_id") == [(slug,)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("Bitcoin,BTC,2020-01-01,1,9", "ragged_row"),
        ("Bitcoin,BTC,2020-01-01", "ragged_row"),
        ("one field", "ragged_row"),
        ("Bitcoin,BTC,soon,1", "bad_time"),
        ("Bitcoin,BTC,,1", "missing_key"),
        (",BTC,2020-01-01,1", "missing_key"),
        ("**,$$,2020-01-01,1", "missing_key"),
        (",,,", "missing_key"),
        ("Bitcoin,BTC,2020-01-01,1.445.399.932", "bad_number"),
        ('Bitcoin,BTC,2020-01-01,"1,44,5"', "bad_number"),
        ("Bitcoin,BTC,2020-01-01,€1.5", "not_usd"),
        ("Bitcoin,BTC,2020-01-01,1.5 EUR", "not_usd"),
        ("Bitcoin,BTC,2020-01-01,1.5%", "bad_number"),
        ("Bitcoin,BTC,2020-01-01,1e9999", "number_out_of_range"),
        ("Bitcoin,BTC,2008-12-31,1", "before_first_day"),
        ("Bitcoin,BTC,2026-11-21,1", "future_day"),
        ('"Bitcoin"s,BTC,2020-01-01,1', "bad_quoting"),
        ('Bitcoin,BTC,2020-01-01,"1', "bad_quoting"),
        ("x" * 600 + ",BTC,2020-01-01,1", "bad_text"),
        ("Name,Symbol,Date,Close", "bad_time"),
    ],
)
def test_a_record_that_is_no_observation_is_quarantined(line, code):
    parsed = read(f"Name,Symbol,Date,Close\nEthereum,ETH,2020-01-01,1\n\n{line}\nTether,USDT,2020-01-01,1\n")
    assert parsed.records == 3
    assert parsed.observations["symbol"].to_pylist() == ["ETH", "USDT"]
    (quarantined,) = parsed.quarantined
    assert (quarantined.reason_code, quarantined.position) == (code, 4)
    assert quarantined.location == "drop/prices.csv:4"
    assert quarantined.record == line
    assert "\n" not in quarantined.reason


@pytest.mark.parametrize("null", ["", "-", "N/A", "nan", "null", "None"])
def test_nulls(null):
    assert rows(f"id,date,price,rank\nbitcoin,2020-01-01,{null},{null}\n", "price_usd", "rank") == [(None, None)]


def test_the_first_time_that_can_be_read_counts():
    content = "id,last_updated,timestamp_ms,date,time,price\n"
    content += "a,2022-01-01T05:00:00Z,1623369600000,2021-01-01,23:00,1\n"
    content += "b,,1623369600000.0,2021-01-01,23:00,1\n"
    content += "c,,1.62337E+12,2021-01-01,23:00,1\n"
    content += "d,,,2021-01-01 22:00:00,23:00,1\n"
    assert [time.isoformat() for (time,) in rows(content, "observed_at")] == [
        "2022-01-01T05:00:00+00:00",
        "2021-06-11T00:00:00+00:00",
        "2021-01-01T23:00:00+00:00",
        "2021-01-01T22:00:00+00:00",
    ]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["1.6387488E+12", "1.638756E+12", "1.63875E+12"], ["00:00:00", "02:00:00", "00:20:00"]),  # nothing lost
        (["1.63874886E+12", "1.6387489e+12"], None),  # the second one is no whole minute
        (["1.638748E+12", "1.638752E+12", "1.638755E+12"], None),  # hours, by printf("%e")
        (["1.63875E+12", "1.63875E+12"], None),
        (["1.638748861E+12", "1.63874886E+12"], ["00:01:01", "00:01:00"]),
        (["1.638748861E+09", "1.6387488E+09"], ["00:01:01", "00:00:00"]),
        (["1.638748E+09", "1.638752E+09"], None),
    ],
)
def test_times_with_an_exponent_are_read_where_all_their_digits_are_there(times, expected):
    parsed = read("id,unix,price\n" + "".join(f"a,{value},{row}\n" for row, value in enumerate(times)))
    if expected is None:
        assert [refused.reason_code for refused in parsed.quarantined] == ["bad_time"] * len(times)
    else:
        assert sorted(row.time().isoformat() for row in parsed.observations["observed_at"].to_pylist()) == sorted(
            expected
        )
        assert parsed.quarantined == []


def test_a_day_does_not_stand_in_for_a_time_that_lost_its_digits():
    content = "unix,date,id,close\n1.63875E+12,2021-12-06,a,1\n"
    assert codes(content) == [("drop/prices.csv:2", "bad_time")]


def test_equal_rows_are_duplicates_and_of_different_ones_the_last_counts():
    content = "id,date,price\na,2020-01-01,1\na,2020-01-01,1\na,2020-01-01,2\n"
    parsed = read(content)
    assert (parsed.records, parsed.duplicates) == (3, 1)
    assert parsed.observations.select(["price_usd", "position"]).to_pylist() == [{"price_usd": "2", "position": 4}]
    (quarantined,) = parsed.quarantined
    assert (quarantined.location, quarantined.reason_code) == ("drop/prices.csv:2", "conflict")
    assert quarantined.reason.startswith("drop/prices.csv:4 says something else")


def test_quoted_fields_go_over_lines_and_line_ends_may_be_mixed():
    content = 'name,symbol,date,price\r\n"Two\nlines, and ""more""",T,2020-01-01,1\nB,b,2020-01-01,2\r\n'
    assert rows(content, "name", "position") == [('Two\nlines, and "more"', 2), ("B", 4)]


def test_a_byte_order_mark_and_other_scripts():
    assert rows("\ufeffid,name,date,price\nbtc,₿itcoin,2020-01-01,1\n", "source_coin_id", "name") == [
        ("btc", "₿itcoin")
    ]


def later_block(body: bytes):
    """A block that begins on line 1001 of a file with a header."""
    dialect = read_dialect(lambda: [b"id,date,price\n"], CSV, "drop/prices.csv")
    return parse_csv(delivery(body, "drop/prices.csv", position=1, first_record=1001), dialect)


def test_later_blocks_have_no_header_and_count_the_lines_of_the_file():
    parsed = later_block(b"a,2020-01-01,1\nb,2020-01-01,x\n")
    assert parsed.observations["position"].to_pylist() == [1]
    assert [(q.position, q.location) for q in parsed.quarantined] == [(2, "drop/prices.csv:1002")]


def test_bytes_that_are_no_text_cost_one_record():
    parsed = later_block(b"a,2020-01-01,1\nb\xff,2020-01-01,1\nc\0,2020-01-01,1\nd,2020-01-01,1\n")
    assert parsed.observations["source_coin_id"].to_pylist() == ["a", "d"]
    assert [(q.reason_code, q.record) for q in parsed.quarantined] == [
        ("bad_text", "b\\xff,2020-01-01,1"),
        ("bad_text", "c\\x00,2020-01-01,1"),
    ]


def test_a_file_that_cannot_be_read_is_one_quarantined_record():
    dialect = read_dialect(lambda: [b"Date,Price\n"], CSV, "drop/prices.csv")
    first = parse_csv(delivery(b"Date,Price\n", "drop/prices.csv"), dialect)
    later = parse_csv(delivery(b"2020-01-01,1\n", "drop/prices.csv", position=1, first_record=2), dialect)
    (quarantined,) = first.quarantined
    assert (first.records, quarantined.position, quarantined.location) == (1, 0, "drop/prices.csv")
    assert quarantined.reason_code == "no_known_column"
    assert (later.records, later.quarantined, later.observations.num_rows) == (0, [], 0)


@given(st.text('a1,";\n\r\t-.\0\ufeff€', max_size=80))
def test_any_text_is_accounted_for(text):
    read("id,date,price\n" + text)
    read(text)


@given(st.binary(max_size=80))
def test_any_bytes_are_accounted_for(content):
    read(b"id,date,price\n" + content)
    later_block(content)


def test_a_currency_beside_the_coin_is_what_the_price_is_in():
    content = "coin,date,price,currency\nbitcoin,2020-01-01,1,USD\nbitcoin,2020-01-02,2,EUR\n"
    parsed = read(content)
    assert parsed.observations.select(["source_coin_id", "symbol", "price_usd"]).to_pylist() == [
        {"source_coin_id": "bitcoin", "symbol": None, "price_usd": "1"}
    ]
    assert codes(content) == [("drop/prices.csv:3", "not_usd")]


def test_marks_of_files_that_were_joined_are_no_part_of_a_coin():
    content = "id,date,price\nbtc,2020-01-01,1\n\ufeffbtc,2020-01-02,2\nbtc\u200b,2020-01-03,3\n\ufeff2020-01-03,4,5\n"
    parsed = read(content)
    assert parsed.observations.select(["source_coin_id", "price_usd", "position"]).to_pylist() == [
        {"source_coin_id": "btc", "price_usd": str(line - 1), "position": line} for line in (2, 3, 4)
    ]
    assert codes(content) == [("drop/prices.csv:5", "bad_time")]
    pairs = "pair,date,price\n\ufeffBTC/USD,2020-01-01,1\nBTC/USD\ufeff,2020-01-02,1\n"
    assert rows(pairs, "source_coin_id") == [("prices:BTC/USD",)] * 2


def test_blanks_may_stand_before_a_quote():
    content = (
        'symbol, "name", "date", "price"\nBTC, "Bitcoin, the first", "2020-01-01", "1"\nETH, "Ether", 2020-01-01, 2\n'
    )
    assert rows(content, "symbol", "name", "price_usd") == [("BTC", "Bitcoin, the first", "1"), ("ETH", "Ether", "2")]


def test_a_day_without_its_time_is_not_taken_for_midnight():
    content = "symbol,date,time,price\nBTC,2020-01-01,00:00,1\nBTC,2020-01-01,,2\nBTC,2020-01-01,-,3\n"
    parsed = read(content)
    assert parsed.observations["price_usd"].to_pylist() == ["1"]
    assert codes(content) == [("drop/prices.csv:3", "bad_time"), ("drop/prices.csv:4", "bad_time")]
    whole_days = "symbol,date,time,price\nBTC,2020-01-01,,1\nBTC,2020-01-02,-,2\n"
    assert rows(whole_days, "observed_at") == [(datetime(2020, 1, day, tzinfo=UTC),) for day in (1, 2)]


def test_signs_that_are_no_currency_are_no_reason_to_ask_for_usd():
    assert codes("id,date,price,rank\na,2020-01-01,?5,1\nb,2020-01-01,#5,2\nc,2020-01-01,5,#3\n") == [
        (f"drop/prices.csv:{line}", "bad_number") for line in (2, 3, 4)
    ]

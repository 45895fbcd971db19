from __future__ import annotations

import subprocess
import sys

import pytest

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.csv.dialect import read_dialect
from kasparro_pipeline.sources.csv.header import SAMPLE_RECORDS, CsvMapping
from kasparro_tests.sources.samples import CSV

HEADER = "Name,Symbol,Date,Close"
ROW = "Bitcoin,BTC,2020-01-01,1.5\n"


def dialect(*blocks: str | bytes, request: str = "drop/prices.csv"):
    bodies = [block.encode() if isinstance(block, str) else block for block in blocks]
    return read_dialect(lambda: bodies, CSV, request)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_shows_the_columns(delimiter):
    found = dialect(f"{HEADER}\n{ROW}".replace(",", delimiter))
    assert found.layout.delimiter == delimiter
    assert found.layout.header == ("Name", "Symbol", "Date", "Close")
    assert found.problem is None


@pytest.mark.parametrize(
    ("above", "line"),
    [
        ("", 1),
        ("https://www.CryptoDataDownload.com\n", 2),
        ("Created on 10-17-2019,https://a.test\r\n\r\n", 3),
        ("\ufeff", 1),
        ("x\n" * 19, 20),
    ],
)
def test_the_header_may_stand_below_other_lines(above, line):
    assert dialect(f"{above}{HEADER}\n{ROW}").layout.header_line == line


def test_header_names_are_matched_without_case_blanks_and_underscores():
    found = dialect('"coin name",SYMBOL, last_Updated ,Current Price,MARKET-CAP,total volume\n')
    assert dict(found.layout.columns) == {
        "name": 0,
        "symbol": 1,
        "price_usd": 3,
        "market_cap_usd": 4,
        "volume_24h_usd": 5,
    }
    assert found.layout.times == (2,)


def test_the_better_name_wins_wherever_it_stands():
    found = dialect("id,date,close,volume,Volume USD,price\n")
    assert dict(found.layout.columns) == {"source_coin_id": 0, "price_usd": 5, "volume_24h_usd": 4}


@pytest.mark.parametrize(
    ("header", "coin"),
    [
        ("id,symbol,name,date,price", "id"),
        ("name,symbol,date,price", "slug"),
        ("pair,date,price", "pair"),
        ("symbol,date,price", "pair"),
        ("currency,date,price", "symbol"),
    ],
)
def test_what_the_coin_is_known_by(header, coin):
    found = dialect(header + "\n")
    assert found.layout.coin == coin
    assert found.layout.pair_prefix == ("prices:" if coin == "pair" else "")


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("", "empty_file", "no record"),
        ("\n \r\n", "empty_file", "no record"),
        ("\ufeff", "empty_file", "no record"),
        (b"PK\x03\x04\0\0", "binary_file", "NUL"),
        ((HEADER + "\n").encode("utf-32"), "encoding", "UTF-32"),
        ("Date,Price,Open\n2020-01-01,1,2\n", "no_known_column", "the nearest is 'Date,Price,Open' (line 1)"),
        ("name,symbol,price\n", "no_known_column", "'name,symbol,price' (line 1)"),
        ("id,date,prise\n", "no_known_column", "'id,date,prise' (line 1)"),
        ("x\n" * 20 + HEADER + "\n", "no_known_column", "in the first 20 lines"),
        ('"' * 7, "no_known_column", "(line 1)"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(content, code, said):
    problem = dialect(content).problem
    assert problem[0] == code
    assert said in problem[1]


def dated(*dates: str, header: str = HEADER) -> str:
    return header + "\n" + "".join(f"Bitcoin,BTC,{date},1.5\n" for date in dates)


@pytest.mark.parametrize(
    ("dates", "order"),
    [
        (["2020-01-01", "2020-02-01"], None),
        (["01-02-20", "13-02-20"], "dmy"),
        (["01/02/2020", "02/13/2020"], "mdy"),
        (["", "n/a", "01.02.2020 23:59", "31.12.2020 23:59"], "dmy"),
    ],
)
def test_the_order_of_dates_is_decided_by_the_file(dates, order):
    found = dialect(dated(*dates))
    assert (found.date_order, found.problem) == (order, None)


def test_the_order_may_be_decided_by_a_much_later_record():
    undecided = ["01-02-20"] * 1500
    assert dialect(dated(*undecided), "Bitcoin,BTC,28-02-20,1.5\n").date_order == "dmy"


def test_dates_that_contradict_each_other_refuse_the_file():
    code, reason = dialect(dated("13-01-20", "01-13-20")).problem
    assert code == "ambiguous_dates"
    assert "'13-01-20' and '01-13-20'" in reason


def test_a_year_may_come_first_with_two_digits_only():
    assert dialect(dated("17-10-27", "17-10-30")).problem[0] == "ambiguous_dates"
    assert read_dialect(lambda: [dated("17-10-27", "17-10-30").encode()], CSV, "a.csv", (), 2026).date_order == "ymd"


def test_dates_that_stay_ambiguous_refuse_the_file():
    code, reason = dialect(dated("01-02-20"), "Bitcoin,BTC,12/12/2020,1\n").problem
    assert code == "ambiguous_dates"
    assert "'01-02-20'" in reason


def test_ambiguous_dates_do_no_harm_beside_a_time_that_can_be_read():
    assert dialect("unix,date,symbol,close\n1660953600,01-02-20,BTC/USD,1\n").problem is None


def test_ambiguous_dates_count_where_the_better_time_has_lost_its_digits():
    content = "unix,date,time,symbol,close\n1.63875E+12,06-12-21,23:00:00,BTC/USD,1\n"
    assert dialect(content).problem[0] == "ambiguous_dates"
    assert dialect(content, "1.63875E+12,30-11-21,23:00:00,BTC/USD,1\n").date_order == "dmy"


def test_the_fingerprint_tells_readings_apart():
    readings = [
        dialect(dated("2020-01-01")),
        dialect(dated("2020-01-01").replace(",", ";")),
        dialect(dated("13-01-20")),
        dialect(dated("01-13-20")),
        dialect(dated("2020-01-01", header="Symbol,Name,Date,Close")),
        dialect("symbol,date,close\n", request="a.csv"),
        dialect("symbol,date,close\n", request="b.csv"),
        dialect(""),
    ]
    assert len({reading.fingerprint for reading in readings}) == len(readings)
    assert dialect("junk\n" + dated("2020-01-01")).fingerprint == readings[0].fingerprint


def test_the_fingerprint_is_the_same_in_every_process():
    code = (
        "from kasparro_tests.sources.samples import CSV\n"
        "from kasparro_pipeline.sources.csv.dialect import read_dialect\n"
        "print(read_dialect(lambda: [b'pair,date,close,volume usd\\n'], CSV, 'a.csv').fingerprint)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == dialect("pair,date,close,volume usd\n", request="a.csv").fingerprint


def test_a_mapping_of_unknown_columns_is_refused():
    with pytest.raises(KasparroError, match="mapping: no column prise; there are "):
        CsvMapping({"prise": ("price",)})


def test_a_header_with_two_columns_of_one_name_is_refused_where_that_is_read():
    code, said = dialect("symbol,date,Close,open,close\nBTC,2020-01-01,1,1,2\n").problem
    assert (code, said) == (
        "ambiguous_header",
        "2 columns are called 'Close', and nothing tells which counts; rename all but one of them",
    )
    assert dialect("symbol,date,note,close,note\nBTC,2020-01-01,a,2,b\n").problem is None


@pytest.mark.parametrize(
    ("content", "coin"),
    [
        ("id,symbol,date,price\n1,BTC,2020-01-01,1\n2,BTC,2020-01-02,1\n3,ETH,2020-01-01,1\n", "pair"),
        ("id,symbol,name,date,price\n9,BTC,Bitcoin,2020-01-02,1\n8,BTC,Bitcoin,2020-01-01,1\n", "slug"),
        ("id,symbol,date,price\n1,BTC,2020-01-01,1\n1,BTC,2020-01-02,1\n2,LTC,2020-01-02,1\n", "id"),
        ("id,symbol,date,price\n1,BTC,2020-01-01,1\n2,LTC,2020-01-01,1\n", "id"),
        ("id,symbol,date,price\n825,USDT,2020-01-01,1\n9000,USDT,2020-01-01,1\n", "id"),
        ("id,symbol,date,price\n", "id"),
    ],
)
def test_row_numbers_are_no_ids(content, coin):
    assert dialect(content).layout.coin == coin


def test_row_numbers_alone_name_no_coin():
    content = "id,date,price\n1,2020-01-01,1\n2,2020-01-02,1\n"
    assert dialect(content).problem[0] == "no_known_column"
    assert dialect(content, request="yahoo/BTC-USD.csv").layout.coin == "file"


@pytest.mark.parametrize(
    ("content", "request_", "coin", "has_quote"),
    [
        ("coin,currency,date,price\nbitcoin,EUR,2020-01-01,1\n", "drop/prices.csv", "name", True),
        ("date,close,currency\n2020-01-01,1,usd\n", "yahoo/BTC-USD.csv", "file", True),
        ("currency,date,price\nBTC,2020-01-01,1\nUSDT,2020-01-01,1\n", "drop/prices.csv", "symbol", False),
        ("currency,name,date,price\nBTC,Bitcoin,2020-01-01,1\n", "drop/prices.csv", "slug", False),
    ],
)
def test_a_currency_is_a_coin_or_what_the_price_is_in(content, request_, coin, has_quote):
    layout = dialect(content, request=request_).layout
    assert (layout.coin, layout.quote_index is not None) == (coin, has_quote)


def test_a_currency_of_prices_alone_names_no_coin():
    assert dialect("currency,date,price\nUSD,2020-01-01,1\n").problem[0] == "no_known_column"


@pytest.mark.parametrize("late", ["02/13/2020", "13/02/20"])
def test_dates_are_decided_by_all_there_are(late):
    first = f"{HEADER}\n" + "Bitcoin,BTC,13/02/2020,1\n" * SAMPLE_RECORDS
    blocks = [first, "Bitcoin,BTC,01/02/2020,1\n" * 10, f"Ether,ETH,{late},1\n"]
    found = dialect(*blocks)
    if late.startswith("02"):
        assert found.problem[0] == "ambiguous_dates"
        assert "no order of day and month fits both '13/02/2020' and '02/13/2020'" in found.problem[1]
    else:
        assert (found.problem, found.date_order) == (None, "dmy")


def test_a_file_whose_dates_need_no_order_is_not_read_to_its_end():
    read = []

    def blocks():
        for block in (HEADER + "\n" + ROW * SAMPLE_RECORDS, ROW, ROW):
            read.append(block)
            yield block.encode()

    assert read_dialect(blocks, CSV, "drop/prices.csv", beyond_ascii=list).problem is None
    assert read.count(ROW) <= 1

"""Columns at once and records one by one: both ways say the same, whatever the file."""

from __future__ import annotations

import csv
import io
import os
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasparro_pipeline.sources.collect import FIRST_DAY
from kasparro_pipeline.sources.csv.dialect import CsvDialect, read_dialect
from kasparro_pipeline.sources.csv.encoding import decode
from kasparro_pipeline.sources.csv.parse import parse_csv
from kasparro_pipeline.sources.csv.records import parse_records
from kasparro_pipeline.sources.csv.text import records_of
from kasparro_pipeline.sources.records import Delivery, ParsedPayload
from kasparro_tests.sources.samples import CSV, delivery

REALDATA = Path(os.environ.get("KASPARRO_REALDATA") or "/nonexistent")


def one_by_one(block: Delivery, dialect: CsvDialect) -> ParsedPayload:
    text, _ = decode(block.body, dialect.encoding)
    header_ends = dialect.layout.header_line - block.first_record + 1
    records = [entry for entry in records_of(text) if entry[0] > header_ends and not entry[1].isspace()]
    return parse_records(block, dialect, records, FIRST_DAY)


def books(parsed: ParsedPayload):
    rows = sorted(parsed.observations.to_pylist(), key=lambda row: row["position"])
    return rows, parsed.records, parsed.duplicates, parsed.quarantined


def check_both_ways(content: bytes, request: str = "drop/prices.csv") -> ParsedPayload | None:
    dialect = read_dialect(lambda: [content], CSV, request, (), 2026)
    if dialect.problem is not None:
        return None
    block = delivery(content, request)
    parsed = parse_csv(block, dialect)
    assert books(parsed) == books(one_by_one(block, dialect))
    assert parsed.records == parsed.observations.num_rows + parsed.duplicates + len(parsed.quarantined)
    return parsed


COINS = st.sampled_from(["a", "b", " a", "", "-", "Ü", "a" * 600, "\u00a0b", "c d"])
TIMES = st.sampled_from(
    [
        *("2020-01-01 00:00:00", "2020-01-01T00:00:00Z", "2020-01-01 00:00:00.5", "2020-02-30 00:00:00"),
        *("2020-01-01", "1577836800", "1577836800000", "", "soon", "2008-01-01 00:00:00", "2030-01-01 00:00:00"),
        *("2020-01-01 24:00:00", "Jan 01, 2020", "2020-01-01 05-AM", "2020-01-01 00:00:00+02:00"),
    ]
)
PRICES = st.sampled_from(
    ["1", "1.5", "-2.50", ".5", "5.", "1e5", "1E-999", "+1", "", "n/a", " 1", "1 ", "x", "1.2.3", "$1.5K", "007", "1,5"]
)
RANKS = st.sampled_from(["1", "2.0", "", "x", "1.5", str(2**63)])
RECORDS = st.lists(st.tuples(COINS, TIMES, PRICES, RANKS), max_size=12)


@given(RECORDS, st.sampled_from([",", ";", "\t", "|"]), st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_any_mixture_of_good_and_bad_records(records, delimiter, line_end, is_quoted):
    file = io.StringIO()
    quoting = csv.QUOTE_ALL if is_quoted else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter=delimiter, lineterminator=line_end, quoting=quoting).writerows(
        [("id", "date", "price", "rank"), *records]
    )
    check_both_ways(file.getvalue().encode())


@given(st.lists(st.sampled_from(["2020-01-01 00:00:00", "2020-01-02 00:00:00Z", "2020-01-01T00:00:00+00:00"])), PRICES)
def test_times_that_are_all_plain(times, price):
    check_both_ways("".join(["id,date,price\n", *(f"a,{time},{price}\n" for time in times)]).encode())


@given(
    st.lists(
        st.sampled_from(['"', ",", "\n", "\r", "a", "1", "2020-01-01", ";", "\ufeff", "é", " ", '""', '","']),
        max_size=40,
    )
)
def test_any_text(pieces):
    text = "".join(pieces)
    check_both_ways(f"id,date,price\na,2020-01-01,1\n{text}".encode())
    check_both_ways(f'id,date,price\n"a","2020-01-01",1\n"b",2020-01-01,{text}\n'.encode())


@pytest.mark.parametrize("coin", ["symbol", "name,symbol", "currency", "pair", "name"])
@given(
    st.lists(
        st.tuples(st.sampled_from(["BTC/USD", "BTC/EUR", "BTCUSD", "BNBUSD", "BTC", "", "x" * 501]), PRICES), max_size=8
    )
)
def test_every_way_to_name_a_coin(coin, rows):
    header, width = f"{coin},date,close", coin.count(",") + 1
    lines = [",".join([*[name] * width, "2020-01-01", price]) for name, price in rows]
    check_both_ways("\n".join([header, *lines]).encode())


def test_the_currency_of_each_record():
    parsed = check_both_ways(
        b"id,symbol,currency,date,price\n" + b"a,A,USD,2020-01-01,1\nb,B,EUR,2020-01-01,1\nc,C,,2020-01-01,2\n"
    )
    assert parsed.observations["source_coin_id"].to_pylist() == ["a", "c"]


def test_a_time_may_be_completed_by_another_column():
    parsed = check_both_ways(
        b"id,unix,date,time,price\n" + b"a,1.63875E+12,2020-01-01,05:00:00,1\na,,2020-01-01,06:00,1\n"
    )
    assert parsed.observations.num_rows == 2


def test_records_that_share_a_key_are_counted_one_by_one():
    rows = [
        "a,2020-01-01,1",
        "b,2020-01-01,1",
        "a,2020-01-01,1",
        "b,2020-01-01,2",
        " b ,2020-01-01,$3",
        "c,2020-01-01,1",
    ]
    parsed = check_both_ways("\n".join(["id,date,price", *rows]).encode())
    assert (parsed.records, parsed.duplicates) == (6, 1)
    assert [refused.reason_code for refused in parsed.quarantined] == ["conflict", "conflict"]
    assert parsed.observations["price_usd"].to_pylist() == ["1", "3", "1"]


DIALECTS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from([",", ";", "\t", "|"]),
        "encoding": st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"]),
        "line_end": st.sampled_from(["\n", "\r\n", "\r"]),
        "decimal": st.sampled_from([".", ","]),
        "quoting": st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
        "time": st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%d-%m-%y", "%b %d, %Y", "%Y-%m-%dT%H:%M:%SZ"]),
        "above": st.sampled_from(["", "https://www.example.test\n", "junk;junk,junk\n\n"]),
        "grouped": st.booleans(),
    }
)
TABLES = st.lists(
    st.tuples(
        st.text("abÄß,;\"|\t' é", min_size=1, max_size=8).filter(lambda text: text.strip() and text.isprintable()),
        st.dates(date(2013, 1, 1), date(2026, 11, 19)),
        st.decimals(0, 10**9, places=8),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda row: (row[0].strip(), row[1]),
)


def written(rows, told) -> bytes:
    file = io.StringIO()
    file.write(told["above"].replace("\n", told["line_end"]))
    writer = csv.writer(file, delimiter=told["delimiter"], lineterminator=told["line_end"], quoting=told["quoting"])
    writer.writerow(["id", "date", "price"])
    signs = {ord(","): ".", ord("."): ","} if told["decimal"] == "," else {}
    for name, day, price in rows:
        number = f"{price:,f}" if told["grouped"] else f"{price:f}"
        writer.writerow([name, day.strftime(told["time"]), number.translate(signs)])
    return file.getvalue().encode(told["encoding"])


@given(TABLES, DIALECTS)
def test_a_table_in_any_dialect_is_read_back_exactly(rows, told):
    # Two rows that settle what the others may leave open.
    rows = [*rows, ("settles", date(2024, 10, 31), Decimal("0.25")), ("settles", date(2024, 12, 30), Decimal("1.5"))]
    parsed = check_both_ways(written(rows, told))
    assert parsed is not None
    assert parsed.quarantined == []
    found = parsed.observations.select(["source_coin_id", "observed_at", "price_usd"]).to_pylist()
    assert [(row["source_coin_id"], row["observed_at"].date(), Decimal(row["price_usd"])) for row in found] == [
        (name.strip(), day, price) for name, day, price in rows
    ]


@given(TABLES, DIALECTS, st.data())
def test_any_cut_between_records_gives_the_same_rows(rows, told, data):
    rows = [*rows, ("settles", date(2024, 10, 31), Decimal("0.25")), ("settles", date(2024, 12, 30), Decimal("1.5"))]
    content = written(rows, told)
    dialect = read_dialect(lambda: [content], CSV, "drop/prices.csv", (), 2026)
    text, _ = decode(content, dialect.encoding)
    starts = [line for line, _ in records_of(text)]
    records = [record for _, record in records_of(text)]
    cut = data.draw(st.integers(0, len(records)))
    codec = told["encoding"].replace("-sig", "")
    codec = "utf-16-le" if codec == "utf-16" else codec
    found = []
    for first, part in ((1, records[:cut]), (starts[cut] if cut < len(records) else 1, records[cut:])):
        block = delivery("".join(part).encode(codec), "drop/prices.csv", position=first > 1, first_record=first)
        parsed = parse_csv(block, dialect)
        assert parsed.quarantined == []
        found += [(first - 1 + position, *row) for position, *row in placed(parsed)]
    assert found == placed(parse_csv(delivery(content, "drop/prices.csv"), dialect))


def placed(parsed: ParsedPayload) -> list[tuple]:
    columns = ("position", "source_coin_id", "observed_at", "price_usd")
    return list(zip(*(parsed.observations[column].to_pylist() for column in columns), strict=True))


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="KASPARRO_REALDATA names no folder")
@pytest.mark.parametrize("path", sorted(REALDATA.glob("csv/**/*.csv")), ids=lambda path: path.name)
def test_real_files(path):
    content = path.read_bytes()[:200_000].rpartition(b"\n")[0] + b"\n"
    assert check_both_ways(content, path.name) is not None

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources import json_records
from kasparro_pipeline.sources.json_records import JsonMapping, parse_json
from kasparro_pipeline.sources.records import OBSERVATION_SCHEMA
from kasparro_tests.sources.samples import COINGECKO, COINPAPRIKA, NOW, delivery

MARKET = {
    "id": "bitcoin",
    "symbol": "btc",
    "name": "Bitcoin",
    "image": "https://images.test/1.png",
    "current_price": 23197,
    "market_cap": 443243318907,
    "market_cap_rank": 1,
    "total_volume": 44434195912,
    "circulating_supply": 19109818.0,
    "total_supply": 21000000.0,
    "max_supply": None,
    "roi": None,
    "last_updated": "2022-08-02T01:08:26.342Z",
}
TICKER = {
    "id": "btc-bitcoin",
    "name": "Bitcoin",
    "symbol": "BTC",
    "rank": 1,
    "circulating_supply": 0,
    "total_supply": 18784088,
    "max_supply": 0,
    "last_updated": "2021-08-12T19:06:04Z",
    "quotes": {"USD": {"price": 44456.514304206, "volume_24h": 0, "market_cap": 0}},
}


def without(record, *keys):
    return {key: value for key, value in record.items() if key not in keys}


def parse(*records, mapping=COINGECKO, **options):
    texts = [record if isinstance(record, str) else json.dumps(record) for record in records]
    return parse_bytes(f"[{','.join(texts)}]".encode("utf-8", "surrogateescape"), mapping, **options)


def parse_bytes(body, mapping=COINGECKO, **options):
    parsed = parse_json(delivery(body), mapping, **options)
    assert parsed.records == parsed.observations.num_rows + parsed.duplicates + len(parsed.quarantined)
    assert parsed.observations.schema == OBSERVATION_SCHEMA
    return parsed


def refused(*records, mapping=COINGECKO, **options):
    """The only quarantined record."""
    parsed = parse(*records, mapping=mapping, **options)
    (quarantined,) = parsed.quarantined
    return quarantined


def test_a_coingecko_record():
    body = json.dumps([MARKET], indent=4).encode()
    parsed = parse_bytes(body)
    assert (parsed.records, parsed.duplicates, parsed.quarantined) == (1, 0, [])
    assert parsed.observations.to_pylist() == [
        {
            "source": "test",
            "source_coin_id": "bitcoin",
            "observed_at": datetime(2022, 8, 2, 1, 8, 26, 342000, UTC),
            "symbol": "btc",
            "name": "Bitcoin",
            "price_usd": "23197",
            "market_cap_usd": "443243318907",
            "volume_24h_usd": "44434195912",
            "circulating_supply": "19109818.0",
            "total_supply": "21000000.0",
            "max_supply": None,
            "rank": 1,
            "fetched_at": NOW,
            "payload_sha256": delivery(body).sha256,
            "position": 1,
        }
    ]


def test_a_coinpaprika_record_whose_zeros_mean_unknown_where_the_mapping_says_so():
    (row,) = parse(TICKER, mapping=COINPAPRIKA).observations.to_pylist()
    assert row["price_usd"] == "44456.514304206"
    assert row["volume_24h_usd"] == "0"
    assert row["total_supply"] == "18784088"
    assert [row[name] for name in ("market_cap_usd", "circulating_supply", "max_supply")] == [None] * 3


NUMBERS = st.one_of(
    st.integers(-(10**60), 10**60).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=30).map(lambda number: f"{number:f}"),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["3.84e-18", "9223372036854775807", "1.97e37", "1E+400", "-0.0", "1.00", "0.1e-5"]),
)


@given(st.lists(NUMBERS, min_size=6, max_size=6), st.booleans())
def test_digits_in_are_digits_out(numbers, quoted):
    columns = ("price_usd", "market_cap_usd", "volume_24h_usd", "circulating_supply", "total_supply", "max_supply")
    written = [f'"{number}"' if quoted else number for number in numbers]
    members = ",".join(
        f'"{COINGECKO.columns[column][0]}":{text}' for column, text in zip(columns, written, strict=True)
    )
    parsed = parse(f'{{"id":"x","last_updated":"2022-01-01",{members}}}')
    (row,) = parsed.observations.to_pylist()
    assert [row[column] for column in columns] == numbers


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id": None}, "missing_key"),
        ({"id": " "}, "missing_key"),
        ({"id": 1.5}, "bad_type"),
        ({"id": "a\0b"}, "bad_text"),
        ({"id": "x" * 600}, "bad_text"),
        ({"name": ["Bitcoin"]}, "bad_type"),
        ({"symbol": True}, "bad_type"),
        ({"last_updated": None}, "missing_key"),
        ({"last_updated": "soon"}, "bad_time"),
        ({"last_updated": True}, "bad_time"),
        ({"last_updated": "2009-01-02T23:59:59Z"}, "before_first_day"),
        ({"last_updated": "2026-11-21T00:00:00Z"}, "future_day"),
        ({"current_price": True}, "bad_number"),
        ({"current_price": {"usd": 1}}, "bad_number"),
        ({"current_price": [1]}, "bad_number"),
        ({"current_price": "12 USD"}, "bad_number"),
        ({"market_cap_rank": 1.5}, "bad_number"),
        ({"market_cap_rank": 10**19}, "number_out_of_range"),
    ],
)
def test_a_record_that_is_no_observation_is_quarantined(change, code):
    record = {**MARKET, **change}
    quarantined = refused({**MARKET, "id": "other"}, record)
    assert quarantined.reason_code == code
    assert quarantined.position == 2
    assert quarantined.location == "https://vendor.test/coins record 2"
    assert json.loads(quarantined.record) == record
    assert "\n" not in quarantined.reason


@pytest.mark.parametrize("key", ["id", "last_updated", "current_price"])
def test_a_record_without_a_key_or_a_price_is_quarantined(key):
    assert refused(without(MARKET, key)).reason_code == ("missing_price" if key == "current_price" else "missing_key")


def test_a_price_of_null_is_an_observation_without_a_price():
    assert parse({**MARKET, "current_price": None}).observations["price_usd"].to_pylist() == [None]


def test_times_may_be_epochs_and_numbers_may_be_strings():
    (row,) = parse({**MARKET, "last_updated": 1660953600, "current_price": "0.10"}).observations.to_pylist()
    assert row["observed_at"] == datetime(2022, 8, 20, tzinfo=UTC)
    assert row["price_usd"] == "0.10"


def test_the_bounds_of_days_are_the_first_day_and_the_day_of_fetching():
    inside = [{**MARKET, "last_updated": time} for time in ("2020-01-01T00:00:00Z", "2026-11-20T23:59:59.999Z")]
    assert parse(*inside, first_day=date(2020, 1, 1)).observations.num_rows == 2
    assert refused(*inside, first_day=date(2020, 1, 2)).reason_code == "before_first_day"


@pytest.mark.parametrize(
    ("quotes", "code"),
    [({"KRW": {"price": 1}}, "no_usd_quote"), ({}, "no_usd_quote"), ([], "bad_type"), ({"USD": 1}, "bad_type")],
)
def test_another_currency_is_never_taken_for_usd(quotes, code):
    quarantined = refused({**TICKER, "quotes": quotes}, mapping=COINPAPRIKA)
    assert quarantined.reason_code == code
    if "KRW" in quotes:
        assert quarantined.reason == "the record has no quotes.USD; it has 'KRW'"


def test_what_lies_in_an_object_that_is_null_is_null():
    parsed = parse({**TICKER, "quotes": {"USD": None}}, {**TICKER, "id": "b", "quotes": None}, mapping=COINPAPRIKA)
    assert parsed.quarantined == []
    for row in parsed.observations.to_pylist():
        assert [row[name] for name in ("price_usd", "market_cap_usd", "volume_24h_usd")] == [None] * 3


ITEMS = JsonMapping({"source_coin_id": ("0",), "price_usd": ("1", "2", "usd"), "rank": ("3",), "symbol": ("1", "0")})


@pytest.mark.parametrize("records", [1, 1000])
def test_numbers_in_a_path_are_places_in_an_array(records):
    made = [[f"coin-{number}", ["X", "other", {"usd": "1e-9"}, 4], {}, number] for number in range(records)]
    parsed = parse(*made, mapping=ITEMS)
    assert parsed.quarantined == []
    first = parsed.observations.to_pylist()[0]
    assert [first[name] for name in ("source_coin_id", "symbol", "price_usd", "rank")] == ["coin-0", "X", "1e-9", 0]


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ('["a"]', "missing_price"),
        ('["a",["X"]]', "missing_price"),
        ('["a",["X",1,{}]]', "missing_price"),
        ('["a",["X",1,7]]', "bad_type"),
        ('["a",{"2":{"usd":1}}]', "bad_type"),
        ('{"0":"a"}', "bad_type"),
        ("[]", "missing_key"),
        ("null", "bad_type"),
    ],
)
def test_an_array_that_is_no_observation_is_quarantined(record, code):
    assert refused(record, mapping=ITEMS).reason_code == code


def test_a_great_number_in_a_path_is_a_name():
    mapping = JsonMapping({"source_coin_id": ("id",), "price_usd": ("quote", "2781", "price")})
    (row,) = parse({"id": 1, "quote": {"2781": {"price": 7}}}, mapping=mapping).observations.to_pylist()
    assert row["price_usd"] == "7"


@pytest.mark.parametrize("odd", ["1", "NaN"])
def test_the_members_of_an_object_are_records_of_name_and_value(odd):
    mapping = JsonMapping({"source_coin_id": ("0",), "price_usd": ("1", "usd")}, ("prices", "*"))
    body = b'{"prices":{"a\\u00e9 \\"":{"usd":1.50}, "b":{"usd":null},"c":7},"odd":%b}' % odd.encode()
    parsed = parse_bytes(body, mapping)
    assert [(row["source_coin_id"], row["price_usd"]) for row in parsed.observations.to_pylist()] == [
        ('aé "', "1.50"),
        ("b", None),
    ]
    assert [(q.reason_code, q.record) for q in parsed.quarantined] == [("bad_type", '["c",7]')]


@pytest.mark.parametrize("told", ["1600000000", '"2020-09-13T14:26:40+02:00"', "1600000000000"])
@pytest.mark.parametrize("records", [1, 1000])
def test_one_time_may_be_that_of_all_records(told, records):
    mapping = JsonMapping({"source_coin_id": ("id",), "price_usd": ("p",)}, ("data",), ("info", "at"))
    data = b",".join(b'{"id":%d,"p":1}' % number for number in range(records))
    parsed = parse_bytes(b'{"data":[%b],"info":{"at":%b}}' % (data, told.encode()), mapping)
    assert not mapping.uses_fetched_at
    assert set(parsed.observations["observed_at"].to_pylist()) == {datetime(2020, 9, 13, 12, 26, 40, tzinfo=UTC)}


@pytest.mark.parametrize("told", ["{}", '{"info":null}', '{"info":{"at":""}}', '{"info":{"at":"soon"}}', '{"info":7}'])
def test_an_answer_without_the_time_of_its_records_is_quarantined_as_a_whole(told):
    mapping = JsonMapping({"source_coin_id": ("id",), "price_usd": ("p",)}, ("data",), ("info", "at"))
    body = json.dumps({"data": [{"id": "a", "p": 1}]} | json.loads(told)).encode()
    (quarantined,) = parse_bytes(body, mapping).quarantined
    assert quarantined.position == 0


def test_without_a_time_of_its_own_the_time_of_fetching_counts():
    columns = without(COINGECKO.columns, "observed_at")
    mapping = JsonMapping(columns)
    assert mapping.uses_fetched_at
    assert not COINGECKO.uses_fetched_at
    assert parse(MARKET, mapping=mapping).observations["observed_at"].to_pylist() == [NOW]


def test_equal_records_are_duplicates_and_of_different_ones_the_last_counts():
    first, second = {**MARKET, "current_price": 1}, {**MARKET, "current_price": 2}
    parsed = parse(first, first, second, {**MARKET, "id": "other"})
    assert (parsed.records, parsed.duplicates) == (4, 1)
    assert [(row["source_coin_id"], row["price_usd"], row["position"]) for row in parsed.observations.to_pylist()] == [
        ("bitcoin", "2", 3),
        ("other", "23197", 4),
    ]
    (quarantined,) = parsed.quarantined
    assert (quarantined.reason_code, quarantined.position) == ("conflict", 1)
    assert "https://vendor.test/coins record 3" in quarantined.reason


def test_odd_texts_cost_one_record_and_not_the_payload():
    odd = ['{"id":"\\ud800"}', '{"id":"x","image":"\\udfff"}', '{"id":"\udcff"}', '{"id":"x","current_price":NaN}']
    parsed = parse(MARKET, *odd, '"a, ] text"', "17", "[" * 90 + "]" * 90)
    assert parsed.observations["source_coin_id"].to_pylist() == ["bitcoin"]
    assert [q.reason_code for q in parsed.quarantined] == [
        "bad_text",
        "bad_text",
        "bad_text",
        "bad_json",
        *["bad_type"] * 3,
    ]
    assert [q.record for q in parsed.quarantined[:4]] == [*odd[:2], '{"id":"\\xff"}', odd[3]]


@pytest.mark.parametrize("odd", ['{"id":"\\ud800"}', '{"id":"x","current_price":NaN}', '{"id":"x","roi":-Infinity}'])
def test_odd_texts_within_the_answer_cost_one_record_and_not_the_payload(odd):
    mapping = JsonMapping(COINGECKO.columns, record_path=("data", "coins"))
    body = f'{{"at": NaN, "data": {{"coins": [{json.dumps(MARKET)}, {odd}], "n": 2}}, "next": "\\ud800"}}'.encode()
    parsed = parse_bytes(body, mapping)
    assert parsed.observations["source_coin_id"].to_pylist() == ["bitcoin"]
    assert [(q.position, q.record) for q in parsed.quarantined] == [(2, odd)]
    assert parse_bytes(body.replace(b"coins", b"list"), mapping).quarantined[0].reason == "the answer has no 'coins'"


@pytest.mark.parametrize(
    "body",
    [
        b'{"data":NaN}',
        b'{"data":[NaN]',
        b'{"data":[NaN],}',
        b'{"data" [NaN]}',
        b"{1:[NaN]}",
        b'{"data":[NaN]]}',
        b'{"data":{}',
        b'{"data"}',
        b"{",
        b'{"data":[[]}',
        b'{"data":[NaN',
    ],
)
def test_an_odd_text_does_not_make_an_array_of_what_is_none(body):
    (quarantined,) = parse_bytes(body, JsonMapping(COINGECKO.columns, record_path=("data",))).quarantined
    assert quarantined.reason_code == "unreadable_payload"


def test_what_reaches_the_database_holds_no_nul_and_no_line_end():
    quarantined = parse(
        {**TICKER, "quotes": {"K\0\nW" * 1000: 1}},
        {**TICKER, "id": "a\nb"},
        {**TICKER, "id": "a\nb", "rank": 2},
        mapping=COINPAPRIKA,
    ).quarantined
    assert [q.reason_code for q in quarantined] == ["no_usd_quote", "conflict"]
    assert all(q.reason.isprintable() and len(q.reason) < 300 for q in quarantined)


def test_a_long_record_is_shown_in_part():
    quarantined = refused({"id": None, "image": "x" * 100_000})
    assert len(quarantined.record) < 20_000
    assert quarantined.record.endswith("… (100025 bytes)")


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"",
            b"   ",
            b"[",
            b"[1,2",
            b"[1 2]",
            b"[1,]",
            b"[,]",
            b"[1]x",
            b"{}",
            b'"text"',
            b"null",
            b"<html></html>",
            b"\xff\xfe[",
        ),
        *(b"[" * 100_000, b"\0", b'["\\ud800",]', b'["\\ud800"', b'["\\ud800" 1]', b'["\\ud800"]]', b"[NaN", b"[[]"),
    ],
)
def test_a_payload_that_is_no_array_is_one_quarantined_record(body):
    parsed = parse_bytes(body)
    (quarantined,) = parsed.quarantined
    assert (quarantined.position, quarantined.reason_code) == (0, "unreadable_payload")
    assert quarantined.location == "https://vendor.test/coins"
    assert "\0" not in quarantined.record


def test_an_empty_page_holds_no_record():
    assert parse_bytes(b" [ ] ").records == 0


def test_records_within_the_answer():
    mapping = JsonMapping(COINGECKO.columns, record_path=("data", "coins"))
    body = json.dumps({"data": {"count": 1, "coins": [MARKET]}}).encode()
    assert parse_bytes(body, mapping).observations.num_rows == 1
    assert parse_bytes(b'{"data":{}}', mapping).quarantined[0].reason == "the answer has no 'coins'"
    assert parse_bytes(b"[]", mapping).quarantined[0].reason_code == "unreadable_payload"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*MARKET, "x"]), inner),
    )
)
def test_any_json_is_accounted_for(value):
    parse_bytes(json.dumps(value).encode())


TEXTS = st.sampled_from(["a", "b", " a ", "", "é", "a\tb", "x" * 501, None, 7, 1.5, True, ["a"], "\ud800", "a,b"])
TIMES = st.sampled_from(
    [
        *(
            "2021-01-01T00:00:00Z",
            "2021-01-01T00:00:00.123Z",
            "2021-01-01",
            "",
            "soon",
            "1577836800",
            "2021-02-30 00:00:00",
        ),
        *(
            1577836800,
            1577836800000,
            None,
            0,
            {"at": 1},
            "2008-01-01T00:00:00Z",
            "2030-01-01T00:00:00Z",
            "2021-01-01T00:00:00,5",
        ),
    ]
)
VALUES = st.sampled_from(
    [0, 1, -0.0, 1.5, -2, 3.84e-18, 1e300, 10**45, None, "1.5", "1,5", "x", "", True, [1], {"a": 1}, "0", float("nan")]
)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"id": TEXTS, "last_updated": TIMES},
        optional={
            "symbol": TEXTS,
            "name": TEXTS,
            "current_price": VALUES,
            "market_cap": VALUES,
            "market_cap_rank": VALUES,
        },
    )
)
GOOD = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.sampled_from("abcd"),
            "last_updated": st.sampled_from(["2021-01-01T00:00:00Z", "2021-01-02T00:00:00.5Z", "2021-02-30T00:00:00Z"]),
            "current_price": st.sampled_from([0, 0.0, 1, -1.25, 1e-7, None, 10**45, 1e300]),
            "market_cap_rank": st.sampled_from([0, 1, 2.0, None, 10**18, 1.5]),
        }
    )
)


@pytest.mark.parametrize("zero_is_null", [set(), {"price_usd", "rank"}])
@given(RECORDS | GOOD)
def test_records_at_once_say_what_they_say_one_by_one(zero_is_null, records):
    mapping = JsonMapping(COINGECKO.columns, zero_is_null=frozenset(zero_is_null))
    body = json.dumps(records).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_records, "AT_ONCE", 1)
        at_once = parse_bytes(body, mapping)
        patch.setattr(json_records, "AT_ONCE", 10**9)
        one_by_one = parse_bytes(body, mapping)
    assert at_once.observations.sort_by("position").equals(one_by_one.observations.sort_by("position"))
    assert (at_once.records, at_once.duplicates) == (one_by_one.records, one_by_one.duplicates)
    assert at_once.quarantined == one_by_one.quarantined


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["2021-01-01", "2021-01-02"]), st.integers(1, 2))))
def test_the_last_of_each_key_counts_whatever_the_order(rows):
    records = [{"id": coin, "last_updated": day, "current_price": price} for coin, day, price in rows]
    parsed = parse(*records)
    kept = {
        (row["source_coin_id"], str(row["observed_at"].date())): int(Decimal(row["price_usd"]))
        for row in parsed.observations.to_pylist()
    }
    assert kept == {(coin, day): price for coin, day, price in rows}


@pytest.mark.parametrize(
    "columns",
    [
        {"source_coin_id": ("id",)},
        {"price_usd": ("price",)},
        {**COINGECKO.columns, "prise": ("price",)},
        {**COINGECKO.columns, "name": ()},
        {**COINGECKO.columns, "name": ("symbol", "name")},
    ],
)
def test_a_mapping_that_cannot_work_is_refused(columns):
    with pytest.raises(KasparroError, match=r"^mapping: "):
        JsonMapping(columns)

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.fields import RefusedError


def refusal(read, *arguments) -> str:
    with pytest.raises(RefusedError) as caught:
        read("column", *arguments)
    assert caught.value.reason.startswith("column: ")
    assert "\n" not in caught.value.reason
    return caught.value.code


@given(
    st.builds(
        lambda sign, integer, fraction, exponent: sign + integer + fraction + exponent,
        st.sampled_from(["", "-", "+"]),
        st.text("0123456789", min_size=1, max_size=60),
        st.one_of(st.just(""), st.text("0123456789", max_size=60).map(".{}".format)),
        st.one_of(st.just(""), st.integers(-999, 999).map("e{}".format), st.integers(0, 999).map("E+{}".format)),
    )
)
def test_digits_in_are_digits_out(value):
    assert fields.number("column", value) == value
    assert fields.is_zero(value) == (Decimal(value) == 0)


@given(st.text(max_size=30))
def test_a_text_is_a_number_a_null_or_refused(value):
    try:
        number = fields.number("column", value)
    except RefusedError as refused:
        assert refused.code in {"bad_number", "number_out_of_range"}
    else:
        assert number is None or (number.isascii() and Decimal(number).is_finite())


@pytest.mark.parametrize("value", ["", " ", "-", "N/A", "n/a", "nan", "NaN", "NULL", "None", "NA", "#N/A", "--", "\\N"])
def test_nulls(value):
    assert fields.number("column", value) is None
    assert fields.whole("column", value) is None


@pytest.mark.parametrize(
    "value",
    [
        *(
            "1.445.399.932.861.320",
            "539.692.714.905",
            "1,234.5",
            "1 234",
            "$5",
            "5%",
            "10,36K",
            "1.7T",
            "0x10",
            "1_000",
        ),
        *("٣", "½", "Infinity", "-inf", "true", ".", "e5", "1e", "--1", "1e5.5", "²"),
    ],
)
def test_what_is_not_plainly_a_number_is_refused(value):
    assert refusal(fields.number, value) == "bad_number"


@pytest.mark.parametrize("value", ["1e1001", "1e-1001", "0e99999", "1" * 1001, "0." + "0" * 1000, "1e" + "9" * 5000])
def test_numbers_beyond_numeric_are_refused(value):
    assert refusal(fields.number, value) == "number_out_of_range"


@pytest.mark.parametrize(
    ("value", "number"), [("7", 7), ("7.0", 7), ("1e3", 1000), ("-0", 0), (str(2**63 - 1), 2**63 - 1)]
)
def test_whole_numbers(value, number):
    assert fields.whole("column", value) == number


@pytest.mark.parametrize(
    ("value", "code"),
    [("1.5", "bad_number"), (str(2**63), "number_out_of_range"), ("1e999", "number_out_of_range"), ("x", "bad_number")],
)
def test_what_is_no_whole_number_of_64_bits_is_refused(value, code):
    assert refusal(fields.whole, value) == code


def test_texts_keep_what_they_say():
    assert fields.text("column", " ༼ つ ◕_◕ ༽つ\n") == "༼ つ ◕_◕ ༽つ"
    assert fields.text("column", 1027) == "1027"
    assert fields.text("column", "  ") is None
    assert fields.text("column", "é" * 250) == "é" * 250


@pytest.mark.parametrize("value", ["a\0b", "\ud800", "é" * 251, "x" * 501])
def test_texts_that_the_database_cannot_hold_are_refused(value):
    assert refusal(fields.text, value) == "bad_text"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2021-08-12T19:06:04Z", "2021-08-12T19:06:04"),
        ("2022-08-02T01:08:26.342Z", "2022-08-02T01:08:26.342000"),
        ("2021-08-12T19:06:04.123456789Z", "2021-08-12T19:06:04.123456"),
        ("2025-12-03T16:03:04.890060+00:00", "2025-12-03T16:03:04.890060"),
        ("2024-02-18T19:34:37+06:00", "2024-02-18T13:34:37"),
        ("2014-08-06 23:59:59", "2014-08-06T23:59:59"),
        ("2014-08-06 23:59:59 UTC", "2014-08-06T23:59:59"),
        ("2014-08-06", "2014-08-06T00:00:00"),
        ("2014/8/6 9:05", "2014-08-06T09:05:00"),
        ("1660953600", "2022-08-20T00:00:00"),
        ("1623369600000", "2021-06-11T00:00:00"),
        ("1733270400000.0", "2024-12-04T00:00:00"),
        ("1660953600.25", "2022-08-20T00:00:00.250000"),
        ("1735689600123456", "2025-01-01T00:00:00.123456"),
        ("1735689600123456789", "2025-01-01T00:00:00.123456"),
        ("1733270400000.5", "2024-12-04T00:00:00.000500"),
        ("Feb 20, 2018", "2018-02-20T00:00:00"),
        ("February 3rd, 2018 10:30 PM", "2018-02-03T22:30:00"),
        ("Sept 5 2018", "2018-09-05T00:00:00"),
        ("20 Feb 2018", "2018-02-20T00:00:00"),
        ("20-Feb-18", "2018-02-20T00:00:00"),
        ("Tue, 20 Feb 2018 01:02:03 GMT", "2018-02-20T01:02:03"),
        ("2014/8/6 9:05:01.25", "2014-08-06T09:05:01.250000"),
        ("2019-10-17 09-AM", "2019-10-17T09:00:00"),
        ("2019-10-17 12-AM", "2019-10-17T00:00:00"),
        ("2019-10-17 12-PM", "2019-10-17T12:00:00"),
        ("2019-10-17 11-PM", "2019-10-17T23:00:00"),
    ],
)
def test_times(value, expected):
    moment = fields.moment("column", value)
    assert moment.tzinfo is UTC
    assert moment.isoformat() == f"{expected}+00:00"


@pytest.mark.parametrize(
    ("value", "dmy", "mdy"),
    [
        ("02-10-17 23:59", "2017-10-02T23:59:00", "2017-02-10T23:59:00"),
        ("2/10/2017", "2017-10-02T00:00:00", "2017-02-10T00:00:00"),
        ("02.10.2017 9:00:01 PM", "2017-10-02T21:00:01", "2017-02-10T21:00:01"),
    ],
)
def test_numeric_dates_are_read_in_the_order_given_and_never_without(value, dmy, mdy):
    assert fields.moment("column", value, "dmy").isoformat() == f"{dmy}+00:00"
    assert fields.moment("column", value, "mdy").isoformat() == f"{mdy}+00:00"
    assert refusal(fields.moment, value) == "bad_time"


@pytest.mark.parametrize(
    "value",
    [
        *(
            "1.63875E+12",
            "20210812",
            "yesterday",
            "",
            "0",
            "2021-13-01",
            "2021-02-30",
            "2021-W32-1",
            "2021-08-12-05",
            "2021-08-12x05:00",
            "2021-08-12T25:00:00Z",
        ),
        *(
            *("Foo 20, 2018", "Feb 30, 2018", "20 Febr 2018", "99999999999999999999"),
            "2019-10-17 13-AM",
            "2019-10-17 0-PM",
            "2014-08-06 7",
            "31-31-17",
            "0001-01-01T00:00:00+14:00",
        ),
    ],
)
def test_what_is_no_time_is_refused(value):
    assert refusal(fields.moment, value, "dmy") == "bad_time"


@pytest.mark.parametrize(
    ("value", "orders"),
    [
        ("29-04-13 23:59", "dmy"),
        ("04/29/2013", "mdy"),
        ("04-05-13", "dmy mdy"),
        ("17-10-19", "dmy ymd"),
        ("10-11-12", "dmy mdy ymd"),
        ("17-10-27", "ymd"),
        ("2013-04-29", ""),
        ("31-31-17", ""),
        ("99/12/2017", ""),
        ("00-12-17", ""),
        ("1660953600", ""),
    ],
)
def test_the_orders_that_a_date_may_have(value, orders):
    assert fields.date_orders(value, 2026) == set(orders.split())


@given(st.integers(10**11, 7 * 10**12))
def test_written_times_are_read_back(milliseconds):
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    assert fields.moment("column", str(milliseconds)) == moment
    assert fields.moment("column", moment.isoformat()) == moment
    assert fields.moment("column", f"{moment:%Y-%m-%d %I-%p}") == moment.replace(minute=0, second=0, microsecond=0)

from __future__ import annotations

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasparro_pipeline.sources.csv.numbers import NumberForms, number, shifted, whole
from kasparro_pipeline.sources.fields import RefusedError


@pytest.mark.parametrize(
    ("value", "decimal", "expected"),
    [
        ("44.089,0", ",", "44089.0"),
        ("1.234.567,89", ",", "1234567.89"),
        ("10,36K", ",", "10360"),
        ("0,00001234", ",", "0.00001234"),
        ("6,32696E+11", ",", "6.32696e+11"),
        ("12", ",", "12"),
        ("9,926,540,000", ".", "9926540000"),
        ("3,199.93", ".", "3199.93"),
        ("$1.7T", ".", "1700000000000"),
        ("$ 40,859.46", ".", "40859.46"),
        ("-$5.5m", ".", "-5500000"),
        ("\u22121.5", ".", "-1.5"),
        ("1.2M USD", ".", "1200000"),
        ("962.58K", ".", "962580"),
        ("1.2345bn", ".", "1234500000"),
        (".5k", ".", "500"),
        ("1 234 567.5", ".", "1234567.5"),
        ("1\u202f234,5", ",", "1234.5"),
        ("1'234.50", ".", "1234.50"),
        ("0.00020473099721129984", ".", "0.00020473099721129984"),
        ("+1.e5", ".", "+1.e5"),
        ("12.5", None, "12.5"),
        ("$12.5K", None, "12500"),
        (" N/A ", ",", None),
        ("-", ".", None),
    ],
)
def test_numbers_as_people_write_them(value, decimal, expected):
    assert number("price_usd", value, decimal) == expected


@pytest.mark.parametrize(
    ("value", "decimal", "code"),
    [
        ("14.748.800.659.179.600", ".", "bad_number"),
        ("14.748.800.659.179.600", ",", "bad_number"),
        ("1.445.399", ".", "bad_number"),
        ("1,234", None, "bad_number"),
        ("10,36K", ".", "bad_number"),
        ("12,34", ".", "bad_number"),
        ("1.5", ",", "bad_number"),
        ("1,23,456", ".", "bad_number"),
        ("1,234 567", ".", "bad_number"),
        ("0,123", ".", "bad_number"),
        ("1e3K", ".", "bad_number"),
        ("--1", ".", "bad_number"),
        ("-$-1", ".", "bad_number"),
        ("5%", ".", "bad_number"),
        ("5x", ".", "bad_number"),
        ("K", ".", "bad_number"),
        ("1" * 1001, ".", "number_out_of_range"),
        ("$" + "1," * 600, ".", "bad_number"),
        ("€44.089,0", ",", "not_usd"),
        ("1.5 BTC", ".", "not_usd"),
        ("1.2TRY", ".", "not_usd"),
    ],
)
def test_what_is_no_number_in_dollars_is_refused(value, decimal, code):
    with pytest.raises(RefusedError) as caught:
        number("price_usd", value, decimal)
    assert caught.value.code == code
    assert caught.value.reason.startswith("price_usd: ")
    assert "\n" not in caught.value.reason


def test_more_dollars_than_there_are_have_lost_their_decimal_sign_and_coins_may_be_as_many():
    for column, most in (("price_usd", "14.748.800"), ("market_cap_usd", "14.748.800.659.179")):
        assert number(column, most, ",") == most.replace(".", "")
        with pytest.raises(RefusedError, match="has lost its decimal sign"):
            number(column, f"{most}.600", ",")
    assert number("total_supply", "1.000.000.000.000.000", ",") == "1" + 15 * "0"


def test_supplies_are_counted_in_coins_and_ranks_are_whole():
    assert number("circulating_supply", "19,957,137 BTC", ".") == "19957137"
    assert whole("rank", "1,234", ".") == 1234
    assert whole("rank", "1.234", ",") == 1234


@given(st.decimals(0, 10**30, allow_nan=False, allow_infinity=False, places=12), st.integers(-40, 40))
def test_shifting_is_exact(value, places):
    assert Decimal(shifted(f"{value:f}", places)) == value.scaleb(places, Context(prec=200))


def grouped(value: Decimal, decimal: str, separator: str) -> str:
    return f"{value:,f}".translate({ord(","): separator, ord("."): decimal})


@given(st.decimals(0, 10**18, allow_nan=False, allow_infinity=False, places=4), st.sampled_from([".", ","]), st.data())
def test_written_numbers_are_read_back_exactly(value, decimal, data):
    separator = data.draw(st.sampled_from([",."[decimal == ","], " ", "'", "\u00a0", ""]))
    written = data.draw(st.sampled_from(["", "$", "US$ "])) + grouped(value, decimal, separator)
    read = number("volume_24h_usd", written, decimal)
    assert Decimal(read) == value
    suffixed = number("volume_24h_usd", f"{written}M", decimal)
    assert Decimal(suffixed) == value * 10**6


def forms(*, dots_are_doubtful: bool = False, **columns: list[str]) -> NumberForms:
    found = NumberForms(dots_are_doubtful=dots_are_doubtful)
    for column, values in columns.items():
        for value in values:
            found.add(column, value)
    return found


@pytest.mark.parametrize(
    ("price", "volume", "expected"),
    [
        (["40859.46"], ["1"], (".", ".")),
        (["1", "2"], ["3"], (None, None)),
        (["44.089,0"], ["1.234"], (",", ",")),
        (["44.089"], ["10,36K"], (",", ",")),
        (["0.5"], ["1,234"], (".", ".")),
        (["1,234,567"], ["1,234"], (".", ".")),
        (["0.5"], ["10,36K"], (".", ",")),
        (["6.32696E+11"], ["14.748.800"], (".", ".")),
        (["14.748.800"], ["1"], (None, None)),
        (["0.089", "44.089"], ["14.748.800"], (".", ".")),
        (["44.089"], ["14.748.800", "1,5"], (",", ",")),
        (["n/a", "x", ""], ["1"], (None, None)),
    ],
)
def test_the_decimal_sign_is_decided_by_column_and_else_by_file(price, volume, expected):
    signs = forms(price=price, volume=volume).decimals()
    assert tuple(signs.get(column, signs[""]) for column in ("price", "volume")) == expected


@pytest.mark.parametrize(
    ("price", "volume", "dots"),
    [
        (["1,234"], ["1"], False),
        (["12.5", "12,5"], ["1"], False),
        (["0.5"], ["0,5"], None),
        (["44.089"], ["1"], True),
        (["44.089"], ["1.234.567"], False),
    ],
)
def test_numbers_that_stay_ambiguous_refuse_the_file(price, volume, dots):
    found = forms(dots_are_doubtful=bool(dots), price=price, volume=volume, rank=["1,234"] if dots is None else [])
    with pytest.raises(RefusedError) as caught:
        found.decimals()
    assert caught.value.code == "ambiguous_numbers"
    assert "`decimal`" in caught.value.reason

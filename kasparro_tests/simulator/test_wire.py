import sys
from decimal import Decimal

import pytest

from kasparro_pipeline.simulator import wire


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("19109818", "19109818.0"),
        ("0", "0.0"),
        ("-0.43784", "-0.43784"),
        ("0.0001", "0.0001"),
        ("0.00001626", "1.626e-05"),
        ("3.84E-18", "3.84e-18"),
        ("5E-12", "5.0e-12"),
        ("589253877940246.10", "589253877940246.1"),
        ("1E+15", "1000000000000000.0"),
        ("420000000000000000", "4.2e+17"),
        ("123456789012345678901234567890123456789012345", "1.23456789012345678901234567890123456789012345e+44"),
    ],
)
def test_floats_as_coingecko_writes_them(value, written):
    assert bytes(wire.ruby(Decimal(value))).decode() == written


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("44456.514304206", "44456.514304206"),
        ("-4.00", "-4"),
        ("0.00", "0"),
        ("0.00001004342419032391", "0.00001004342419032391"),
        ("3.422753010803E-7", "3.422753010803e-7"),
        ("1.97E+37", "1.97e+37"),
        ("100", "100"),
    ],
)
def test_floats_as_coinpaprika_writes_them(value, written):
    assert bytes(wire.go(Decimal(value))).decode() == written


def test_whole_numbers_keep_every_digit():
    assert bytes(wire.whole(Decimal(sys.maxsize))) == b"9223372036854775807"
    assert bytes(wire.whole(Decimal("1.97E+37"))) == b"197" + b"0" * 35


def test_what_is_not_known_is_null():
    assert wire.encode([wire.ruby(None), wire.whole(None)]) == b"[null,null]"

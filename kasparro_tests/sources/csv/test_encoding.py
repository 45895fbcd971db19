from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasparro_pipeline.sources.csv.encoding import decode, find_encoding, one_byte_units, utf16
from kasparro_tests.sources.samples import read_csv

TABLE = "id,name,date,price\nsociete,Société,2020-01-01,1.5\neuro,€uro — “quoted”,2020-01-02,2\n"


@pytest.mark.parametrize(
    ("codec", "encoding"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8"),
        ("utf-16", "utf-16-le"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
        ("cp1252", "cp1252"),
        ("ascii", "utf-8"),
    ],
)
def test_encodings_are_told_and_read_exactly(codec, encoding):
    table = TABLE if codec != "ascii" else "id,name,date,price\na,A,2020-01-01,1\n"
    dialect, parsed = read_csv(table.encode(codec))
    assert (dialect.encoding, dialect.problem, parsed.quarantined) == (encoding, None, [])
    assert parsed.observations["name"].to_pylist() == [row.split(",")[1] for row in table.splitlines()[1:]]


def test_the_encoding_is_that_of_the_whole_file():
    ascii_block = b"a,b\n" * 10
    assert find_encoding(ascii_block, [ascii_block, "é\n".encode("cp1252"), ascii_block]) == "cp1252"
    assert find_encoding(ascii_block, [ascii_block, "é\né\n".encode(), b"\xe9\n"]) == "utf-8"


def test_a_broken_line_in_utf8_costs_one_record():
    content = TABLE.encode() + b"x,\xff\xfe,2020-01-03,1\nlast,Last,2020-01-04,1\n"
    _, parsed = read_csv(content)
    assert parsed.observations["source_coin_id"].to_pylist() == ["societe", "euro", "last"]
    assert [(q.reason_code, q.record) for q in parsed.quarantined] == [("bad_text", "x,\\xff\\xfe,2020-01-03,1")]


def test_a_broken_character_in_utf16_costs_one_record():
    content = (
        TABLE.encode("utf-16-le") + b"\x00\xd8" + "x,X,2020-01-01,1\nlast,L,2020-01-04,1\n".encode("utf-16-le") + b"a"
    )
    _, parsed = read_csv(content)
    assert parsed.observations["source_coin_id"].to_pylist() == ["societe", "euro", "last"]
    assert [q.reason_code for q in parsed.quarantined] == ["bad_text", "ragged_row"]
    assert all(q.record.isprintable() for q in parsed.quarantined)


def test_a_nul_far_down_costs_one_record():
    content = b"id,date,price\n" + b"a,2020-01-01,1\n" * 500 + b"b\0,2020-01-01,1\n"
    _, parsed = read_csv(content)
    assert (parsed.observations.num_rows, parsed.duplicates) == (1, 499)
    assert [q.reason_code for q in parsed.quarantined] == ["bad_text"]


@given(st.binary(max_size=60))
def test_any_bytes_have_an_encoding_and_can_be_decoded(content):
    encoding = find_encoding(content, [content])
    text, clean = decode(content, encoding)
    assert clean == ("\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text))
    for kind in ("utf-16-le", "utf-16-be"):
        decode(content, kind)


@given(st.text(max_size=30), st.sampled_from(["utf-16-le", "utf-16-be"]))
def test_each_unit_is_one_character(text, kind):
    units = one_byte_units(text.encode(kind, "surrogatepass"), kind)
    assert len(units) == len(text.encode(kind, "surrogatepass")) // 2
    assert [unit for unit in units if unit in ',"\r\n'] == [letter for letter in text if letter in ',"\r\n']


def test_bytes_that_only_look_like_utf16():
    assert utf16(b"") is None
    assert utf16(b"a\0b\0c\0d\0") == "utf-16-le"
    assert utf16(b"a\0b\0c\0\0\0") is None
    assert utf16(b"\xff\xfe\0\0") is None

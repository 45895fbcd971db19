from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasparro_pipeline.sources.csv.text import MAX_RECORD, records_of, split
from kasparro_pipeline.sources.fields import RefusedError

ALPHABET = 'ab",;\n\r'


@given(st.text(ALPHABET, max_size=60))
def test_records_joined_are_the_text(text):
    assert "".join(record for _, record in records_of(text)) == text


@given(st.text(ALPHABET, max_size=60))
def test_a_record_begins_on_the_line_it_is_said_to(text):
    lines = list(io.StringIO(text, newline=""))
    for line, record in records_of(text):
        assert record.startswith(lines[line - 1])


ROWS = st.lists(st.lists(st.text('ab", \n', max_size=5), min_size=2, max_size=4), max_size=6)


@given(ROWS, st.sampled_from(["\n", "\r\n"]), st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
def test_what_a_csv_writer_wrote_is_read_back_but_for_blanks_before_it(rows, line_end, quoting):
    file = io.StringIO()
    csv.writer(file, lineterminator=line_end, quoting=quoting).writerows(rows)
    found = [split(record, ",") for _, record in records_of(file.getvalue())]
    assert [[field.lstrip(" ") for field in row] for row in found] == [[f.lstrip(" ") for f in row] for row in rows]


def test_a_quote_within_a_field_is_a_character():
    text = '12" vinyl,1\nb,"2\n3"\n'
    assert [split(record, ",") for _, record in records_of(text)] == [['12" vinyl', "1"], ["b", "2\n3"]]
    assert [line for line, _ in records_of(text)] == [1, 2]


@pytest.mark.parametrize("filler", ["c,3\n", 'c,"3"\n'])
def test_a_quote_that_is_never_closed_costs_one_line(filler):
    count = 2 * MAX_RECORD // len(filler)
    text = 'a,1\nb,"2\n' + filler * count
    records = [record for _, record in records_of(text)]
    if '"' in filler:
        assert records[1] == 'b,"2\nc,"3"\n'
        assert len(records) == count + 1
    else:
        assert records == ["a,1\n", 'b,"2\n', *[filler] * count]
    with pytest.raises(RefusedError) as caught:
        split(records[1], ",")
    assert caught.value.code == "bad_quoting"


@pytest.mark.parametrize("line", ['"\n', ',"\n', '"",\n', ',"""\n', '"a,\n', '""\n', '"""\n'])
@pytest.mark.timeout(60)  # at a cost that grew with the square of the length it would be hours
def test_hostile_quotes_do_not_hang(line):
    text = line * (2 * 1024 * 1024 // len(line))
    assert sum(len(record) for _, record in records_of(text)) == len(text)

from __future__ import annotations

import csv
import hashlib
import io
import os
import random
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.csv import blocks as csv_blocks
from kasparro_pipeline.sources.csv import text as csv_text
from kasparro_pipeline.sources.csv.blocks import MAX_BLOCK, MIN_BLOCK, file_digest, read_blocks
from kasparro_tests.sources.samples import NOW

HEADER = b"Name,Symbol,Date,Close\n"


def rows(first: int, count: int) -> bytes:
    """Lines that are all different, and the same in every run."""
    digits = random.Random(7)
    lines = [b"Bitcoin,BTC,2020-01-01 %06d,%d\n" % (number, digits.getrandbits(40)) for number in range(first + count)]
    return b"".join(lines[first:])


def blocks_of(path):
    return list(read_blocks(path, source="csv_drops", partition="p", request="folder/p.csv", fetched_at=NOW))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "with a space é.csv"


def test_blocks_are_the_file_in_pieces_that_end_with_a_line(file):
    content = HEADER + rows(0, 100_000)
    file.write_bytes(content)
    blocks = blocks_of(file)
    assert b"".join(block.body for block in blocks) == content
    assert len(blocks) > 3
    assert all(block.body.endswith(b"\n") and MIN_BLOCK <= len(block.body) <= MAX_BLOCK for block in blocks[:-1])
    assert [block.position for block in blocks] == list(range(len(blocks)))
    assert {(block.request, block.partition, block.fetched_at) for block in blocks} == {("folder/p.csv", "p", NOW)}
    for before, block in pairwise(blocks):
        assert block.first_record == before.first_record + before.body.count(b"\n")


def test_the_last_block_says_which_file_it_was(file):
    file.write_bytes(HEADER + rows(0, 30_000))
    blocks = blocks_of(file)
    stat = file.stat()
    assert all(block.checkpoint is None for block in blocks[:-1])
    assert blocks[-1].checkpoint.complete
    assert blocks[-1].checkpoint.cursor == {
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "size": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
    }
    assert file_digest(file) == blocks[-1].checkpoint.cursor["sha256"]


def test_an_empty_file_is_one_empty_block(file):
    file.touch()
    (block,) = blocks_of(file)
    assert block.body == b""
    assert block.checkpoint.complete


def test_appending_changes_the_last_blocks_only(file):
    content = HEADER + rows(0, 100_000)
    file.write_bytes(content)
    before = [block.body for block in blocks_of(file)]
    file.write_bytes(content + rows(100_000, 20_000))
    after = [block.body for block in blocks_of(file)]
    assert after[: len(before) - 1] == before[:-1]


def test_a_change_in_the_middle_changes_the_blocks_around_it_only(file):
    lines = rows(0, 200_000).splitlines(keepends=True)
    file.write_bytes(b"".join(lines))
    before = {block.body for block in blocks_of(file)}
    lines[100_000:100_001] = [b"one\n", b"more\n"]
    file.write_bytes(b"".join(lines))
    changed = [block for block in blocks_of(file) if block.body not in before]
    assert len(before) > 8
    assert len(changed) <= 2


PIECES = st.lists(
    st.sampled_from([b"a,b\n", b'"a\nb",c\r\n', b'"a', b"\n", b"x" * 50, b'",', b"\r", b"\xff\0"]), max_size=60
)


@contextmanager
def small_blocks():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"MIN_BLOCK": 8, "MAX_BLOCK": 64, "_STRETCH": 12}.items():
            patch.setattr(csv_blocks, name, value)
        patch.setattr(csv_blocks, "_WINDOW", 64 + 4 * csv_blocks.MAX_RECORD)
        patch.setattr(csv_blocks, "_CUTS_PER_BYTE", 2**32 // 16)
        yield patch


@given(PIECES)
@settings(max_examples=60)
def test_any_bytes_come_back_whole_and_quoted_fields_are_not_cut(tmp_path_factory, pieces):
    file = tmp_path_factory.mktemp("any") / "any.csv"
    file.write_bytes(b"".join(pieces))
    with small_blocks():
        blocks = [block.body for block in blocks_of(file)]
    assert b"".join(blocks) == file.read_bytes()
    assert all(len(block) <= 64 for block in blocks)
    assert all(blocks) or blocks == [b""]


@given(
    st.lists(st.sampled_from([b'"', b'""', b",", b"a", b"\n", b"\r\n", b"\r", b'"b",', b"c" * 30, b"\xef"])).map(
        b"".join
    )
)
@settings(max_examples=300)
def test_many_records_told_apart_at_once_give_the_same_cuts_as_one_by_one(window):
    with small_blocks() as patch:
        patch.setattr(csv_text, "MAX_RECORD", 40)
        one_by_one = csv_blocks._cut_after(csv_blocks._record_ends(window, None), window)
        assert csv_blocks._plain_cut(window) in (None, one_by_one)
        assert csv_blocks._cut(window, None) == one_by_one


@given(st.lists(st.lists(st.text('a,;" \né\r\n'), min_size=1), min_size=1), st.sampled_from(["\n", "\r\n"]))
def test_the_records_of_a_well_written_file_are_told_apart_at_once(rows, line_end):
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator=line_end).writerows(rows)
    text = out.getvalue()
    if "\r" in text.replace("\r\n", ""):
        return
    ends = csv_text.plain_ends(text.encode())
    records = [record.encode() for _, record in csv_text.records_of(text)]
    assert [text.encode()[start:end] for start, end in pairwise([0, *ends])] == records


def test_a_quoted_field_over_many_lines_is_not_cut(file):
    record = b'"' + b"line,\n" * 1000 + b'",1\n'
    file.write_bytes(record * 600)
    blocks = blocks_of(file)
    assert len(blocks) > 1
    assert all(block.body == record * (len(block.body) // len(record)) for block in blocks)
    assert blocks[1].first_record == 1 + blocks[0].body.count(b"\n")


@pytest.mark.parametrize("line_end", [b"\r\n", b"\r"])
def test_lines_are_counted_whatever_ends_them(file, line_end):
    file.write_bytes(rows(0, 30_000).replace(b"\n", line_end))
    blocks = blocks_of(file)
    assert len(blocks) > 1
    assert blocks[1].first_record == 1 + blocks[0].body.count(line_end)
    assert all(block.body.endswith(line_end) for block in blocks)


def test_a_line_longer_than_a_block_is_cut_through(file):
    content = HEADER + b"x" * (3 * MAX_BLOCK) + b"\n" + rows(0, 10)
    file.write_bytes(content)
    blocks = blocks_of(file)
    assert b"".join(block.body for block in blocks) == content
    assert max(len(block.body) for block in blocks) == MAX_BLOCK
    assert [block.first_record for block in blocks] == [1, 2, 2, 2, 2]


def test_a_file_that_changes_while_it_is_read_is_refused_before_its_last_block(file):
    file.write_bytes(HEADER + rows(0, 100_000))
    blocks = read_blocks(file, source="s", partition="p", request="p.csv", fetched_at=NOW)
    taken = [next(blocks)]
    os.utime(file, ns=(0, 0))
    with pytest.raises(KasparroError, match="changed while it was read; load it again"):
        taken.extend(blocks)
    assert all(block.checkpoint is None for block in taken)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(KasparroError, match=r"gone\.csv cannot be read: No such file"):
        blocks_of(tmp_path / "gone.csv")
    with pytest.raises(KasparroError, match="cannot be read: Is a directory"):
        file_digest(tmp_path)

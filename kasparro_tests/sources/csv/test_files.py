from __future__ import annotations

import bz2
import gzip
import io
import zipfile

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kasparro_pipeline.sources.csv import files
from kasparro_pipeline.sources.csv.blocks import read_blocks
from kasparro_pipeline.sources.csv.files import unpacked
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_tests.sources.samples import NOW, read_file

CSV = b"id,date,price\nbitcoin,2020-01-01,1.5\n"


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


ZIP = zipped(**{"prices.csv": CSV})
PACKED = [
    gzip.compress(CSV, mtime=0),
    gzip.compress(CSV[:10], mtime=0) + gzip.compress(CSV[10:], mtime=0),
    ZIP,
    zipped(**{"folder/": b"", "folder/prices.CSV": CSV, "__MACOSX/folder/._prices.csv": b"x", ".DS_Store": b"x"}),
    CSV,
]


@pytest.mark.parametrize("content", PACKED, ids=["gzip", "gzip in two", "zip", "zip of a Mac", "plain"])
def test_packed_files_are_read_whatever_they_are_called(content, tmp_path):
    file = tmp_path / "prices.csv"
    file.write_bytes(content)
    (block,) = read_blocks(file, source="s", partition="p", request="prices.csv", fetched_at=NOW)
    assert (block.body, block.problem) == (CSV, None)
    assert block.checkpoint.cursor["size"] == len(content)
    dialect, (parsed,) = read_file(file)
    assert (dialect.problem, parsed.observations["price_usd"].to_pylist()) == (None, ["1.5"])


def locked() -> bytes:
    content = bytearray(ZIP)
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (zipped(**{"a.csv": CSV, "b.csv": CSV}), "archive", "holds 2 files (a.csv, b.csv)"),
        (zipped(**{"a.csv": CSV, "readme.pdf": CSV}), "archive", "holds 2 files"),
        (zipped(**{"a.json": b"{}"}), "archive", "holds 1 files (a.json)"),
        (zipped(), "archive", "holds 0 files"),
        (zipped(**{"[Content_Types].xml": b"", "xl/workbook.xml": b""}), "binary_file", "spreadsheet (xlsx)"),
        (locked(), "archive", "password"),
        (ZIP[:-30], "archive", "cannot be unpacked"),
        (gzip.compress(CSV, mtime=0)[:-10], "archive", "cannot be unpacked"),
        (gzip.compress(CSV, mtime=0)[:-8] + b"\0" * 8, "archive", "CRC check failed"),
        (bz2.compress(CSV), "binary_file", "bzip2"),
        (b"\xd0\xcf\x11\xe0" + b"x" * 600, "binary_file", "xls"),
        (b"PAR1" + b"\0" * 10, "binary_file", "Parquet"),
    ],
    ids=lambda value: value if isinstance(value, str) else "file",
)
def test_what_cannot_be_unpacked_is_one_quarantined_record_that_says_what_to_do(content, code, said, tmp_path):
    file = tmp_path / "prices.zip"
    file.write_bytes(content)
    dialect, (parsed,) = read_file(file)
    (refused,) = parsed.quarantined
    assert (parsed.records, refused.reason_code, refused.location, refused.position) == (1, code, "prices.zip", 0)
    assert said in refused.reason
    assert dialect.problem == (refused.reason_code, refused.reason)


def test_a_bomb_is_refused_long_before_it_is_unpacked(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "RATIO_COUNTS_FROM", 4 * 1024**2)
    for content in (gzip.compress(bytes(32 * 1024**2), mtime=0), zipped(**{"a.csv": bytes(32 * 1024**2)})):
        file = tmp_path / "bomb.csv.gz"
        file.write_bytes(content)
        with file.open("rb") as opened, pytest.raises(RefusedError, match=r"unpacks to over [57] MB"):
            unpacked(opened)


def test_a_size_limit_holds_for_what_packs_badly(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "MAX_UNPACKED", 10)
    with pytest.raises(RefusedError, match="drop the CSV itself"):
        unpacked(io.BytesIO(gzip.compress(CSV, mtime=0)))


def test_a_zip_with_an_endless_table_of_contents_is_not_read(monkeypatch):
    monkeypatch.setattr(files, "MAX_DIRECTORY", 100)
    with pytest.raises(RefusedError, match="too many files"):
        unpacked(io.BytesIO(zipped(**{f"{number}.csv": b"" for number in range(10)})))


DAMAGES = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4)


@given(st.sampled_from([gzip.compress(CSV, mtime=0), ZIP]), DAMAGES)
@example(ZIP, [(ZIP.rindex(b"prices.csv"), 0)])  # a file without a name
def test_damaged_archives_are_read_or_refused(content, damages):
    damaged = bytearray(content)
    for place, value in damages:
        damaged[place % len(damaged)] = value
    try:
        stream = unpacked(io.BytesIO(bytes(damaged)))
    except RefusedError as refused:
        assert refused.code in ("archive", "binary_file")
    else:
        assert stream.read() in (CSV, bytes(damaged))

"""Recorded vendor answers and real files: every record is accounted for, and hostile ones do no harm."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kasparro_pipeline.sources.json_records import parse_json
from kasparro_tests.sources.samples import COINGECKO, COINPAPRIKA, delivery, read_file

REALDATA = Path(os.environ.get("KASPARRO_REALDATA") or "/nonexistent")
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not REALDATA.is_dir(), reason="KASPARRO_REALDATA names no folder"),
]


def files(pattern: str):
    return [
        pytest.param(path, id=str(path.relative_to(REALDATA)))
        for path in sorted(REALDATA.glob(pattern))
        if path.is_file()
    ]


def check(parsed) -> None:
    assert parsed.records == parsed.observations.num_rows + parsed.duplicates + len(parsed.quarantined)
    assert all(
        quarantined.location and quarantined.reason and "\0" not in quarantined.record
        for quarantined in parsed.quarantined
    )


@pytest.mark.parametrize("path", files("csv/**/*.csv"))
def test_csv_files(path):
    dialect, blocks = read_file(path)
    for parsed in blocks:
        check(parsed)
    lines = sum(1 for line in path.read_bytes().splitlines() if line.strip())
    records = sum(parsed.records for parsed in blocks)
    assert records == (1 if dialect.problem else lines - dialect.layout.header_line)


@pytest.mark.parametrize("path", files("coingecko/markets/*.json"))
def test_coingecko_markets(path):
    mapping = replace(COINGECKO, record_path=("coins",)) if "wrapped" in path.name else COINGECKO
    parsed = parse_json(delivery(path.read_bytes()), mapping)
    check(parsed)
    assert parsed.observations.num_rows == int(path.stem.rsplit("_", 1)[1].removeprefix("top"))


@pytest.mark.parametrize("path", files("coinpaprika/tickers_*.json"))
def test_coinpaprika_tickers(path):
    parsed = parse_json(delivery(path.read_bytes()), COINPAPRIKA)
    check(parsed)
    assert parsed.observations.num_rows == int(path.stem.rsplit("_", 1)[1])


def test_hostile_files():
    for path in filter(Path.is_file, (REALDATA / "hostile").rglob("*")):
        for mapping in (COINGECKO, COINPAPRIKA):
            parsed = parse_json(delivery(path.read_bytes()), mapping)
            check(parsed)
            assert parsed.observations.num_rows == 0
        for parsed in read_file(path)[1]:
            check(parsed)
            assert parsed.observations.num_rows == 0

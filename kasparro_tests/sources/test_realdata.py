"""Recorded vendor answers and real files: every record is accounted for, and hostile ones do no harm."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kasparro_pipeline.sources.api import ApiSpec, SnapshotFetch
from kasparro_pipeline.sources.http import FetchError, RequestPolicy, VendorClient
from kasparro_pipeline.sources.json_records import parse_json
from kasparro_pipeline.sources.paging import Paging
from kasparro_tests.sources.samples import COINGECKO, COINPAPRIKA, delivered, delivery, read_file
from kasparro_tests.sources.vendor import Reply, running_vendor

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


@pytest.mark.parametrize("spec", [ApiSpec("/coins"), ApiSpec("/coins", {}, Paging("page", 250, "page", "per_page"))])
def test_hostile_json_as_a_vendors_answer(spec):
    files_ = sorted((REALDATA / "hostile" / "JSONTestSuite").rglob("*.json"))
    assert len(files_) > 300
    with running_vendor(*(Reply(path.read_bytes()) for path in files_)) as vendor:
        for path in files_:
            with VendorClient("vendor", vendor.url, policy=RequestPolicy(attempts=1)) as client:
                payloads = SnapshotFetch(client, spec, "2026-11-20").payloads()
                try:
                    payload = next(payloads)
                except FetchError as error:
                    assert "\n" not in str(error), path
                    assert str(error).startswith(f"vendor: GET {vendor.url}/coins"), path
                    continue
            parsed = parse_json(delivered(payload), COINGECKO)
            check(parsed)
            assert len(parsed.quarantined) == parsed.records > 0, path  # one reason for each record
        assert len(vendor.requests) == len(files_)


def test_recorded_errors_are_told_in_the_vendors_words():
    told = {}
    errors = [*(REALDATA / "coingecko" / "errors").iterdir(), REALDATA / "coinpaprika" / "404_coin_not_found.json"]
    for path in errors:
        status = int(path.name.partition("_")[0])
        with (
            running_vendor(Reply(path.read_bytes(), status)) as vendor,
            VendorClient("vendor", vendor.url, policy=RequestPolicy(attempts=1)) as client,
            pytest.raises(FetchError) as caught,
        ):
            client.get("/coins", {})
        told[f"{path.parent.name}/{path.stem}"] = str(caught.value).partition("after 1 try: ")[2].partition(";")[0]
    assert told["errors/404_coin_not_found"] == "coin not found"
    assert told["coinpaprika/404_coin_not_found"] == "id not found"
    assert told["errors/429_rate_limit"].startswith("You've exceeded the Rate Limit.")
    assert told["errors/429_cloudflare_1015"] == "error code: 1015"
    assert told["errors/429_throttled"] == "Throttled"

"""Every format, read back with what people read it with."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pandas as pd
import polars as pl
import psutil
import pyarrow.ipc
import pytest
import sqlalchemy as sa

from kasparro_api import arrow, copying
from kasparro_api.formats import accepted
from kasparro_pipeline.warehouse.tables import unified_assets
from kasparro_tests.api.rows import insert, unified
from kasparro_tests.api.serving import app_on, served, within

DAY = date(2026, 11, 1)
DIGITS = ["0.00000000000000000384", "12345678.5", "-0.1", "0"]
TOO_LONG = "44456.5143042063789012345678901234567890123456789"
HUGE = "19700000000000000000000000000000000000"


@pytest.fixture
def rows(engine: sa.Engine) -> list[dict[str, Any]]:
    rows = [unified(f"c{i}", DAY, price_usd=Decimal(digits), rank=i + 1) for i, digits in enumerate(DIGITS)]
    rows[0] |= {"name": 'quo"te, line\nend \\ back', "flags": ["a", "b,c"], "max_supply": Decimal(TOO_LONG)}
    rows[1] |= {"name": "", "market_cap_usd": Decimal(HUGE), "total_supply": Decimal("0.01")}
    rows[2] |= {"name": "=1+1", "symbol": "@X", "total_supply": Decimal(HUGE)}
    insert(engine, unified_assets, rows)
    return rows


def url(service: httpx.Client, query: str) -> str:
    return f"{service.base_url}/data?{query}"


def test_csv_opens_in_pandas_as_it_is_with_every_digit(service: httpx.Client, rows: list[dict[str, Any]]) -> None:
    read = pd.read_csv(
        url(service, "format=csv&cells=exact"), dtype={"price_usd": str, "max_supply": str}, parse_dates=["observed_at"]
    )
    assert list(read.columns) == [column.name for column in unified_assets.columns]
    assert list(read["price_usd"]) == DIGITS
    assert read["max_supply"][0] == TOO_LONG
    assert list(read["name"][[0, 2]]) == [rows[0]["name"], "=1+1"]
    assert read["observed_at"][0] == pd.Timestamp("2026-11-01T12:00Z")
    assert list(read["rank"]) == [1, 2, 3, 4]


def test_csv_tells_null_from_an_empty_text(service: httpx.Client, rows: list[dict[str, Any]]) -> None:
    text = service.get("/data?format=csv&fields=coin_id,name,flags").text
    assert text.splitlines()[3:] == ['c1,"",""', 'c2,\'=1+1,""', 'c3,,""']
    assert text.startswith('coin_id,name,flags\nc0,"quo""te, line\nend \\ back","a,b,c"\n')


def test_csv_for_spreadsheets_holds_no_formula(service: httpx.Client, engine: sa.Engine) -> None:
    names = ["=1+1", "+1", "-1", "@sum", "\tx", "\rx", "a=1"]
    insert(engine, unified_assets, [unified(f"c{i}", DAY, name=n, price_usd=Decimal(-1)) for i, n in enumerate(names)])
    read = list(csv.DictReader(io.StringIO(service.get("/data?format=csv").text, newline="")))
    assert [row["name"] for row in read] == ["'=1+1", "'+1", "'-1", "'@sum", "'\tx", "'\rx", "a=1"]
    assert {row["price_usd"] for row in read} == {"-1"}  # a number stays one
    read = list(csv.DictReader(io.StringIO(service.get("/data?format=csv&cells=exact").text, newline="")))
    assert [row["name"] for row in read] == names


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_parquet_is_exact(service: httpx.Client, rows: list[dict[str, Any]], library: str) -> None:
    where = url(service, "format=parquet")
    read = (
        pl.read_parquet(where).to_dicts() if library == "polars" else pd.read_parquet(where).to_dict(orient="records")
    )
    assert [row["price_usd"] for row in read] == [Decimal(digits) for digits in DIGITS]
    assert read[1]["market_cap_usd"] == Decimal(HUGE)
    assert read[0]["max_supply"] == TOO_LONG  # more digits than a decimal128 has: text
    assert (read[1]["total_supply"], read[2]["total_supply"]) == ("0.01", HUGE)
    assert [list(row["flags"]) for row in read] == [["a", "b,c"], [], [], []]
    assert [row["name"] for row in read[:3]] == [row["name"] for row in rows[:3]]
    assert read[3]["name"] is None or read[3]["name"] != read[3]["name"]
    assert read[0]["day"] == DAY
    assert read[0]["observed_at"] == datetime(2026, 11, 1, 12, tzinfo=UTC)


def test_parts_of_a_parquet_file_are_parts_of_one_file(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified("a", DAY)])
    head = service.head("/data?format=parquet")
    insert(engine, unified_assets, [unified("b", DAY)])
    half = int(head.headers["content-length"]) // 2
    parts = [
        service.get("/data?format=parquet", headers={"Range": f"bytes={r}"}) for r in (f"0-{half - 1}", f"{half}-")
    ]
    assert [part.status_code for part in parts] == [206, 206]
    assert pl.read_parquet(b"".join(part.content for part in parts)).height == 1
    assert pl.read_parquet(service.get("/data?format=parquet").content).height == 2  # the whole is never old


def test_arrow_streams_and_numbers_may_be_text(service: httpx.Client, rows: list[dict[str, Any]]) -> None:
    answer = service.get("/data?numbers=text", headers={"Accept": "application/vnd.apache.arrow.stream"})
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    table = pyarrow.ipc.open_stream(answer.content).read_all()
    assert table.column("price_usd").to_pylist() == DIGITS
    assert table.column("rank").to_pylist() == [1, 2, 3, 4]


def test_ndjson_lines_are_the_rows_of_the_page(service: httpx.Client, rows: list[dict[str, Any]]) -> None:
    answer = service.get("/data?format=ndjson")
    assert answer.headers["content-disposition"] == 'attachment; filename="data.ndjson"'
    assert [json.loads(line) for line in answer.text.splitlines()] == service.get("/data").json()["data"]
    assert pl.read_ndjson(io.BytesIO(answer.content)).height == 4


@pytest.mark.parametrize("name", ["csv", "ndjson", "parquet", "arrow"])
def test_exports_have_all_rows_in_order_or_as_many_as_asked(
    service: httpx.Client, engine: sa.Engine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow, "BATCH_BYTES", 5000)
    monkeypatch.setattr(copying, "BLOCK_BYTES", 5000)
    with engine.begin() as connection:
        rows = [unified(f"c{i:03}", DAY - timedelta(days=d)) for i in range(150) for d in range(8)]
        connection.execute(unified_assets.insert(), rows)
    expected = [(DAY - timedelta(days=d), f"c{i:03}") for d in range(8) for i in range(150)]
    readers = {"csv": pl.read_csv, "ndjson": pl.read_ndjson, "parquet": pl.read_parquet, "arrow": pl.read_ipc_stream}

    def found(query: str) -> list[tuple[date, str]]:
        read = readers[name](io.BytesIO(service.get(f"/data?format={name}&{query}").content))
        days = [day if isinstance(day, date) else date.fromisoformat(day) for day in read["day"]]
        return list(zip(days, read["coin_id"], strict=True))

    assert found("fields=day,coin_id,price_usd") == expected
    assert found("limit=1001") == expected[:1001]
    assert found("sort=day&limit=3&from=2026-10-31") == [(date(2026, 10, 31), f"c{149 - i:03}") for i in range(3)]


@pytest.mark.parametrize("name", ["csv", "ndjson", "parquet", "arrow"])
def test_an_empty_export_is_whole(service: httpx.Client, name: str) -> None:
    content = service.get(f"/data?format={name}").content
    if name in ("csv", "ndjson"):
        assert content.count(b"\n") == (name == "csv")
    else:
        read = pl.read_parquet if name == "parquet" else pl.read_ipc_stream
        assert read(io.BytesIO(content)).shape == (0, len(unified_assets.columns))


def test_more_rows_than_an_export_may_have_are_refused_and_not_cut_off(database: sa.URL, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified(f"c{i}", DAY) for i in range(5)])
    with served(app_on(database, api_export_rows=4)) as it:
        for name in ("csv", "ndjson", "parquet", "arrow"):
            answer = it.get(f"/data?format={name}")
            assert answer.status_code == 422
            assert answer.json()["type"] == "urn:kasparro:problem:too-many-rows"
            assert it.get(f"/data?format={name}&limit=4").status_code == 200
            assert it.get(f"/data?format={name}&limit=5").status_code == 422


def writers() -> list[int]:
    """Processes that write Arrow for this one."""
    found = psutil.process_iter(["ppid", "cmdline"])
    return [one.pid for one in found if one.info["ppid"] == os.getpid() and "arrow_writer" in str(one.info["cmdline"])]


@pytest.mark.parametrize("name", ["csv", "arrow"])
def test_a_client_that_leaves_gives_its_place_back(service: httpx.Client, engine: sa.Engine, name: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(
            """INSERT INTO kasparro.unified_assets (coin_id, day, name, source_count, sources, flags, observed_at)
            SELECT 'c' || i, date '2026-11-01', repeat('x', 900), 0, '{}', '{}', now()
            FROM generate_series(1, 15000) i"""
        )
    for _ in range(8):
        with service.stream("GET", f"/data?format={name}") as answer:
            next(answer.iter_bytes())
    assert within(10, lambda: service.get("/data?format=csv&limit=1").status_code == 200)
    assert within(10, lambda: not writers())
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kasparro-api' AND state = 'active'"
        assert within(10, lambda: connection.scalar(sa.text(busy)) == 0)


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_a_writer_that_fails_makes_no_file(
    service: httpx.Client, rows: list[dict[str, Any]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrow.sys, "executable", shutil.which("false"))
    answer = service.get(f"/data?format={name}")
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:kasparro:problem:internal-error")


def test_an_export_sees_one_moment_and_values_cannot_leave_their_quotes(
    service: httpx.Client, rows: list[dict[str, Any]]
) -> None:
    for attempt in ("x' OR '1'='1", "'); DROP TABLE kasparro.unified_assets; --", "\\' OR 1=1 --", "%(x)s", "$$"):
        answer = service.get("/data", params={"format": "csv", "coin_id": attempt, "fields": "coin_id"})
        assert (answer.status_code, answer.text) == (200, "coin_id\n")
    assert service.get("/data").json()["metadata"]["count"] == 4


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "json"),
        ("text/csv", "csv"),
        ("application/json;q=0.5, text/csv;q=0.9", "csv"),
        ("text/csv;q=0", "json"),
        ("text/csv;q=x", "json"),
        ("application/x-ndjson, application/json", "ndjson"),
    ],
)
def test_accept_chooses_the_format(header: str, name: str) -> None:
    assert accepted(header) == name


def test_the_service_starts_without_what_only_exports_need() -> None:
    heavy = "{'pandas', 'numpy', 'pyarrow', 'dagster', 'opentelemetry.sdk'}"
    code = f"import sys, kasparro_api.app; print(sorted(set(sys.modules) & {heavy}))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"

"""Requests a second of `GET /data`, as ratios to a bare FastAPI endpoint: ``python -m kasparro_tests.bench.reads``.

Both run as one process under the same uvicorn (uvloop, httptools) and are asked in turns over keep-alive connections,
so that a noisy machine harms them alike. The bare endpoint returns a constant body as large as a page of 100 rows.
The rows are generated into a database of their own, on DATABASE_URL's server or the embedded one.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date, timedelta

import httpx
import sqlalchemy as sa
from fastapi import FastAPI, Response

from kasparro_api.cursor import Cursor
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.warehouse.database import create_engine, ensure_database
from kasparro_pipeline.warehouse.migrate import migrate

COINS = 500
NEWEST = date(2026, 11, 1)
CONNECTIONS = 16
TARGET = 0.20

_GENERATE = """
INSERT INTO kasparro.unified_assets (
    coin_id, day, symbol, name, price_usd, market_cap_usd, volume_24h_usd, circulating_supply, total_supply,
    max_supply, rank, price_source, source_count, sources, price_spread_pct, flags, observed_at)
SELECT 'generated-coin-' || lpad(coin::text, 4, '0'), cast(:newest AS date) - age, 'g' || coin,
       'Generated Coin ' || coin, (1000 + coin + abs(hashint4(coin * 7919 + age)) % 65536 / 97.0)::numeric(40, 12),
       coin * 1000000.25 + age, coin * 1717171.17 + age, 19000000 + coin, 21000000, 21000000, coin,
       'coingecko', 2, '{coingecko,coinpaprika}', 0.1234567, '{}',
       (cast(:newest AS date) - age)::timestamptz + interval '23:59'
FROM generate_series(0, :days - 1) age, generate_series(1, :coins) coin
"""


def bare() -> FastAPI:
    """The least a FastAPI service can do: a constant body."""
    app = FastAPI()
    body = b"x" * int(os.environ["BARE_BODY_BYTES"])

    @app.get("/data")
    async def constant() -> Response:
        return Response(body, media_type="application/json")

    return app


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--seconds", type=int, default=3, help="of each measurement")
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    with _generated(arguments.rows // COINS) as url, ExitStack() as servers:
        service = servers.enter_context(_service(url))
        body = httpx.get(f"{service}/data").content
        targets = {"bare": f"{servers.enter_context(_bare(len(body)))}/data", **_pages(service, arguments.rows)}
        rates = _measure(targets, arguments.rounds, arguments.seconds)
    _print(rates, len(body))


def _pages(service: str, rows: int) -> dict[str, str]:
    deep = Cursor(NEWEST - timedelta(days=rows // COINS // 2), "generated-coin-0250").encode()
    return {
        "first page": f"{service}/data",
        "deep page": f"{service}/data?cursor={deep}",
        "coin and days": f"{service}/data?coin_id=generated-coin-0007&from=2026-01-01&to=2026-04-10",
        "symbol": f"{service}/data?symbol=G7",
    }


def _measure(targets: dict[str, str], rounds: int, seconds: int) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {name: [] for name in targets}
    for url in targets.values():
        _requests_per_second(url, 1)
    for _ in range(rounds):
        for name, url in targets.items():
            rates[name].append(_requests_per_second(url, seconds))
    return rates


def _print(rates: dict[str, list[float]], size: int) -> None:
    print(f"GET /data, 100 rows, {size} bytes, {CONNECTIONS} connections")  # noqa: T201
    for name, found in rates.items():
        ratio = statistics.median(rate / bare for rate, bare in zip(found, rates["bare"], strict=True))
        goal = "" if name == "bare" else f"  (goal {TARGET:.2f})"
        print(f"{name:14} {statistics.median(found):8.0f} requests/s   {ratio:.3f} of bare{goal}")  # noqa: T201


@contextmanager
def _generated(days: int) -> Iterator[sa.URL]:
    """A database with `days` days of `COINS` coins; dropped afterwards."""
    home = ensure_database(Settings())
    name = f"kasparro_bench_{os.getpid()}"
    admin = create_engine(home).execution_options(isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine = create_engine(home.set(database=name))
    try:
        migrate(engine)
        with engine.begin() as connection:
            connection.execute(sa.text(_GENERATE), {"newest": NEWEST, "days": days, "coins": COINS})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE kasparro.unified_assets"))
        engine.dispose()
        yield engine.url
    finally:
        engine.dispose()
        with admin.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        admin.dispose()


@contextmanager
def _service(url: sa.URL) -> Iterator[str]:
    port = _free_port()
    environment = {"DATABASE_URL": url.render_as_string(hide_password=False), "KASPARRO_API_PORT": str(port)}
    with _served([sys.executable, "-m", "kasparro_api"], port, environment) as base:
        yield base


@contextmanager
def _bare(size: int) -> Iterator[str]:
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "kasparro_tests.bench.reads:bare", "--factory"]
    with _served([*command, "--no-access-log", "--port", str(port)], port, {"BARE_BODY_BYTES": str(size)}) as base:
        yield base


@contextmanager
def _served(command: list[str], port: int, environment: dict[str, str]) -> Iterator[str]:
    server = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    base = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{base}/data", server)
        yield base
    finally:
        server.terminate()
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if server.poll() is not None:
            raise SystemExit(f"error: {url} ended with {server.returncode}")
        try:
            httpx.get(url).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"error: {url} does not answer")


def _requests_per_second(url: str, seconds: int) -> float:
    if wrk := shutil.which("wrk"):
        command = [wrk, "--threads", "1", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s", url]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        if "Non-2xx" in told or (rate := re.search(r"Requests/sec:\s+([\d.]+)", told)) is None:
            raise SystemExit(f"error: {url} did not answer every request: {told}")
        return float(rate[1])
    client = [sys.executable, "-m", "kasparro_tests.bench.client", url, str(CONNECTIONS), str(seconds)]
    return float(subprocess.check_output(client))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()

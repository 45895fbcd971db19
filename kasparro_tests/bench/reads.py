"""The API measured against bare parts, in one run: ``python -m kasparro_tests.bench.reads``.

Everything is asked in turns, so that a noisy machine harms all alike; ratios mean something, absolute numbers little.

- Pages and 304s, over keep-alive connections, against a bare FastAPI endpoint under the same uvicorn (uvloop,
  httptools) that returns a constant body as large as a page of 100 rows, and against an ORM + OFFSET + COUNT endpoint
  over the same table.
- Exports of the whole table against psql's COPY of the same query and of the plain table, and the memory of the process
  that serves them.

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
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import httpx
import psutil
import sqlalchemy as sa
from fastapi import FastAPI, Response
from fastapi.encoders import jsonable_encoder
from sqlalchemy.orm import DeclarativeBase, Session

from kasparro_api import cursor, listing_sql, listings
from kasparro_api.listing_query import query_model
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.warehouse import binaries
from kasparro_pipeline.warehouse.database import create_engine, ensure_database
from kasparro_pipeline.warehouse.migrate import migrate
from kasparro_pipeline.warehouse.tables import unified_assets

COINS = 500
NEWEST = date(2026, 11, 1)
CONNECTIONS = 16

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


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked again and again, and the least ratio to what that is wanted."""

    url: str
    process: psutil.Process
    """What answers."""
    goal: float = 0
    to: str = "bare"
    etag: str = ""
    connections: int = CONNECTIONS


@dataclass(frozen=True, slots=True)
class Sample:
    """What one measurement found."""

    rate: float
    """Requests a second."""
    cpu: float
    """Seconds of a processor that the serving process took for one of them."""


def bare() -> FastAPI:
    """The least a FastAPI service can do: a constant body."""
    app = FastAPI()
    body = b"x" * int(os.environ["BARE_BODY_BYTES"])

    @app.get("/data")
    async def constant() -> Response:
        return Response(body, media_type="application/json")

    return app


def orm() -> FastAPI:
    """What most services do: objects, OFFSET, and a COUNT for the number of pages."""

    class Base(DeclarativeBase):
        pass

    class Unified(Base):
        __table__ = unified_assets

    day, coin_id = unified_assets.c.day, unified_assets.c.coin_id
    app = FastAPI()
    engine = create_engine(sa.make_url(os.environ["DATABASE_URL"]))

    @app.get("/data")
    def page(offset: int = 0) -> object:
        with Session(engine) as session:
            rows = session.scalars(sa.select(Unified).order_by(day.desc(), coin_id).offset(offset).limit(100))
            names = [column.name for column in unified_assets.columns]
            data = [{name: getattr(row, name) for name in names} for row in rows]
            total = session.scalar(sa.select(sa.func.count()).select_from(Unified))
        return jsonable_encoder({"metadata": {"total": total}, "data": data}, custom_encoder={})

    return app


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--seconds", type=int, default=3, help="of each measurement")
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    with _generated(arguments.rows // COINS) as url, ExitStack() as servers:
        service, process = servers.enter_context(_service(url))
        first = httpx.get(f"{service}/data")
        constant, constant_process = servers.enter_context(_bare(len(first.content)))
        old, old_process = servers.enter_context(_orm(url))
        targets = {
            "bare": Target(f"{constant}/data", constant_process),
            # of a large table it counts for seconds, so no more of it at a time than there are processors
            "ORM": Target(f"{old}/data", old_process, connections=os.cpu_count() or 1),
            **_pages(service, process, arguments.rows, first.headers["etag"]),
        }
        _print_samples(targets, _measure(targets, arguments.rounds, arguments.seconds), len(first.content))
        writers: list[int] = []
        _print_exports(_exports(service, url, arguments.rounds, process, writers), [_peak(process.pid), max(writers)])


def _pages(service: str, process: psutil.Process, rows: int, etag: str) -> dict[str, Target]:
    day = NEWEST - timedelta(days=min(1000, rows // COINS // 2))  # 1,000 days of 500 coins are 5,000 pages
    deep = cursor.encode("-day", [day.isoformat(), "generated-coin-0100"])
    days = "from=2026-01-01&to=2026-04-10"
    return {
        "first page": Target(f"{service}/data", process, 0.20),
        "first/ORM": Target(f"{service}/data", process, 10, "ORM"),
        "coin and days": Target(f"{service}/data?coin_id=generated-coin-0007&{days}", process, 0.20),
        "symbol": Target(f"{service}/data?symbol=G7", process, 0.20),
        "5,000th page": Target(f"{service}/data?cursor={deep}", process, 0.9, "first page"),
        "304": Target(f"{service}/data", process, 0.5, etag=etag),
    }


def _measure(targets: dict[str, Target], rounds: int, seconds: int) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {name: [] for name in targets}
    for target in targets.values():
        _requests_per_second(target, 1)
    for _ in range(rounds):
        for name, target in targets.items():
            before = _processor_seconds(target.process)
            rate = _requests_per_second(target, seconds)
            samples[name].append(Sample(rate, (_processor_seconds(target.process) - before) / (rate * seconds)))
            httpx.get(target.url, timeout=120)  # what was left behind is done
    return samples


def _processor_seconds(process: psutil.Process) -> float:
    taken = process.cpu_times()
    return taken.user + taken.system


def _print_samples(targets: dict[str, Target], samples: dict[str, list[Sample]], size: int) -> None:
    print(f"GET /data, 100 rows, {size} bytes, {CONNECTIONS} connections; by the serving process' time, which other")  # noqa: T201
    print("work on the machine changes less, in brackets")  # noqa: T201
    for name, found in samples.items():
        target = targets[name]
        pairs = list(zip(found, samples[target.to], strict=True))
        by_rate = statistics.median(one.rate / other.rate for one, other in pairs)
        by_cpu = statistics.median(other.cpu / one.cpu for one, other in pairs)
        goal = f"  (goal {target.goal:g})" if target.goal else ""
        rate = statistics.median(one.rate for one in found)
        print(f"{name:14} {rate:8.0f} requests/s   {by_rate:.3f} [{by_cpu:.3f}] of {target.to}{goal}")  # noqa: T201


# -- exports ------------------------------------------------------------------------------------------------------


def _exports(
    service: str, url: sa.URL, rounds: int, process: psutil.Process, writers: list[int]
) -> dict[str, list[float]]:
    """Seconds by way; `writers` is given the kilobytes of the processes that wrote for the service."""
    query = query_model(listings.DATA).model_validate({"format": "csv"})
    same, _ = listing_sql.export(query, {}, listing_sql.as_guarded_cell, 10**9)
    ways: dict[str, Callable[[], None]] = {
        "psql, table": lambda: _psql(url, "TABLE kasparro.unified_assets"),
        "psql, query": lambda: _psql(url, same),
        "GET csv": lambda: writers.append(_drain(f"{service}/data?format=csv", process)),
        "GET ndjson": lambda: writers.append(_drain(f"{service}/data?format=ndjson", process)),
        "GET arrow": lambda: writers.append(_drain(f"{service}/data?format=arrow", process)),
        # another limit each time: a file that was made is kept a while
        "GET parquet": lambda: writers.append(
            _drain(f"{service}/data?format=parquet&limit={10**7 + len(writers)}", process)
        ),
    }
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def _psql(url: sa.URL, query: str) -> None:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    program = binaries.find_binaries(Settings().postgres_bin).folder / "psql"
    copy = f"COPY ({query}) TO STDOUT (FORMAT csv, HEADER)"
    with Path(os.devnull).open("wb") as nowhere:
        subprocess.run([program, plain, "-q", "-c", copy], stdout=nowhere, check=True)


def _drain(url: str, process: psutil.Process) -> int:
    """Read an answer to its end; the most kilobytes that a child of the serving process took meanwhile."""
    peak = 0
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    with Path(os.devnull).open("wb") as nowhere, subprocess.Popen(["curl", "-sSf", url], stdout=nowhere) as curl:
        while curl.poll() is None:
            time.sleep(0.05)
            peak = max([peak, *map(_peak, map(int, children.read_text().split()))])
    if curl.returncode:
        raise SystemExit(f"error: {url} was not answered to its end")
    return peak


def _peak(pid: int) -> int:
    """The most kilobytes that a process took; 0 of one that is gone."""
    with suppress(OSError):
        if told := re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()):
            return int(told[1])
    return 0


def _print_exports(seconds: dict[str, list[float]], peaks: list[int]) -> None:
    for name, found in seconds.items():
        ratios = [
            statistics.median(a / b for a, b in zip(found, seconds[to], strict=True))
            for to in ("psql, query", "psql, table")
        ]
        goal = "  (goal 1.2 of the query or less)" if name == "GET csv" else ""
        print(  # noqa: T201
            f"{name:14} {statistics.median(found):8.2f} s   {ratios[0]:.2f} of psql's query, "
            f"{ratios[1]:.2f} of its table{goal}"
        )
    service, writer = (f"{peak / 1024:.0f} MB" for peak in peaks)
    print(f"at most, the service took {service}, a writer of Parquet or Arrow {writer}  (goal 150 MB or less)")  # noqa: T201


# -- databases and servers ----------------------------------------------------------------------------------------


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
def _service(url: sa.URL) -> Iterator[tuple[str, psutil.Process]]:
    port = _free_port()
    environment = {"DATABASE_URL": url.render_as_string(hide_password=False), "KASPARRO_API_PORT": str(port)}
    with _served([sys.executable, "-m", "kasparro_api"], port, environment) as served:
        yield served


@contextmanager
def _bare(size: int) -> Iterator[tuple[str, psutil.Process]]:
    with _uvicorn("bare", {"BARE_BODY_BYTES": str(size)}) as served:
        yield served


@contextmanager
def _orm(url: sa.URL) -> Iterator[tuple[str, psutil.Process]]:
    with _uvicorn("orm", {"DATABASE_URL": url.render_as_string(hide_password=False)}) as served:
        yield served


@contextmanager
def _uvicorn(factory: str, environment: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", f"kasparro_tests.bench.reads:{factory}", "--factory"]
    with _served([*command, "--no-access-log", "--port", str(port)], port, environment) as served:
        yield served


@contextmanager
def _served(command: list[str], port: int, environment: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    server = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    base = f"http://127.0.0.1:{port}"
    try:
        _wait(f"{base}/data", server)
        yield base, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(100):
        if server.poll() is not None:
            raise SystemExit(f"error: {url} ended with {server.returncode}")
        try:
            httpx.get(url, timeout=30).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"error: {url} does not answer")


def _requests_per_second(target: Target, seconds: int) -> float:
    header = ["--header", f"If-None-Match: {target.etag}"] if target.etag else []
    if wrk := shutil.which("wrk"):
        options = [*header, "--threads", "1", "--connections", str(target.connections), "--duration", f"{seconds}s"]
        told = subprocess.run([wrk, *options, target.url], check=True, capture_output=True, text=True).stdout
        if "Non-2xx" in told or (rate := re.search(r"Requests/sec:\s+([\d.]+)", told)) is None:
            raise SystemExit(f"error: {target.url} did not answer every request: {told}")
        return max(float(rate[1]), 1 / seconds)  # not one came to its end: less than that
    client = [sys.executable, "-m", "kasparro_tests.bench.client", target.url, str(target.connections), str(seconds)]
    return float(subprocess.check_output([*client, *([target.etag] if target.etag else [])]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()

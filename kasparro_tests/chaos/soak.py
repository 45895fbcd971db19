"""The API under load for a while: ``python -m kasparro_tests.chaos.soak --seconds 600`` (`make soak`). Needs wrk.

64 connections ask the API, while one load after the other writes and, half way, PostgreSQL is killed and started again.
Meanwhile one walker reads a week of days by cursor that nobody writes to: each walk has to give every row once, with
its numbers; and another the days that the loads write to: no row twice, and none missing that was there all the time.

Good answers and, in the gap, 503 problems are all that may come; memory has to stay flat, and connections under the
pool's size.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import sqlalchemy as sa

from kasparro_api.database import POOL_SIZE
from kasparro_pipeline.ports import free_port
from kasparro_pipeline.warehouse.database import create_engine
from kasparro_pipeline.warehouse.embedded import EmbeddedPostgres
from kasparro_pipeline.warehouse.migrate import migrate
from kasparro_tests.bench.reads import _GENERATE, COINS
from kasparro_tests.chaos.drops import write_drops
from kasparro_tests.chaos.run import FIRST, FIRST_DAY, OPTIONS, STEP, ChaosError, Side, ended, kill_server, say
from kasparro_tests.chaos.vendor import FaultyVendors
from kasparro_tests.test_load import running

CONNECTIONS = 64
QUIET_FROM, QUIET_TO = "2025-01-01", "2025-01-07"
QUIET_ROWS = 7 * COINS
LOADED_FROM = "2026-09-01"
GAP_S = 20
"""After the server is started again so long at most a 503 may come."""
GROWTH_MB = 25
"""By which the memory at the end may exceed what it was when the first third was over."""


@dataclass
class Soak:
    """What was seen."""

    url: str
    ends_at: float
    wrong: list[str] = field(default_factory=list)
    walks: int = 0
    pages: int = 0
    loads: int = 0
    gap: tuple[float, float] = (0.0, 0.0)
    memory: list[tuple[float, float]] = field(default_factory=list)
    connections: int = 0

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.ends_at or bool(self.wrong)

    def walk(self, query: str) -> dict[tuple[str, str], tuple[str | None, ...]]:
        """Every row from the first page to the last by its key; a page that a 503 was given for is asked for again."""
        found: dict[tuple[str, str], tuple[str | None, ...]] = {}
        with httpx.Client(base_url=self.url, timeout=30) as client:
            cursor = ""
            while True:
                body = self._page(client, f"/data?{query}&limit=100{cursor}")
                if body is None:
                    return {}
                self.pages += 1
                for row in body["data"]:
                    key = (row["day"], row["coin_id"])
                    if key in found:
                        self.wrong.append(f"{query}: {key} was given twice in one walk")
                    found[key] = (row["price_usd"], row["market_cap_usd"], row["volume_24h_usd"])
                if body["metadata"]["next_cursor"] is None:
                    self.walks += 1
                    return found
                cursor = f"&cursor={body['metadata']['next_cursor']}"

    def _page(self, client: httpx.Client, path: str) -> Any:
        while not self.over:
            answer = client.get(path)
            if answer.status_code == 200:
                return answer.json()
            now = time.monotonic()
            if answer.status_code != 503 or answer.headers["content-type"] != "application/problem+json":
                self.wrong.append(f"{path}: {answer.status_code} {answer.text[:200]}")
            elif not self.gap[0] or now < self.gap[0] or now > self.gap[1] + GAP_S:
                self.wrong.append(f"{path}: 503 though the database was there: {answer.text[:200]}")
            time.sleep(0.2)
        return None

    def walk_quiet(self) -> None:
        expected = self.walk(f"from={QUIET_FROM}&to={QUIET_TO}")
        if len(expected) != QUIET_ROWS:
            self.wrong.append(f"{len(expected)} rows of the quiet week, not {QUIET_ROWS}")
        while not self.over:
            found = self.walk(f"from={QUIET_FROM}&to={QUIET_TO}")
            if found and found != expected:
                self.wrong.append(f"a walk gave {len(found)} rows of the quiet week, not the same {len(expected)}")

    def walk_loaded(self) -> None:
        before = self.walk(f"from={LOADED_FROM}")
        while not self.over:
            during = self.walk(f"from={LOADED_FROM}")
            after = self.walk(f"from={LOADED_FROM}")
            if after and (lost := (before.keys() & after.keys()) - during.keys()):
                self.wrong.append(f"{len(lost)} rows were missing in a walk, such as {sorted(lost)[0]}")
            before = after or before

    def sample(self, process: psutil.Process, database: sa.Engine) -> None:
        query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kasparro-api'")
        while not self.over:
            self.memory.append((time.monotonic(), process.memory_info().rss / 1e6))
            try:
                with database.connect() as connection:
                    self.connections = max(self.connections, connection.scalar(query) or 0)
            except sa.exc.OperationalError:
                pass  # the gap
            time.sleep(1)

    def load(self, side: Side, vendors: FaultyVendors) -> None:
        while not self.over:
            vendors.now = FIRST + self.loads * STEP
            write_drops(side.drops, self.loads, vendors.now.date())
            ended(side.start())  # one that the kill stops goes on with the next
            self.loads += 1


def main() -> None:
    """Run, print, and exit with 1 where anything was not as it has to be."""
    options = argparse.ArgumentParser(description=__doc__, prog="python -m kasparro_tests.chaos.soak")
    options.add_argument("--seconds", type=int, default=120)
    seconds = options.parse_args().seconds
    wrk = shutil.which("wrk")
    if wrk is None:
        raise SystemExit("error: wrk is not installed; apt-get install wrk")
    for name in [name for name in os.environ if name.startswith("KASPARRO_") or name == "DATABASE_URL"]:
        if name != "KASPARRO_POSTGRES_BIN":
            del os.environ[name]
    os.environ["KASPARRO_FIRST_DAY"] = FIRST_DAY
    folder = Path(tempfile.mkdtemp(prefix="kasparro-soak-"))
    folder.chmod(0o755)  # started as root, the server is another user
    server = EmbeddedPostgres(folder / "server", options={**OPTIONS, "synchronous_commit": "on"})
    server.start()
    try:
        wrong = _soak(wrk, folder, server, seconds)
    finally:
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)
    for line in wrong:
        say(f"wrong: {line}")
    raise SystemExit(bool(wrong))


def _soak(wrk: str, folder: Path, server: EmbeddedPostgres, seconds: int) -> list[str]:
    multiprocessing.get_context("forkserver").set_forkserver_preload(["kasparro_tests.chaos.loading"])
    with create_engine(server.url).execution_options(isolation_level="AUTOCOMMIT").connect() as admin:
        admin.exec_driver_sql("CREATE DATABASE soak")
    vendors = FaultyVendors(FIRST, random.Random(1))
    database = create_engine(server.url.set(database="soak"))
    migrate(database)
    with database.begin() as connection:
        connection.execute(sa.text(_GENERATE), {"newest": QUIET_TO, "days": 7, "coins": COINS})
    with running(vendors) as url, _api(server, folder) as (service, process):
        side = Side("soak", folder, server, urlsplit(url).port or 0)
        side.finish()
        soak = Soak(service, time.monotonic() + seconds)
        asking = [wrk, "--threads", "2", "--connections", str(CONNECTIONS), "--duration", f"{seconds}s", "--latency"]
        script = ["--timeout", "15s", "--script", str(Path(__file__).with_suffix(".lua"))]
        with subprocess.Popen([*asking, *script, service], stdout=subprocess.PIPE, text=True) as load:
            threads = _threads(
                soak.walk_quiet,
                soak.walk_loaded,
                lambda: soak.sample(process, database),
                lambda: soak.load(side, vendors),
            )
            time.sleep(seconds / 2)
            began = time.monotonic()
            soak.gap = (began, float("inf"))
            kill_server(server)
            server.start()
            soak.gap = (began, time.monotonic())
            told = load.communicate()[0]
        for thread in threads:
            thread.join()
    database.dispose()
    return _judged(soak, told)


def _judged(soak: Soak, told: str) -> list[str]:
    answers = json.loads(told.splitlines()[-1])
    start = soak.memory[0][0]
    third = start + (soak.memory[-1][0] - start) / 3
    settled = max(size for at, size in soak.memory if at <= third)
    end = max(size for at, size in soak.memory if at > third)
    gap = soak.gap[1] - soak.gap[0]
    say(
        f"{answers['good']} good answers, {answers['away']} times 503 around a gap of {gap:.1f} s, "
        f"p50 {answers['p50_ms']} ms, p99 {answers['p99_ms']} ms, longest {answers['max_ms']} ms; "
        f"{soak.loads} loads, {soak.walks} walks of {soak.pages} pages; memory {settled:.0f} MB in the first third, "
        f"{end:.0f} MB after; {soak.connections} of {POOL_SIZE} connections"
    )
    wrong = list(soak.wrong)
    if answers["wrong"] or answers["broken"] or answers["timeouts"]:
        wrong.append(f"wrk: {answers} {told.splitlines()[-2]}")
    if end > settled + GROWTH_MB:
        wrong.append(f"memory grew from {settled:.0f} to {end:.0f} MB")
    if soak.connections > POOL_SIZE:
        wrong.append(f"{soak.connections} connections, and the pool has {POOL_SIZE}")
    if soak.walks < 2 or not answers["away"]:
        wrong.append("too short to tell: give more --seconds")
    return wrong


def _threads(*works: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work) for work in works]
    for thread in threads:
        thread.start()
    return threads


@contextmanager
def _api(server: EmbeddedPostgres, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    port = free_port()
    url = server.url.set(database="soak").render_as_string(hide_password=False)
    environment = {**os.environ, "DATABASE_URL": url, "KASPARRO_API_PORT": str(port)}
    with (folder / "api.log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "kasparro_api"], env=environment, stdout=log, stderr=log)
    service = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(f"{service}/health/live").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            raise ChaosError("the API did not start")
        yield service, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()

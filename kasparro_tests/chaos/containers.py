"""The containers, killed one after the other: ``python -m kasparro_tests.chaos.containers`` (`make drill-compose`).

Needs a Docker engine with Compose. It brings `docker-compose.yml` up as a project of its own, with ports and a drop
folder of its own, and looks that it loads by itself; then, at each moment, files change and something is killed: a
service's first process, which its restart policy has to heal, or a whole container by `docker compose kill`, which
`docker compose up` has to. Then the files' rows have to come into `/data`, and how long that took is told. A second
database, loaded once a moment without being disturbed, has to hold the same in the end, to the row.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from kasparro_pipeline.ports import free_port
from kasparro_pipeline.warehouse.database import create_engine
from kasparro_tests.chaos.common import ChaosError, in_words, say
from kasparro_tests.chaos.compare import TABLES, differences, rows, unaccounted
from kasparro_tests.chaos.drops import write_drops
from kasparro_tests.chaos.run import SHOWN

PROJECT = "kasparro-drill"
SOURCE = "csv_desk"
WITHIN = 300.0
"""Patience for a busy machine; what it took is printed."""
LARGE_COINS, LARGE_DAYS = 3_000, 60
"""Of a file that takes long enough to be read for its run to be killed."""
CRASHED = ("postgres", "simulator", "code", "daemon", "webserver", "api")
KILLED = ("postgres", "daemon")


@dataclass
class Drill:
    """One project of containers and what was seen of it."""

    folder: Path
    api_port: int = field(default_factory=free_port)
    database_port: int = field(default_factory=free_port)
    password: str = field(default_factory=secrets.token_hex)
    moment: int = 0

    def __post_init__(self) -> None:
        self.drops.mkdir()
        self.folder.chmod(0o755)  # read by the containers' user
        ports = {"services": {"postgres": {"ports": [f"127.0.0.1:{self.database_port}:5432"]}}}
        (self.folder / "ports.json").write_text(json.dumps(ports))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("KASPARRO_", "COMPOSE_"))},
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_FILE": f"docker-compose.yml:{self.folder}/ports.json",
            "COMPOSE_PROFILES": "simulator",
            "KASPARRO_API_PORT": str(self.api_port),
            "KASPARRO_DAGSTER_PORT": str(free_port()),
            "KASPARRO_DROP_DIR": str(self.drops),
            "POSTGRES_PASSWORD": self.password,
        }

    @property
    def drops(self) -> Path:
        return self.folder / "drops"

    def compose(self, *arguments: str) -> str:
        """What `docker compose` prints; raises ChaosError where it fails."""
        done = subprocess.run(
            ["docker", "compose", *arguments], env=self.environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise ChaosError(f"docker compose {' '.join(arguments)}: exit {done.returncode}")
        return done.stdout

    def up(self, *options: str) -> None:
        began = time.monotonic()
        self.compose("up", "--detach", "--wait", *options)
        say(f"up and healthy after {time.monotonic() - began:.0f} s")

    def engine(self, database: str) -> sa.Engine:
        return create_engine(
            sa.make_url(f"postgresql://kasparro:{self.password}@127.0.0.1:{self.database_port}/{database}")
        )

    def crash(self, service: str) -> None:
        """Kill a container's first process behind the engine's back, so that the restart policy has to act."""
        container = self.compose("ps", "--quiet", service).strip()
        state = subprocess.check_output(["docker", "inspect", "--format", "{{.State.Pid}}", container], text=True)
        os.kill(int(state), signal.SIGKILL)

    def healthy(self) -> bool:
        states = [json.loads(line) for line in self.compose("ps", "--format", "json").splitlines()]
        expected = {"postgres", "simulator", "code", "daemon", "webserver", "api"}
        return expected == {state["Service"] for state in states if state["Health"] == "healthy"}

    def get(self, path: str) -> Any:
        """An answer's body; None while the service is away."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.api_port}{path}", timeout=30)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None

    def run_status(self, run_id: str) -> str | None:
        body = self.get(f"/runs/{run_id}")
        return body["data"]["status"] if body else None

    def change_files(self) -> str:
        """Write the next moment's files; the price that shows that they were read."""
        write_drops(self.drops, self.moment, datetime.now(UTC).date())
        price = f"{self.moment + 1}.000001"
        marker = f"coin_id,symbol,date,price\nmarker,MRK,{datetime.now(UTC).date()},{price}\n"
        (self.drops / "desk" / "marker.csv").write_text(marker)
        self.moment += 1
        return price

    def await_price(self, price: str) -> None:
        """Wait until `/data` has it."""
        waited = until(lambda: self._price() == price, f"{price} of moment {self.moment} in /data")
        say(f"moment {self.moment}: in /data after {waited:.0f} s")

    def _price(self) -> str | None:
        body = self.get(f"/data?source={SOURCE}&coin_id=marker&limit=1")
        return body["data"][0]["price_usd"] if body and body["data"] else None

    def load_calm(self) -> None:
        """Load the files as they are into the second database."""
        url = f"DATABASE_URL=postgresql://kasparro:{self.password}@postgres:5432/calm"
        self.compose("run", "--rm", "--no-deps", "--env", url, "load", "load", "--source", SOURCE)


def until(true: Callable[[], bool], what: str) -> float:
    """Wait; the seconds it took. Raises ChaosError after `WITHIN` seconds."""
    began = time.monotonic()
    while time.monotonic() - began < WITHIN:
        if true():
            return time.monotonic() - began
        time.sleep(0.5)
    raise ChaosError(f"not within {WITHIN:g} s: {what}")


def main() -> None:
    """Run, print, take all down, and exit with 1 where anything was not as it has to be."""
    if shutil.which("docker") is None:
        raise SystemExit("error: docker is not installed")
    folder = Path(tempfile.mkdtemp(prefix="kasparro-drill-"))
    drill = Drill(folder)
    try:
        wrong = list(islice(_drill(drill), SHOWN))
    except ChaosError as error:
        wrong = [str(error)]
        (folder / "log").write_text(drill.compose("logs", "--no-color"))
    finally:
        drill.compose("down", "--volumes", "--timeout", "20")
    for line in wrong:
        say(f"wrong: {line}")
    if wrong:
        sys.exit(f"FAILED; logs are in {folder}")
    shutil.rmtree(folder)


def _drill(drill: Drill) -> Iterator[str]:
    drill.up("--build")
    if not drill.get("/data?limit=1")["data"]:
        yield "/data has no rows after `docker compose up --wait`"
    with drill.engine("kasparro").execution_options(isolation_level="AUTOCOMMIT").connect() as admin:
        admin.exec_driver_sql("CREATE DATABASE calm")
    _moment(drill)
    for service in CRASHED:
        _moment(drill, service)
    _kill_run(drill)
    price = drill.change_files()
    drill.compose("kill", *KILLED)
    drill.up()
    drill.await_price(price)
    drill.load_calm()
    before = _counts(drill)
    drill.compose("down", "--timeout", "20")
    drill.up()
    after = _counts(drill)
    if any(after[name] < count for name, count in before.items()):
        yield f"rows were lost by down and up: {before}, {after}"
    yield from _compared(drill)


def _moment(drill: Drill, crashed: str | None = None) -> None:
    """Files change, a service crashes, and both are seen to."""
    price = drill.change_files()
    if crashed:
        time.sleep(2)  # the sensor may be at the files by then
        drill.crash(crashed)
        time.sleep(1)
        took = until(drill.healthy, f"{crashed} healthy again by itself")
        say(f"{crashed} was killed, and all is healthy after {took:.0f} s")
    drill.await_price(price)
    drill.load_calm()


def _kill_run(drill: Drill) -> None:
    """A run over a large file is killed with the code location that it is a process of."""
    _write_large(drill.drops / "desk" / "large.csv")
    until(lambda: bool(_running(drill)), "a run of the large file")
    killed = _running(drill)[0]
    drill.crash("code")
    took = until(drill.healthy, "the code location healthy again by itself")
    say(f"a run was killed, and all is healthy after {took:.0f} s")
    price = drill.change_files()
    took = until(lambda: drill.run_status(killed) in ("failure", "success"), f"the end of run {killed} told")
    if drill.run_status(killed) == "success":
        raise ChaosError("the run was over before it was killed: let LARGE_COINS be more")
    say(f"the killed run is told as failed {took:.0f} s later")
    drill.await_price(price)
    drill.load_calm()


def _write_large(path: Path) -> None:
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=day) for day in range(LARGE_DAYS)]
    rows = (f"large-{coin},L{coin},{day},{coin}.25\n" for coin in range(LARGE_COINS) for day in days)
    path.write_text("coin_id,symbol,date,price\n" + "".join(rows))


def _running(drill: Drill) -> list[str]:
    body = drill.get(f"/runs?status=running&source={SOURCE}")
    return [run["run_id"] for run in body["data"]] if body else []


def _counts(drill: Drill) -> dict[str, int]:
    engine = drill.engine("kasparro")
    return {table.name: rows(engine, table).total() for table in TABLES}


def _compared(drill: Drill) -> Iterator[str]:
    calm, killed = drill.engine("calm"), drill.engine("kasparro")
    wrong = [*differences(calm, killed, SOURCE), *unaccounted(killed)]
    equal = {table.name: rows(calm, table, SOURCE).total() for table in TABLES}
    say(f"{'differences' if wrong else 'equal'}: {drill.moment} moments, {in_words(equal)}")
    yield from wrong


if __name__ == "__main__":
    main()

"""The disturbed run, the undisturbed one over the same moments, and what differs.

At each moment the vendors say something new, and files change. The disturbed run is killed there a few times, at drawn
times, before it may finish; now and then the database's server is killed instead, and started again under the load.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import sqlalchemy as sa

from kasparro_pipeline.ports import holder
from kasparro_pipeline.warehouse.database import create_engine
from kasparro_pipeline.warehouse.embedded import EmbeddedPostgres
from kasparro_tests.chaos.common import FIRST_DAY, OPTIONS, ChaosError, in_words, say
from kasparro_tests.chaos.compare import TABLES, differences, over_asked, rows, unaccounted
from kasparro_tests.chaos.drops import write_drops
from kasparro_tests.chaos.loading import load
from kasparro_tests.chaos.vendor import PAGES, FaultyVendors
from kasparro_tests.test_load import running

FIRST = datetime(2026, 10, 5, 8, tzinfo=UTC)
STEP = timedelta(minutes=97)
KILLS_A_MOMENT = 7
KILLS_A_RESTART = 12
FAULTY = 0.2
HANGS_AFTER = 180.0
TRIES = 5
SHOWN = 20
_START = "start"
JOBS = {_START, "coingecko", "coinpaprika", "csv_drops", "unify"}


def main() -> None:
    """Run, print, and exit with 1 where anything differs."""
    options = argparse.ArgumentParser(description=__doc__, prog="python -m kasparro_tests.chaos")
    options.add_argument("--kills", type=int, default=50)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--keep", action="store_true", help="keep the folder with logs when all is well, too")
    arguments = options.parse_args()
    for name in [name for name in os.environ if name.startswith("KASPARRO_") or name == "DATABASE_URL"]:
        if name != "KASPARRO_POSTGRES_BIN":
            del os.environ[name]
    os.environ["KASPARRO_FIRST_DAY"] = FIRST_DAY
    folder = Path(tempfile.mkdtemp(prefix="kasparro-chaos-"))
    folder.chmod(0o755)  # started as root, the server is another user
    chaos = Chaos(folder, arguments.kills, arguments.seed)
    try:
        wrong = chaos.run()
    except ChaosError as error:
        wrong = [str(error)]
    finally:
        chaos.server.remove()
    for line in islice(wrong, SHOWN):
        say(line)
    if wrong:
        (folder / "differences").write_text("\n".join(wrong) + "\n")
        say(
            f"FAILED with --kills {arguments.kills} --seed {arguments.seed}: {len(wrong)} lines in {folder}/differences"
        )
        sys.exit(1)
    if not arguments.keep:
        shutil.rmtree(folder)


@dataclass
class Side:
    """A database, a home and a drop folder of its own, and loads into it."""

    name: str
    folder: Path
    server: EmbeddedPostgres
    port: int
    loads: int = 0

    def __post_init__(self) -> None:
        (self.folder / self.name / "drops").mkdir(parents=True)

    @property
    def engine(self) -> sa.Engine:
        return create_engine(self.server.url.set(database=self.name))

    @property
    def drops(self) -> Path:
        return self.folder / self.name / "drops"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def start(self) -> multiprocessing.process.BaseProcess:
        """Start a load."""
        self.loads += 1
        with self.log.open("a") as log:
            log.write(f"{_START}\n")
        environment = {
            "DATABASE_URL": self.server.url.set(database=self.name).render_as_string(hide_password=False),
            "KASPARRO_HOME": str(self.folder / self.name / "home"),
            "KASPARRO_DROP_DIR": str(self.drops),
            "KASPARRO_SIMULATOR_PORT": str(self.port),
            "KASPARRO_SIMULATOR_RATE_PER_MINUTE": "1000000",
        }
        process = multiprocessing.get_context("forkserver").Process(
            target=load, args=(environment, self.log), daemon=True
        )
        process.start()
        return process

    def finish(self) -> None:
        """Load until it succeeds; most often the first does."""
        for _ in range(TRIES):
            process = self.start()
            ended(process)
            if process.exitcode == 0:
                return
        raise ChaosError(f"{TRIES} loads in a row failed without being disturbed; the last: {self.last_words()}")

    def at(self) -> str:
        """The job that the load is at."""
        words = (line.partition(" ")[0] for line in reversed(self._lines()))
        return next(word for word in words if word in JOBS)

    def last_words(self) -> str:
        return self._lines()[-1]

    def _lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()


def ended(process: multiprocessing.process.BaseProcess) -> None:
    """Wait for it."""
    process.join(HANGS_AFTER)
    if process.is_alive():
        process.kill()
        process.join()
        raise ChaosError(f"a load did not end within {HANGS_AFTER:g} s")


def kill_server(server: EmbeddedPostgres) -> None:
    """Kill every process of the server, the first one first."""
    postmaster = holder(server.url.port or 0)
    if postmaster is None:
        raise ChaosError("the database's server has ended by itself")
    for process in [postmaster, *postmaster.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)


@dataclass
class Chaos:
    """One run of the harness."""

    folder: Path
    wanted: int
    seed: int
    kills: int = 0
    restarts: int = 0
    failed: int = 0
    """Loads that ended with an error by themselves, under a killed server or for faults beyond all tries."""
    moments: int = 0
    seconds: float = 6.0
    """How long a load takes if it is let, by the last ones."""
    where: Counter[str] = field(default_factory=Counter)
    """Kills by the job that was under way."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.server = EmbeddedPostgres(self.folder / "server", options=OPTIONS)
        self.vendors = FaultyVendors(FIRST, random.Random(f"faults {self.seed}"), FAULTY)

    def run(self) -> list[str]:
        """All of it; what is wrong at the end."""
        multiprocessing.get_context("forkserver").set_forkserver_preload(["kasparro_tests.chaos.loading"])
        self.server.start()
        for name in ("chaotic", "calm"):
            with create_engine(self.server.url).execution_options(isolation_level="AUTOCOMMIT").connect() as admin:
                admin.exec_driver_sql(f"CREATE DATABASE {name}")
        with running(self.vendors) as url:
            chaotic, calm = (Side(n, self.folder, self.server, urlsplit(url).port or 0) for n in ("chaotic", "calm"))
            started = time.monotonic()
            while self.kills < self.wanted:
                self._step(chaotic, self.moments)
                self._disturb(chaotic)
                began = time.monotonic()
                chaotic.finish()
                self.seconds = (self.seconds + time.monotonic() - began) / 2
                self.moments += 1
                self._progress(started)
            requests = self.vendors.answered.total() + self.vendors.faults.total()
            faults, answered = self.vendors.faults.total(), dict(self.vendors.answered)
            self.vendors.share = 0.0
            say(f"the same {self.moments} moments, undisturbed")
            for moment in range(self.moments):
                self._step(calm, moment)
                calm.finish()
        ours, theirs = calm.engine, chaotic.engine
        wrong = [
            *differences(ours, theirs),
            *unaccounted(theirs),
            *over_asked(theirs, answered, PAGES, self.kills + self.restarts),
        ]
        compared = {table.name: rows(ours, table).total() for table in TABLES}
        say(
            f"{'differences' if wrong else 'equal'}: {self.kills} kills ({in_words(self.where)}), "
            f"{self.restarts} server restarts, {chaotic.loads} loads ({self.failed} ended by an error) "
            f"over {self.moments} moments, {requests} requests ({faults} answered by faults), "
            f"{sum(compared.values())} rows compared: {in_words(compared)}"
        )
        return wrong

    def _step(self, side: Side, moment: int) -> None:
        self.vendors.now = FIRST + moment * STEP
        write_drops(side.drops, moment, self.vendors.now.date())

    def _disturb(self, side: Side) -> None:
        """Kill some loads at this moment, or the server under them."""
        for _ in range(self.random.randint(1, KILLS_A_MOMENT)):
            if self.kills == self.wanted:
                return
            restarts = self.random.random() < 1 / KILLS_A_RESTART
            pause = self.random.uniform(0.02, 0.9)
            process = side.start()
            process.join(pause * self.seconds)
            if process.exitcode is not None:
                self.failed += process.exitcode != 0
                return
            if restarts or (self.kills + 1 == self.wanted // 2 and not self.restarts):
                self._restart()
                ended(process)
                self.failed += process.exitcode != 0
            else:
                process.kill()
                process.join()
                self.kills += 1
                self.where[side.at()] += 1

    def _restart(self) -> None:
        kill_server(self.server)
        self.server.start()
        self.restarts += 1

    def _progress(self, started: float) -> None:
        say(
            f"{self.kills}/{self.wanted} kills, {self.restarts} server restarts, {self.moments} moments, "
            f"{self.vendors.answered.total() + self.vendors.faults.total()} requests, "
            f"{time.monotonic() - started:.0f} s"
        )

"""Runs on Celery's workers: ``python -m kasparro_tests.chaos.workers`` (`make drill-celery`). Needs root and Redis.

Two workers run in network namespaces with addresses of their own, as two machines that reach this one's PostgreSQL and
Redis. A backfill of 60 days, a file each, goes to one worker, to both, and to both while one is lost in the middle: its
link is cut, so that nobody hears of its end, and its processes are killed. The real daemon has to notice and to heal
it. The tables must end equal, row by row, three times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from random import Random

import dagster as dg
import httpx
import psutil
import sqlalchemy as sa

from kasparro_pipeline.components.partitions import drops
from kasparro_pipeline.load import Loader
from kasparro_pipeline.ports import free_port
from kasparro_pipeline.processes import wait_until_ended
from kasparro_pipeline.ranges import range_tags
from kasparro_pipeline.services import environment, services
from kasparro_pipeline.settings import REPOSITORY, settings
from kasparro_pipeline.stack import enter
from kasparro_pipeline.warehouse.database import create_engine, current_engine
from kasparro_pipeline.warehouse.embedded import EmbeddedPostgres
from kasparro_tests.api.dagster_server import webserver
from kasparro_tests.chaos.common import FIRST_DAY, OPTIONS, ChaosError, in_words, say
from kasparro_tests.chaos.compare import TABLES, differences, rows, unaccounted

FIRST = date(2026, 9, 1)
DAYS = 60
COINS = 1500
KILL_AFTER = 12
"""So many runs have ended well when a worker is lost."""
WAITS_SECONDS = 1500.0
JOB = "csv_drops"
ENDED = "PIPELINE_SUCCESS"
_INSTIGATORS = """
{ repositoriesOrError { ... on RepositoryConnection { nodes {
    schedules { scheduleState { id } } sensors { sensorState { id } }
} } } }
"""
_STOP_SENSOR = "mutation ($id: String!) { stopSensor(id: $id) { __typename } }"
_STOP_SCHEDULE = "mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }"
_LAUNCH = """
mutation ($run: ExecutionParams!) { launchRun(executionParams: $run) { __typename ... on Error { message } } }
"""


def main() -> None:
    """Run, print, and exit with 1 where anything differs."""
    options = argparse.ArgumentParser(description=__doc__, prog="python -m kasparro_tests.chaos.workers")
    options.add_argument("--keep", action="store_true", help="keep the folder with logs when all is well, too")
    keep = options.parse_args().keep
    if missing := _missing():
        say(f"skipped: {missing}")
        return
    for name in [name for name in os.environ if name.startswith("KASPARRO_") or name == "DATABASE_URL"]:
        if name != "KASPARRO_POSTGRES_BIN":
            del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="kasparro-workers-"))
    folder.chmod(0o755)  # started as root, the database's server is another user
    try:
        wrong = _drill(folder)
    except ChaosError as error:
        wrong = [str(error)]
    for line in wrong[:20]:
        say(line)
    if wrong:
        sys.exit(f"FAILED: {len(wrong)} lines; the logs are in {folder}")
    if not keep:
        shutil.rmtree(folder)


def _missing() -> str | None:
    """Why this machine cannot do it."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program, package in {"ip": "iproute2", "redis-server": "redis-server"}.items():
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: {package})"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        return "this machine lets nobody make a network namespace"
    return None


# -- machines -----------------------------------------------------------------------------------------------------


@dataclass
class Machine:
    """A network namespace, linked to this one by a pair of interfaces."""

    number: int

    @property
    def name(self) -> str:
        return f"kasparro{self.number}"

    @property
    def ours(self) -> str:
        """This machine's address on the link."""
        return f"10.77.{self.number}.1"

    @property
    def theirs(self) -> str:
        return f"10.77.{self.number}.2"

    @contextmanager
    def up(self) -> Iterator[None]:
        inside, outside = f"{self.name}i", f"{self.name}o"
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", self.name)
            _ip("addr", "add", f"{self.ours}/30", "dev", outside)
            _ip("link", "set", outside, "up")
            for command in (("addr", "add", f"{self.theirs}/30", "dev", inside), ("link", "set", inside, "up")):
                _ip("-n", self.name, *command)
            _ip("-n", self.name, "link", "set", "lo", "up")
            yield
        finally:
            self.kill()
            _ip("netns", "del", self.name)

    def lose(self) -> None:
        """Cut the link, and kill everything: no other machine hears a word."""
        _ip("link", "set", f"{self.name}o", "down")
        self.kill()

    def kill(self) -> None:
        """Kill every process of it."""
        pids = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=True).stdout
        for pid in map(int, pids.split()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def _process(command: list[str], log: Path, variables: Mapping[str, str], stop: int = signal.SIGTERM) -> Iterator[None]:
    with log.open("a") as out:
        process = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **variables}, stdout=out, stderr=out)
        try:
            yield
        finally:
            with suppress(psutil.NoSuchProcess):
                ours = psutil.Process(process.pid)
                started = [ours, *ours.children(recursive=True)]
                process.send_signal(stop)
                for left in wait_until_ended(started, timeout_seconds=20):
                    left.kill()
            process.wait()


@contextmanager
def _redis(folder: Path, port: int) -> Iterator[None]:
    command = ["redis-server", "--port", str(port), "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]
    with _process([*command, "--dir", str(folder)], folder / "redis.log", {}):
        yield


# -- the drill ----------------------------------------------------------------------------------------------------


@dataclass
class Round:
    """One backfill into a database of its own."""

    name: str
    folder: Path
    server: EmbeddedPostgres
    broker: str
    """With {} for this machine's address."""
    machines: list[Machine]
    loses: Machine | None = None
    seconds: float = 0.0

    @property
    def engine(self) -> sa.Engine:
        return create_engine(self.server.url.set(database=self.name))

    def run(self) -> None:
        """Start daemon and workers, launch a run for each day, wait until all is loaded, and unify."""
        with create_engine(self.server.url).execution_options(isolation_level="AUTOCOMMIT").connect() as admin:
            admin.exec_driver_sql(f"CREATE DATABASE {self.name}")
        os.environ.update(self._variables("127.0.0.1", self.folder / self.name / "home"))
        (self.folder / self.name / "drops").mkdir(parents=True)
        settings.cache_clear()
        enter(settings())
        keys = write_days(self.folder / self.name / "drops")
        with ExitStack() as stack:
            for machine in self.machines:
                stack.enter_context(self._worker(machine))
            instance = dg.DagsterInstance.get()
            instance.add_dynamic_partitions(drops().name or "", keys)
            with webserver() as url:
                _launch(url, keys)
            for service in (service for service in services(settings()) if service.name in ("code", "daemon")):
                log = self.folder / f"{self.name}-{service.name}.log"
                stack.enter_context(_process([sys.executable, *service.arguments], log, {}))
            self._wait(instance)
            ended = instance.get_run_records(dg.RunsFilter(job_name=JOB))
            self.seconds = max(r.end_time or 0 for r in ended) - min(r.start_time or time.time() for r in ended)
        Loader().unify()
        say(f"{self.name}: {self.seconds:.0f} s, {60 * DAYS / self.seconds:.0f} days a minute; runs {self._where()}")

    def _variables(self, address: str, home: Path) -> dict[str, str]:
        url = self.server.url.set(database=self.name, host=address)
        return {
            "DATABASE_URL": url.render_as_string(hide_password=False),
            "KASPARRO_HOME": str(home),
            "KASPARRO_DROP_DIR": str(self.folder / self.name / "drops"),
            "KASPARRO_CODE_PORT": str(free_port()),
            "KASPARRO_RUN_LAUNCHER": "celery",
            "KASPARRO_CELERY_BROKER": self.broker.format(address),
            "KASPARRO_FIRST_DAY": FIRST_DAY,
        }

    def _worker(self, machine: Machine) -> AbstractContextManager[None]:
        variables = {
            **self._variables(machine.ours, self.folder / self.name / machine.name),
            "PATH": environment(settings())["PATH"],
            "KASPARRO_LOG_FORMAT": "json",  # which is read below
        }
        celery = ["celery", "-A", "kasparro_pipeline.celery_worker", "worker", "--concurrency", "1"]
        command = ["kasparro", "exec", "--", *celery, "-n", f"worker@{machine.theirs}", "--loglevel", "WARNING"]
        return _process(["ip", "netns", "exec", machine.name, *command], self._log(machine), variables)

    def _log(self, machine: Machine) -> Path:
        return self.folder / f"{self.name}-{machine.name}.log"

    def _wait(self, instance: dg.DagsterInstance) -> None:
        """Return once every day is loaded and nothing runs; lose a machine on the way."""
        deadline = time.monotonic() + WAITS_SECONDS
        lost = self.loses is None
        while True:
            runs = instance.get_runs(dg.RunsFilter(job_name=JOB))
            done = {_day(run) for run in runs if run.status is dg.DagsterRunStatus.SUCCESS}
            if len(done) == DAYS and all(run.is_finished for run in runs):
                return
            if self.loses and not lost and len(done) >= KILL_AFTER and self._is_busy(self.loses, runs):
                self.loses.lose()
                lost = True
                say(f"{self.name}: lost {self.loses.theirs} after {len(done)} days, in the middle of a run")
            if time.monotonic() > deadline:
                states = Counter(run.status.value for run in runs)
                raise ChaosError(f"{self.name}: only {len(done)} of {DAYS} days in {WAITS_SECONDS:g} s; runs: {states}")
            time.sleep(0.2)

    def _is_busy(self, machine: Machine, runs: Sequence[dg.DagsterRun]) -> bool:
        """Whether a run of this machine stores observations just now, by what its worker has logged."""
        going = {run.run_id for run in runs if run.status is dg.DagsterRunStatus.STARTED}
        at = {line["run_id"]: line["event"] for line in self._lines(machine) if "event" in line and "run_id" in line}
        steps = {"STEP_START", "STEP_INPUT", "STEP_OUTPUT", "LOADED_INPUT", "HANDLED_OUTPUT", "ASSET_MATERIALIZATION"}
        return any(at.get(run_id) in steps for run_id in going)

    def _lines(self, machine: Machine) -> Iterator[dict[str, str]]:
        for line in self._log(machine).read_text(errors="replace").splitlines():
            with suppress(json.JSONDecodeError):
                yield json.loads(line)

    def _where(self) -> str:
        """How many runs ended well on which machine."""
        ended = [(m.theirs, [line for line in self._lines(m) if line.get("event") == ENDED]) for m in self.machines]
        return in_words({address: len(runs) for address, runs in ended})


def _day(run: dg.DagsterRun) -> str | None:
    return next((value for name, value in run.tags.items() if name.endswith("range_start")), None)


def _launch(url: str, keys: list[str]) -> None:
    """A run a file; nothing else runs, so schedules and sensors are switched off."""

    def ask(query: str, **variables: object) -> dict[str, object]:
        answer = httpx.post(f"{url}/graphql", json={"query": query, "variables": variables}, timeout=120).json()
        if "errors" in answer or "message" in str(answer["data"]):
            raise ChaosError(str(answer))
        return dict(answer["data"])

    (repository,) = ask(_INSTIGATORS)["repositoriesOrError"]["nodes"]
    for sensor in repository["sensors"]:
        ask(_STOP_SENSOR, id=sensor["sensorState"]["id"])
    for schedule in repository["schedules"]:
        ask(_STOP_SCHEDULE, id=schedule["scheduleState"]["id"])
    selector = {"jobName": JOB, "repositoryName": "__repository__", "repositoryLocationName": "kasparro"}
    for key in keys:
        tags = [{"key": name, "value": value} for name, value in range_tags(key, key).items()]
        ask(_LAUNCH, run={"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}})


def write_days(folder: Path) -> list[str]:
    """A file a day in `folder`, always the same; their partitions."""
    (folder / "desk").mkdir()
    names = []
    for day in (FIRST + timedelta(days=n) for n in range(DAYS)):
        random = Random(day.toordinal())
        lines = [f"desk-{n},D{n},Desk Coin {n},{day},{random.randrange(1, 10**9)}.{n:04}" for n in range(COINS)]
        (folder / "desk" / f"{day}.csv").write_text("\n".join(["coin_id,symbol,name,date,price", *lines, ""]))
        names.append(f"desk/{day}.csv")
    return names


def _drill(folder: Path) -> list[str]:
    """All of it; what is wrong at the end."""
    one, two = Machine(1), Machine(2)
    hba = folder / "pg_hba.conf"
    hba.write_text("host all all 127.0.0.1/32 scram-sha-256\nhost all all 10.77.0.0/16 scram-sha-256\n")
    listen = {"listen_addresses": f"127.0.0.1,{one.ours},{two.ours}", "hba_file": str(hba)}
    server = EmbeddedPostgres(folder / "server", options={**OPTIONS, **listen})
    port = free_port()
    with ExitStack() as stack:
        for machine in (one, two):
            stack.enter_context(machine.up())
        stack.enter_context(_redis(folder, port))
        server.start()
        stack.callback(server.remove)
        broker = f"redis://{{}}:{port}/"
        calm = Round("one_worker", folder, server, f"{broker}0", [one])
        both = Round("two_workers", folder, server, f"{broker}1", [one, two])
        hurt = Round("one_is_lost", folder, server, f"{broker}2", [one, two], loses=two)
        for round_ in (calm, both, hurt):
            round_.run()
        wrong = [line for other in (both, hurt) for line in differences(calm.engine, other.engine)]
        wrong += unaccounted(hurt.engine)
        compared = {table.name: rows(calm.engine, table).total() for table in TABLES}
        say(
            f"{'differences' if wrong else 'equal'}: {in_words(compared)}; two workers are "
            f"{calm.seconds / both.seconds:.2f} times as fast as one, {calm.seconds / hurt.seconds:.2f} with one lost"
        )
        current_engine().dispose()
    return wrong


if __name__ == "__main__":
    main()

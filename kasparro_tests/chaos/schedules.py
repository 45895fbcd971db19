"""Schedules for a while: ``python -m kasparro_tests.chaos.schedules --seconds 1800`` (`make soak-schedules`).

A copy of the repository, in which every source is fetched each minute, runs as `make up` starts it. Dagster's clock
cannot be sped up, nor a run's work; so a week's 1,008 ticks of a source take as many minutes. A third of the way one
run's process is killed. In the end: no tick missed or failed, no run failed but that one (whose retry is good), and
no process with more memory, open files or connections than when the first third was over.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import mean

import dagster as dg
import psutil
import sqlalchemy as sa
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

from kasparro_pipeline.ports import free_port
from kasparro_pipeline.services import SUPERVISED, environment
from kasparro_pipeline.settings import REPOSITORY, settings
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_tests.chaos.common import FIRST_DAY, ChaosError, in_words, say

EVERY_S = 10.0
GROWTH_MB, GROWTH_FILES, GROWTH_CONNECTIONS = 40, 12, 8
"""By which the mean of the last third may exceed that of the second."""
_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
NAMES = {
    "kasparro_api": "api",
    "dagster_webserver": "webserver",
    "dagster._daemon": "daemon",
    "api grpc": "code location",
    "simulator": "simulator",
    "supervisord": "supervisor",
    "warehouse.embedded": "postgres",
}


def main() -> None:
    """Run, print, and exit with 1 where anything is wrong."""
    options = argparse.ArgumentParser(description=__doc__, prog="python -m kasparro_tests.chaos.schedules")
    options.add_argument("--seconds", type=float, default=1800)
    seconds = options.parse_args().seconds
    for name in [name for name in os.environ if name.startswith("KASPARRO_") or name == "DATABASE_URL"]:
        if name != "KASPARRO_POSTGRES_BIN":
            del os.environ[name]
    folder = Path(tempfile.mkdtemp(prefix="kasparro-schedules-"))
    folder.chmod(0o755)  # started as root, the database's server is another user
    soak = Soak(folder, seconds)
    try:
        soak.run()
    except ChaosError as error:
        soak.wrong.append(str(error))
    finally:
        soak.command("down")
    for line in soak.wrong:
        say(line)
    if soak.wrong:
        sys.exit(f"FAILED: {len(soak.wrong)} lines; the logs are in {folder}/home/logs")
    say("all is well")
    shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process, or the database, holds at a moment."""

    at: float
    memory_mb: float
    files: float


@dataclass
class Soak:
    """The stack of a copy, and what was seen of it."""

    folder: Path
    seconds: float
    wrong: list[str] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    """By process that lives all the time."""
    connections: list[tuple[float, int]] = field(default_factory=list)
    killed: str | None = None
    """The run whose process was killed."""

    @property
    def copy(self) -> Path:
        return self.folder / "repository"

    def run(self) -> None:
        """Start, watch, judge."""
        self._copy()
        variables = {
            "KASPARRO_HOME": str(self.folder / "home"),
            "KASPARRO_FIRST_DAY": FIRST_DAY,
            "KASPARRO_SIMULATOR_RATE_PER_MINUTE": "100000",
            **{f"KASPARRO_{name}_PORT": str(free_port()) for name in ("API", "DAGSTER", "SIMULATOR")},
        }
        os.environ.update(variables)
        settings.cache_clear()
        if self.command("up"):
            raise ChaosError("the stack does not start")
        os.environ.update(environment(settings()))
        started = time.time()
        instance = dg.DagsterInstance.get()
        while (now := time.time()) < started + self.seconds:
            self._sample(now - started)
            if self.killed is None and now > started + self.seconds / 3:
                self.killed = _kill_a_run(instance)
            time.sleep(EVERY_S)
        self._judge_growth()
        self._judge_ticks(instance, started, now)
        self._judge_runs(instance, started)

    def command(self, name: str) -> int:
        """A command of the copy's ``kasparro``."""
        command = [sys.executable, "-c", "from kasparro_pipeline.cli import main; main()", name]
        variables = {**os.environ, "PYTHONPATH": str(self.copy)}
        with (self.folder / "commands.log").open("a") as log:
            done = subprocess.run(command, cwd=self.copy, env=variables, stdout=log, stderr=log, check=False)
        return done.returncode

    def _copy(self) -> None:
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for name in filter(None, tracked.stdout.split("\0")):
            (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, self.copy / name)
        for file in (self.copy / "kasparro_pipeline" / "defs").glob("*/defs.yaml"):
            file.write_text(re.sub(r"^  refresh: .*$", '  refresh: "* * * * *"', file.read_text(), flags=re.MULTILINE))

    # -- what is seen ---------------------------------------------------------------------------------------------

    def _sample(self, at: float) -> None:
        for process in _processes(self.folder / "home"):
            with suppress(psutil.Error):
                name = _name(process)
                if name:
                    held = process.memory_info().rss / 2**20
                    self.samples[f"{name} ({process.pid})"].append(Sample(at, held, process.num_fds()))
        with current_engine().connect() as connection:
            count = connection.scalar(
                sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            )
        self.connections.append((at, int(count or 0)))

    # -- what is wrong --------------------------------------------------------------------------------------------

    def _judge_growth(self) -> None:
        for name, samples in sorted(self.samples.items()):
            before, after = self._thirds(samples)
            if not before or not after or samples[0].at > self.seconds / 6:
                continue  # it was not there all the time
            memory = mean(s.memory_mb for s in before), mean(s.memory_mb for s in after)
            files = mean(s.files for s in before), mean(s.files for s in after)
            say(f"{name}: memory {memory[0]:.0f} -> {memory[1]:.0f} MB, open files {files[0]:.0f} -> {files[1]:.0f}")
            if memory[1] - memory[0] > GROWTH_MB or files[1] - files[0] > GROWTH_FILES:
                self.wrong.append(f"{name} has grown")
        before, after = self._thirds([Sample(at, 0, count) for at, count in self.connections])
        counts = mean(s.files for s in before), mean(s.files for s in after)
        most = max(count for _, count in self.connections)
        say(f"connections to PostgreSQL: {counts[0]:.1f} -> {counts[1]:.1f}, at most {most}")
        if counts[1] - counts[0] > GROWTH_CONNECTIONS:
            self.wrong.append("connections have grown")

    def _thirds(self, samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
        """Those of the second and of the last third."""
        third = self.seconds / 3
        return [s for s in samples if third <= s.at < 2 * third], [s for s in samples if s.at >= 2 * third]

    def _judge_runs(self, instance: dg.DagsterInstance, started: float) -> None:
        records = [r for r in instance.get_run_records() if r.create_timestamp.timestamp() > started]
        counts: dict[str, int] = defaultdict(int)
        for record in records:
            run = record.dagster_run
            counts[f"{run.job_name} {run.status.value.lower()}"] += 1
            if run.status is dg.DagsterRunStatus.FAILURE and run.run_id != self.killed:
                self.wrong.append(f"run {run.run_id} of {run.job_name} has failed")
        retried = [r.dagster_run.status.value for r in records if r.dagster_run.parent_run_id == self.killed]
        if retried != ["SUCCESS"]:
            self.wrong.append(f"the run that was killed ({self.killed}) was tried again with {retried}")
        say(f"runs: {in_words(counts)}; one of them was killed, and tried again")

    def _judge_ticks(self, instance: dg.DagsterInstance, started: float, ended: float) -> None:
        for state in instance.all_instigator_state():
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, after=started, before=ended)
            failed = [tick for tick in ticks if tick.status is TickStatus.FAILURE]
            if failed:
                self.wrong.append(f"{state.name}: {len(failed)} ticks failed, such as {failed[0].error}")
            if state.name.endswith("_refresh") and len(ticks) > 1 and "list" not in state.name:
                self._judge_minutes(state.name, ticks, ended)

    def _judge_minutes(self, name: str, ticks: list[InstigatorTick], ended: float) -> None:
        times = sorted(tick.timestamp for tick in ticks)
        missed = sum(round((b - a) / 60) - 1 for a, b in pairwise([*times, ended - ended % 60]) if b - a > 90)
        say(f"{name}: {len(times)} ticks, one a minute, {missed} missed")
        if missed:
            self.wrong.append(f"{name} has missed {missed} ticks")


def _processes(home: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(SUPERVISED) == str(home):
                yield process


def _name(process: psutil.Process) -> str | None:
    """What it is, unless it is the process of a run."""
    command = " ".join(process.cmdline())
    return next((name for part, name in NAMES.items() if part in command and "spawn_main" not in command), None)


def _kill_a_run(instance: dg.DagsterInstance) -> str | None:
    """Kill the process of a run that has begun to work, if there is one; the run."""
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            if found := re.search(r"Started process for run \(pid: (\d+)\)", event.message):
                with suppress(ProcessLookupError):
                    os.kill(int(found[1]), signal.SIGKILL)
                    return run.run_id
    return None


if __name__ == "__main__":
    main()

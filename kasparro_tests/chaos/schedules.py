"""A week of schedules in half an hour: ``python -m kasparro_tests.chaos.schedules --days 7`` (`make soak-schedules`).

A copy of the repository, in which every vendor is asked every six hours, runs as `make up` starts it, by a clock that
is moved to the next tick whenever all is done that the last one brought. Each day a file is dropped. A third of the way
one run's process is killed. In the end: no tick missed or failed, no run failed but that one (whose retry is good),
every day unified, nobody alarmed, and no process with more memory, open files or connections than when the first third
was over.
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
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path
from statistics import mean

import dagster as dg
import psutil
import sqlalchemy as sa
from dagster._core.scheduler.instigation import InstigatorType, ScheduleInstigatorData, TickStatus
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._utils.schedules import cron_string_iterator

from kasparro_pipeline.components.csv_source import due_drops
from kasparro_pipeline.defs.retention import definitions as nightly
from kasparro_pipeline.defs.unified_assets.definitions import touched_ranges
from kasparro_pipeline.ports import free_port
from kasparro_pipeline.services import SUPERVISED, environment
from kasparro_pipeline.settings import REPOSITORY, settings
from kasparro_pipeline.warehouse.binaries import find_binaries
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_tests.alerts.receivers import Hook, running_hook
from kasparro_tests.chaos.clock import Clock
from kasparro_tests.chaos.common import FIRST_DAY, ChaosError, in_words, say

REFRESH = "0 */6 * * *"
"""Dagster looks for ticks once a minute of a wall's clock, so that a week takes no less than 28 minutes."""
DROPPED = "of-a-desk"
"""The coin of which a file is dropped each day."""
DAY_S = 86400
MOST_S = 300.0
"""All that a tick brings is done in that time, of a wall's clock."""
GROWTH_MB, GROWTH_FILES, GROWTH_CONNECTIONS = 40, 12, 8
"""By which the mean of the last third may exceed that of the second."""
UNFINISHED = [status for status in dg.DagsterRunStatus if status not in FINISHED_STATUSES]
_OF_DAYS = """
SELECT day::text, count(*), bool_or(coin_id = :dropped) FROM kasparro.unified_assets WHERE day >= :since
GROUP BY day ORDER BY day
"""
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
    options.add_argument("--days", type=float, default=7)
    days = options.parse_args().days
    clock = Clock.ours()
    if clock is None:
        folder = Path(tempfile.mkdtemp(prefix="kasparro-schedules-"))
        folder.chmod(0o755)  # started as root, the database's server is another user
        try:
            Clock(folder).start_again()
        except ChaosError as error:
            sys.exit(f"FAILED: {error}")
    for name in [name for name in os.environ if name.startswith("KASPARRO_") or name == "DATABASE_URL"]:
        del os.environ[name]
    soak = Soak(clock, days)
    try:
        soak.run()
    except ChaosError as error:
        soak.wrong.append(str(error))
    finally:
        soak.command("down")
    for line in soak.wrong:
        say(line)
    if soak.wrong:
        sys.exit(f"FAILED: {len(soak.wrong)} lines; the logs are in {clock.folder}/home/logs")
    say("all is well")
    shutil.rmtree(clock.folder)


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process, or the database, holds at a moment."""

    at: float
    memory_mb: float
    files: float


@dataclass
class Soak:
    """The stack of a copy, and what was seen of it."""

    clock: Clock
    days: float
    wrong: list[str] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    """By process that lives all the time."""
    connections: list[tuple[float, int]] = field(default_factory=list)
    killed: str | None = None
    """The run whose process was killed."""

    @property
    def copy(self) -> Path:
        return self.clock.folder / "repository"

    def run(self) -> None:
        """Start, watch, judge."""
        with running_hook() as hook:
            self._run(hook)

    def _run(self, hook: Hook) -> None:
        self._copy()
        variables = {
            "KASPARRO_HOME": str(self.clock.folder / "home"),
            "KASPARRO_DROP_DIR": str(self.copy / "data" / "drops"),
            "KASPARRO_ALERT_WEBHOOK_URL": hook.url,
            "KASPARRO_FIRST_DAY": FIRST_DAY,
            "KASPARRO_SIMULATOR_RATE_PER_MINUTE": "100000",
            "KASPARRO_POSTGRES_BIN": str(self.clock.of_programs(find_binaries().folder, "postgres", "initdb")),
            **{f"KASPARRO_{name}_PORT": str(free_port()) for name in ("API", "CODE", "DAGSTER", "SIMULATOR")},
        }
        os.environ.update(variables)
        settings.cache_clear()
        if self.command("up"):
            raise ChaosError("the stack does not start")
        os.environ.update(environment(settings()))
        began, started = time.monotonic(), time.time()
        instance = dg.DagsterInstance.get()
        self._live(instance, started)
        say(f"{(time.time() - started) / DAY_S:.2f} days in {(time.monotonic() - began) / 60:.0f} minutes")
        self._judge_growth()
        self._judge_ticks(instance, started)
        self._judge_runs(instance, started)
        self._judge_days(started)
        self.wrong += [f"people were told: {post['text']}" for post in hook.posts]

    def command(self, name: str) -> int:
        """A command of the copy's ``kasparro``."""
        command = [sys.executable, "-c", "from kasparro_pipeline.cli import main; main()", name]
        variables = {**os.environ, "PYTHONPATH": str(self.copy)}
        with (self.clock.folder / "commands.log").open("a") as log:
            done = subprocess.run(command, cwd=self.copy, env=variables, stdout=log, stderr=log, check=False)
        return done.returncode

    def _copy(self) -> None:
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
        for name in filter(None, tracked.stdout.split("\0")):
            (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, self.copy / name)
        for file in (self.copy / "kasparro_pipeline" / "defs").glob("*/defs.yaml"):
            file.write_text(re.sub(r"(?m)^( +refresh:) .*$", rf'\1 "{REFRESH}"', file.read_text()))

    def _live(self, instance: dg.DagsterInstance, started: float) -> None:
        """Go from tick to tick until the days are over, and all is done that they brought."""
        until, kill_from = started + self.days * DAY_S, started + self.days * DAY_S / 3
        moved_at = time.monotonic()
        quiet = 0
        while True:
            self._sample(time.time() - started)
            self._drop_file_of_the_day()
            if self.killed is None and time.time() > kill_from:
                self.killed = _kill_a_run(instance)
            quiet = quiet + 1 if _is_done(instance, started) else 0
            if quiet > 1:
                if time.time() > until:
                    return
                before_next = min(_next(cron) for cron in [nightly.DAILY, *_crons(instance).values()]) - 1
                if before_next > time.time():
                    self.clock.move_to(before_next)
                    moved_at, quiet = time.monotonic(), 0
            if time.monotonic() - moved_at > MOST_S:
                raise ChaosError(f"what was due at {datetime.now(UTC):%F %T} is not done within {MOST_S:.0f} seconds")
            time.sleep(1)

    def _drop_file_of_the_day(self) -> None:
        today = _day(time.time())
        file = settings().drop_dir / "desk" / f"{today}.csv"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"id,symbol,name,date,price\n{DROPPED},dsk,Of a Desk,{today},1.5\n")

    # -- what is seen ---------------------------------------------------------------------------------------------

    def _sample(self, at: float) -> None:
        for process in _processes(self.clock.folder / "home"):
            with suppress(psutil.Error):
                name = _name(process)
                if name:
                    held = process.memory_info().rss / 2**20
                    self.samples[f"{name} ({process.pid})"].append(Sample(at, held, process.num_fds()))
        with current_engine().connect() as connection:
            count = connection.scalar(sa.text(_CONNECTIONS))
        self.connections.append((at, int(count or 0)))

    # -- what is wrong --------------------------------------------------------------------------------------------

    def _judge_growth(self) -> None:
        for name, samples in sorted(self.samples.items()):
            before, after = self._thirds(samples)
            if not before or not after or samples[0].at > self.days * DAY_S / 6:
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
        third = self.days * DAY_S / 3
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

    def _judge_ticks(self, instance: dg.DagsterInstance, started: float) -> None:
        crons = _crons(instance)
        for state in instance.all_instigator_state():
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, after=started)
            failed = [tick for tick in ticks if tick.status is TickStatus.FAILURE]
            if failed:
                self.wrong.append(f"{state.name}: {len(failed)} ticks failed, such as {failed[0].error}")
            if state.name in crons:
                due = _due(crons[state.name], started)
                missed = set(due) - {tick.timestamp for tick in ticks}
                say(f"{state.name}: {len(ticks)} ticks, {len(missed)} of {len(due)} missed")
                if missed:
                    self.wrong.append(f"{state.name} has missed {len(missed)} ticks")

    def _judge_days(self, started: float) -> None:
        """Every day is unified, with no fewer coins than the first one, and that of its file."""
        with current_engine().connect() as connection:
            of_days = connection.execute(sa.text(_OF_DAYS), {"since": _day(started), "dropped": DROPPED}).all()
        counts = {day: count for day, count, _ in of_days}
        say(f"coins of each day: {in_words(counts)}")
        days = {_day(started + n * DAY_S) for n in range(int((time.time() - started) / DAY_S) + 1)}
        if not days <= set(counts) or min(counts.values()) < counts[_day(started)] or not all(d for *_, d in of_days):
            self.wrong.append("not every day is whole")


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _crons(instance: dg.DagsterInstance) -> dict[str, str]:
    """When each schedule is due, in UTC."""
    states = instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    data = {state.name: state.instigator_data for state in states}
    return {name: str(found.cron_schedule) for name, found in data.items() if isinstance(found, ScheduleInstigatorData)}


def _next(cron: str) -> float:
    return next(cron_string_iterator(time.time(), cron, "UTC")).timestamp()


def _due(cron: str, started: float) -> list[float]:
    """The times at which it has been due since."""
    times = (tick.timestamp() for tick in cron_string_iterator(started, cron, "UTC"))
    return list(takewhile(lambda moment: moment <= time.time(), times))


def _is_done(instance: dg.DagsterInstance, started: float) -> bool:
    """Whether all that was due has begun, all that has begun is ended, and nothing is to be loaded or unified."""
    crons = _crons(instance)
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE):
        due = _due(crons[state.name], started)
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, after=started, limit=1)
        if due and (not ticks or ticks[0].timestamp < due[-1] or ticks[0].status is TickStatus.STARTED):
            return False
    forgotten = instance.get_latest_materialization_event(nightly.retention.key)
    nights = _due(nightly.DAILY, started)
    if nights and (forgotten is None or forgotten.timestamp < nights[-1]):
        return False
    return not instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) and not due_drops() and not touched_ranges()


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

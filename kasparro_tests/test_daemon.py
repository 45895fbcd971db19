"""Dagster's own daemon on a database of its own: everything happens without anybody asking."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest
import sqlalchemy as sa
from dagster._core.launcher import WorkerStatus

from kasparro_pipeline.ports import free_port
from kasparro_pipeline.processes import wait_until_ended
from kasparro_pipeline.services import services
from kasparro_pipeline.settings import REPOSITORY, settings
from kasparro_pipeline.warehouse.tables import unified_assets
from kasparro_tests.test_api_source import NOT_ASKED
from kasparro_tests.test_load import kasparro

WAIT_SECONDS = 120


@contextmanager
def daemon(log: Path) -> Iterator[None]:
    """Code location and daemon as `kasparro up` starts them, into one log; what they have started ends with them."""
    with log.open("a") as out:
        commands = [service.arguments for service in services(settings()) if service.name in ("code", "daemon")]
        processes = [psutil.Popen([sys.executable, *c], cwd=REPOSITORY, stdout=out, stderr=out) for c in commands]
        try:
            yield
        finally:
            started = [*processes, *(child for one in processes for child in one.children(recursive=True))]
            for process in processes:
                process.terminate()
            for left in wait_until_ended(started, timeout_seconds=10):
                left.kill()
            for process in processes:
                process.wait()


def wait_for(what: Callable[[], object], log: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not what():
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.2)


def process_of(job: str, instance: dg.DagsterInstance) -> int | None:
    """The process of a run that has begun to work."""
    for run in instance.get_runs(dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.STARTED])):
        for event in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            if found := re.search(r"Started process for run \(pid: (\d+)\)", event.message):
                return int(found[1])
    return None


@pytest.mark.timeout(480)
def test_a_dropped_file_becomes_rows_without_anybody_asking_though_its_run_is_killed(
    server: sa.URL, template: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "daemon.log"
    monkeypatch.setenv("KASPARRO_LOG_FORMAT", "json")
    monkeypatch.setenv("KASPARRO_CODE_PORT", str(free_port()))
    with kasparro(server, template, tmp_path, NOT_ASKED, NOT_ASKED) as env, daemon(log):
        (env.drop_dir / "desk").mkdir()
        (env.drop_dir / "desk" / "a.csv").write_text("Symbol,Name,Date,Price\nBTC,Bitcoin,2025-11-01,110064.5\n")
        instance = dg.DagsterInstance.get()
        wait_for(lambda: process_of("csv_drops", instance), log)
        (run,) = instance.get_runs(dg.RunsFilter(job_name="csv_drops"))
        assert instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
        os.kill(process_of("csv_drops", instance) or 0, signal.SIGKILL)
        wait_for(lambda: env.count(unified_assets), log)
        (row,) = env.rows(sa.select(unified_assets))
        assert (row.day.isoformat(), str(row.price_usd), row.sources) == ("2025-11-01", "110064.5", ["csv_desk"])
        runs = instance.get_runs(dg.RunsFilter(job_name="csv_drops"))
        assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
        assert runs[0].parent_run_id == runs[1].run_id
        lines = [json.loads(line) for line in log.read_text().split("\n")[:-1]]
        assert not list(Path(instance.root_directory).rglob("*.err")), "a copy that nothing removes"
    ended = [line for line in lines if line.get("event") == "STEP_SUCCESS"]
    of_steps = {(line.get("source"), line["partition"], line["step"]) for line in ended}
    assert ("csv_drops", "desk/a.csv", "csv_drops__observations") in of_steps

"""The code location as a service of its own: killed and started again, with other code."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import httpx
import pytest
import sqlalchemy as sa
from dagster._core.launcher import WorkerStatus

from kasparro_pipeline.ports import free_port
from kasparro_pipeline.services import environment, services
from kasparro_pipeline.settings import settings
from kasparro_pipeline.stack import Stack
from kasparro_tests.test_daemon import wait_for

CODE = """
from pathlib import Path
from time import sleep

import dagster as dg


@dg.op
def work() -> None:
    while not Path({go!r}).exists():
        sleep(0.05)


@dg.job(name={name!r})
def job() -> None:
    work()


@dg.sensor(job=job, minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def sensor() -> dg.RunRequest:
    return dg.RunRequest(run_key={name!r})


defs = dg.Definitions(jobs=[job], sensors=[sensor], executor=dg.in_process_executor)
"""
JOBS = "{ repositoriesOrError { ... on RepositoryConnection { nodes { jobs { name } } } } }"


@pytest.fixture
def folder(database: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the code is; home and ports are the test's own."""
    monkeypatch.setenv("KASPARRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KASPARRO_DAGSTER_PORT", str(free_port()))
    settings.cache_clear()
    for name, value in environment(settings()).items():
        monkeypatch.setenv(name, value)
    yield tmp_path


@pytest.fixture
def stack(folder: Path) -> Iterator[Stack]:
    """Code location, webserver and daemon, with a file of the test as the code."""
    found = {service.name: service for service in services(settings())}
    arguments = [str(folder / "code.py") if part.startswith("kasparro_") else part for part in found["code"].arguments]
    arguments[arguments.index("--module-name")] = "--python-file"
    stack = Stack(settings(), [replace(found["code"], arguments=tuple(arguments)), found["webserver"], found["daemon"]])
    yield stack
    stack.down()


def jobs_of_the_webserver() -> set[str]:
    url = f"http://127.0.0.1:{settings().dagster_port}/graphql"
    nodes = httpx.post(url, json={"query": JOBS}, timeout=30).json()["data"]["repositoriesOrError"].get("nodes", [])
    return {job["name"] for node in nodes for job in node["jobs"]} - {"__ASSET_JOB"}


@pytest.mark.timeout(480)
def test_killed_it_comes_back_with_the_code_of_then_and_its_run_goes_on(folder: Path, stack: Stack) -> None:
    log = folder / "home" / "logs" / "daemon.log"
    (folder / "code.py").write_text(CODE.format(name="old", go=str(folder / "old.go")))
    stack.up(load=lambda: None, say=lambda _: None)
    instance = dg.DagsterInstance.get()

    def statuses(job: str) -> list[str]:
        return [run.status.value for run in instance.get_runs(dg.RunsFilter(job_name=job))]

    wait_for(lambda: statuses("old") == ["STARTED"], log)
    assert jobs_of_the_webserver() == {"old"}
    (folder / "code.py").write_text(CODE.format(name="new", go=str(folder / "code.py")))
    killed = next(state.pid for state in stack.status() if state.name == "code")
    os.kill(killed or 0, signal.SIGKILL)
    wait_for(lambda: jobs_of_the_webserver() == {"new"}, log)
    wait_for(lambda: statuses("new") == ["SUCCESS"], log)
    (run,) = instance.get_runs(dg.RunsFilter(job_name="old"))
    assert instance.run_launcher.check_run_worker_health(run).status is WorkerStatus.RUNNING
    (folder / "old.go").touch()
    wait_for(lambda: statuses("old") == ["SUCCESS"], log)

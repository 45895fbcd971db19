"""One dagster.yaml for every deployment: the settings choose where runs run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.events import EngineEventData
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG
from dagster_docker import DockerRunLauncher

from kasparro_pipeline import celery_launcher
from kasparro_pipeline.dagster_launcher import KasparroRunLauncher
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.ports import free_port
from kasparro_pipeline.run_health import PROCESS_TAG, WatchedRunLauncher, health_of_load, this_process
from kasparro_pipeline.services import environment, make_dagster_home
from kasparro_pipeline.settings import settings


@pytest.fixture(autouse=True)
def _settings_of_this_test() -> None:
    settings.cache_clear()


def test_the_instance_has_the_launcher_of_the_settings(
    database: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KASPARRO_HOME", str(tmp_path))
    settings.cache_clear()
    make_dagster_home(settings())
    for name, value in environment(settings()).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as instance:
        assert isinstance(instance.run_launcher, WatchedRunLauncher)
        instance.event_log_storage._engine.dispose()


@pytest.mark.parametrize(("extra", "module"), [("celery", "dagster_celery"), ("docker", "dagster_docker")])
def test_a_launcher_that_is_not_installed_is_named(extra: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KASPARRO_RUN_LAUNCHER", extra)
    for loaded in (f"kasparro_pipeline.{extra}_launcher", f"{module}.launcher"):
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(KasparroError, match=rf"needs {module}.*install kasparro\[{extra}\]"):
        KasparroRunLauncher.from_config_value(None, {})


def test_celery_is_told_its_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KASPARRO_RUN_LAUNCHER", "celery")
    monkeypatch.setenv("KASPARRO_CELERY_BROKER", "redis://:secret@127.0.0.1:6399/3")
    made = KasparroRunLauncher.from_config_value(None, {})
    assert isinstance(made, CeleryRunLauncher)
    assert made.celery.conf.broker_url == made.celery.conf.result_backend == "redis://:secret@127.0.0.1:6399/3"


def test_a_run_whose_worker_does_not_answer_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_launcher, "_PING_SECONDS", 0.01)
    launcher = celery_launcher.WatchedCeleryRunLauncher("dagster", broker="memory://", backend="cache+memory://")
    launcher.celery.backend.store_result("task", {"hostname": "worker@gone"}, "STARTED")
    run = dg.DagsterRun("job", tags={DAGSTER_CELERY_TASK_ID_TAG: "task"})
    told = launcher.check_run_worker_health(run)
    assert (told.status.value, "worker@gone does not answer" in told.msg) == ("FAILED", True)
    monkeypatch.setattr(launcher, "_answers", lambda worker: worker == "worker@gone")
    assert launcher.check_run_worker_health(run).status.value == "RUNNING"


def test_a_container_is_given_the_settings_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KASPARRO_RUN_LAUNCHER", "docker")
    monkeypatch.setenv("KASPARRO_IMAGE", "kasparro:1")
    monkeypatch.setenv("KASPARRO_DOCKER_NETWORK", "inside")
    monkeypatch.setenv("KASPARRO_DOCKER_VOLUMES", "/data/drops:/drops:ro")
    monkeypatch.setenv("KASPARRO_COINGECKO_API_KEY", "secret")
    made = KasparroRunLauncher.from_config_value(None, {})
    assert isinstance(made, DockerRunLauncher)
    assert (made.image, made.networks) == ("kasparro:1", ["inside"])
    assert "KASPARRO_COINGECKO_API_KEY" in made.env_vars
    assert not any("secret" in name or name == "KASPARRO_HOME" for name in made.env_vars)
    assert made.container_kwargs["volumes"] == ["/data/drops:/drops:ro"]


def test_a_run_that_its_code_location_does_not_execute_has_failed(tmp_path: Path) -> None:
    (tmp_path / "nothing.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    port = free_port()
    command = [sys.executable, "-m", "dagster", "api", "grpc", "--python-file", "nothing.py", "--port", str(port)]
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        launcher = WatchedRunLauncher()
        launcher.register_instance(instance)

        def health(pid: int | None = None, **place: object) -> tuple[WorkerStatus, str | None]:
            job = dg.JobDefinition(graph_def=dg.GraphDefinition(name="nothing"))
            tags = {GRPC_INFO_TAG: json.dumps({"host": "127.0.0.1", **place})}
            run = instance.create_run_for_job(job, tags=tags)
            if pid:
                instance.report_engine_event("Started process for run", run, EngineEventData.in_process(pid))
            told = launcher.check_run_worker_health(run)
            return told.status, told.msg

        with subprocess.Popen(command, cwd=tmp_path) as server:
            try:
                _wait_for(DagsterGrpcClient(port=port, host="127.0.0.1"))
                assert health(port=port) == (
                    WorkerStatus.FAILED,
                    "The code location was started again and does not execute it.",
                )
                with subprocess.Popen([sys.executable, "-c", ""]) as ended:
                    pass
                assert health(port=port, pid=ended.pid)[0] is WorkerStatus.FAILED
                assert health(port=port, pid=os.getpid())[0] is WorkerStatus.RUNNING, "its process has outlived one"
            finally:
                server.kill()
        assert health(port=port)[0] is WorkerStatus.RUNNING, "it is away, and can be asked when it comes back"
        assert health(socket=str(tmp_path / "gone"))[0] is WorkerStatus.FAILED


def _wait_for(client: DagsterGrpcClient) -> None:
    for _ in range(600):
        try:
            client.ping("there")
        except DagsterUserCodeUnreachableError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the code location did not start")


def test_a_run_of_a_load_that_was_killed_has_failed() -> None:
    host, pid, started = this_process().split(" ")
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    for process, expected in (
        (this_process(), WorkerStatus.RUNNING),
        (f"{host} {ended.pid} {started}", WorkerStatus.FAILED),
        (f"{host} {pid} 1.5", WorkerStatus.FAILED),  # the number was given to another process
        (f"elsewhere {ended.pid} {started}", WorkerStatus.RUNNING),
    ):
        told = health_of_load(dg.DagsterRun("job", tags={PROCESS_TAG: process}))
        assert told and told.status is expected, process

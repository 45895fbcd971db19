"""One dagster.yaml for every deployment: the settings choose where runs run."""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.launcher import DefaultRunLauncher

from kasparro_pipeline.dagster_launcher import KasparroRunLauncher
from kasparro_pipeline.errors import KasparroError
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
        assert isinstance(instance.run_launcher, DefaultRunLauncher)
        instance.event_log_storage._engine.dispose()


@pytest.mark.parametrize(("extra", "module"), [("celery", "dagster_celery"), ("docker", "dagster_docker")])
def test_a_launcher_that_is_not_installed_is_named(extra: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KASPARRO_RUN_LAUNCHER", extra)
    monkeypatch.delitem(sys.modules, f"kasparro_pipeline.{extra}_launcher", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(KasparroError, match=rf"needs {module}.*install kasparro\[{extra}\]"):
        KasparroRunLauncher.from_config_value(None, {})


def test_celery_is_told_its_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = pytest.importorskip("dagster_celery.launcher")
    monkeypatch.setenv("KASPARRO_RUN_LAUNCHER", "celery")
    monkeypatch.setenv("KASPARRO_CELERY_BROKER", "redis://:secret@127.0.0.1:6399/3")
    made = KasparroRunLauncher.from_config_value(None, {})
    assert isinstance(made, launcher.CeleryRunLauncher)
    assert made.celery.conf.broker_url == made.celery.conf.result_backend == "redis://:secret@127.0.0.1:6399/3"


def test_a_run_whose_worker_does_not_answer_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    celery_launcher = pytest.importorskip("kasparro_pipeline.celery_launcher", exc_type=ImportError)
    monkeypatch.setattr(celery_launcher, "_PING_SECONDS", 0.01)
    launcher = celery_launcher.WatchedCeleryRunLauncher("dagster", broker="memory://", backend="cache+memory://")
    launcher.celery.backend.store_result("task", {"hostname": "worker@gone"}, "STARTED")
    run = dg.DagsterRun("job", tags={celery_launcher.DAGSTER_CELERY_TASK_ID_TAG: "task"})
    told = launcher.check_run_worker_health(run)
    assert (told.status.value, "worker@gone does not answer" in told.msg) == ("FAILED", True)
    monkeypatch.setattr(launcher, "_answers", lambda worker: worker == "worker@gone")
    assert launcher.check_run_worker_health(run).status.value == "RUNNING"


def test_a_container_is_given_the_settings_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = pytest.importorskip("dagster_docker")
    monkeypatch.setenv("KASPARRO_RUN_LAUNCHER", "docker")
    monkeypatch.setenv("KASPARRO_IMAGE", "kasparro:1")
    monkeypatch.setenv("KASPARRO_DOCKER_NETWORK", "inside")
    monkeypatch.setenv("KASPARRO_DOCKER_VOLUMES", "/data/drops:/drops:ro")
    monkeypatch.setenv("KASPARRO_COINGECKO_API_KEY", "secret")
    made = KasparroRunLauncher.from_config_value(None, {})
    assert isinstance(made, docker.DockerRunLauncher)
    assert (made.image, made.networks) == ("kasparro:1", ["inside"])
    assert "KASPARRO_COINGECKO_API_KEY" in made.env_vars
    assert not any("secret" in name or name == "KASPARRO_HOME" for name in made.env_vars)
    assert made.container_kwargs["volumes"] == ["/data/drops:/drops:ro"]

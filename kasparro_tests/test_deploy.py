"""deploy/k8s: values, manifests and dagster.yaml say the same, and Dagster finds its tables by each of them."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml

from kasparro_pipeline.services import environment, make_dagster_home, services
from kasparro_pipeline.settings import REPOSITORY, Settings, settings

K8S = REPOSITORY / "deploy" / "k8s"
VALUES: dict[str, Any] = yaml.safe_load((K8S / "values.yaml").read_text())
INSTANCE: dict[str, Any] = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
PARTS = (VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], *VALUES["dagster-user-deployments"]["deployments"])


def manifests(name: str) -> dict[tuple[str, str], dict[str, Any]]:
    found = yaml.safe_load_all((K8S / name).read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


OURS = manifests("kasparro.yaml")
SECRETS = manifests("secrets.example.yaml")


def containers() -> list[dict[str, Any]]:
    pods = [one["spec"]["template"]["spec"] for one in OURS.values() if "template" in one.get("spec", {})]
    return [container for pod in pods for container in pod["containers"]]


def test_one_image_runs_everywhere() -> None:
    images = {"{repository}:{tag}".format(**part["image"]) for part in PARTS} | {one["image"] for one in containers()}
    assert len(images) == 1


def test_settings_and_secrets_that_are_named_are_there() -> None:
    for part in PARTS:
        assert all(("ConfigMap", one["name"]) in OURS for one in part["envConfigMaps"])
        assert all(("Secret", one["name"]) in SECRETS for one in part["envSecrets"])
    for container in containers():
        maps, secrets = container["envFrom"]
        assert ("ConfigMap", maps["configMapRef"]["name"]) in OURS
        assert ("Secret", secrets["secretRef"]["name"]) in SECRETS
    assert "postgresql-password" in SECRETS["Secret", VALUES["global"]["postgresqlSecretName"]]["stringData"]


def test_both_speak_of_one_database() -> None:
    url = sa.make_url(SECRETS["Secret", "kasparro"]["stringData"]["DATABASE_URL"])
    chart = VALUES["postgresql"]
    password = SECRETS["Secret", VALUES["global"]["postgresqlSecretName"]]["stringData"]["postgresql-password"]
    assert (url.host, url.username, url.database) == (
        chart["postgresqlHost"],
        chart["postgresqlUsername"],
        chart["postgresqlDatabase"],
    )
    assert url.password == password


def test_settings_are_settings() -> None:
    names = {f"KASPARRO_{name.upper()}" for name in type(settings()).model_fields}
    assert set(OURS["ConfigMap", "kasparro"]["data"]) <= names


def workspace(name: str) -> dict[str, Any]:
    (location,) = yaml.safe_load((REPOSITORY / name).read_text())["load_from"]
    return dict(location)


def test_the_code_location_is_one_however_it_is_started() -> None:
    module = workspace("workspace.yaml")["python_module"]
    server = workspace("deploy/workspace.yaml")["grpc_server"]
    assert server["location_name"] == module["location_name"]
    here = next(service.arguments for service in services(Settings()) if service.name == "code")
    compose = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    there = compose["code"]["command"]
    for command in (here, there):
        options = dict(pairwise(command))
        assert options["--module-name"] == module["module_name"]
        assert options["--port"] == str(Settings().code_port)
    assert compose["daemon"]["environment"]["KASPARRO_CODE_HOST"] == "code"
    assert {server["host"]["env"], server["port"]["env"]} <= environment(Settings()).keys()


def test_the_code_location_is_what_the_workspace_loads() -> None:
    module = workspace("workspace.yaml")["python_module"]
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    arguments = deployment["dagsterApiGrpcArgs"]
    named = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert named == {"--module-name": module["module_name"], "--location-name": module["location_name"]}
    assert import_module(named["--module-name"]).defs
    drops = OURS["ConfigMap", "kasparro"]["data"]["KASPARRO_DROP_DIR"]
    assert drops in [mount["mountPath"] for mount in deployment["volumeMounts"]]


def test_the_api_finds_the_webserver_of_a_release_named_dagster() -> None:
    port = VALUES["dagsterWebserver"]["service"]["port"]
    assert OURS["ConfigMap", "kasparro"]["data"]["KASPARRO_DAGSTER_URL"] == f"http://dagster-dagster-webserver:{port}"
    assert VALUES["dagsterWebserver"]["readinessProbe"]["httpGet"]["port"] == port


def test_dagsters_instance_is_told_what_dagster_yaml_says() -> None:
    for section, said in VALUES["additionalInstanceConfig"].items():
        assert INSTANCE[section] == said
    queue = VALUES["dagsterDaemon"]["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queue["dequeueIntervalSeconds"] == INSTANCE["run_queue"]["dequeue_interval_seconds"]
    for kind, said in INSTANCE["retention"].items():
        assert VALUES["retention"][kind]["purgeAfterDays"] == said["purge_after_days"]
    assert VALUES["telemetry"] == INSTANCE["telemetry"]


def test_the_charts_instance_sees_our_runs(database: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KASPARRO_HOME", str(tmp_path / "ours"))
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", database.password or "")
    settings.cache_clear()
    make_dagster_home(settings())
    for name, value in environment(settings()).items():
        monkeypatch.setenv(name, value)
    with dg.DagsterInstance.get() as ours:
        run = ours.create_run_for_job(dg.JobDefinition(graph_def=dg.GraphDefinition(name="nothing")))
        ours.event_log_storage._engine.dispose()
    with dg.DagsterInstance.from_config(str(_charts_home(tmp_path, database))) as theirs:
        assert [one.run_id for one in theirs.get_runs()] == [run.run_id]
        assert theirs.run_retries_max_retries == 2


def _charts_home(folder: Path, database: sa.URL) -> Path:
    """A DAGSTER_HOME as the chart's template of dagster.yaml makes it of the values."""
    chart = VALUES["postgresql"]
    config = {
        "username": database.username,
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": database.host,
        "db_name": database.database,
        "port": database.port,
        "params": chart["postgresqlParams"],
        "scheme": chart["postgresqlScheme"],
    }
    classes = {"run": "Run", "event_log": "EventLog", "schedule": "Schedule"}
    storages = {
        f"{name}_storage": {
            "module": f"dagster_postgres.{name}_storage" if name != "event_log" else "dagster_postgres.event_log",
            "class": f"Postgres{class_}Storage",
            "config": {"postgres_db": config},
        }
        for name, class_ in classes.items()
    }
    home = folder / "theirs"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump({**storages, **VALUES["additionalInstanceConfig"]}))
    return home

"""The sensor as Dagster evaluates it, on real runs: from a vendor that refuses to the message that it is well again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.tags import AUTOMATION_CONDITION_TAG

from kasparro_pipeline.components.partitions import drops
from kasparro_pipeline.definitions import defs
from kasparro_pipeline.defs.alerts.definitions import failed_runs
from kasparro_pipeline.ranges import range_tags
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.tables import incident
from kasparro_tests.alerts.receivers import SECRET, Hook, running_hook
from kasparro_tests.sources.vendor import Reply, Vendor, running_vendor
from kasparro_tests.test_api_source import NOT_ASKED, markets, run_job
from kasparro_tests.test_load import Environment, kasparro

REFUSED = Reply(b'{"error": "no such key"}', status=401)


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    with running_vendor(REFUSED, markets(*range(31))) as vendor:
        yield vendor


@pytest.fixture
def env(server: sa.URL, template: sa.URL, tmp_path: Path, vendor: Vendor) -> Iterator[Environment]:
    with kasparro(server, template, tmp_path, vendor.url, NOT_ASKED) as env:
        yield env


@pytest.fixture
def hook(env: Environment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with running_hook() as hook:
        monkeypatch.setenv("KASPARRO_ALERT_WEBHOOK_URL", hook.url)
        monkeypatch.setenv("KASPARRO_DAGSTER_PUBLIC_URL", "https://dagster.test")
        settings.cache_clear()
        yield hook


def look(definitions: dg.Definitions) -> str | None:
    """Evaluate the sensor once; its skip reason."""
    context = dg.build_sensor_context(
        instance=dg.DagsterInstance.get(), repository_def=definitions.get_repository_def()
    )
    data = definitions.resolve_sensor_def("alerts").evaluate_tick(context)
    assert data.run_requests == []
    return data.skip_message


def test_it_runs_by_default(definitions: dg.Definitions) -> None:
    assert definitions.resolve_sensor_def("alerts").default_status is dg.DefaultSensorStatus.RUNNING


def test_without_a_channel_it_does_nothing_and_says_so(definitions: dg.Definitions, env: Environment) -> None:
    assert run_job(definitions, "coingecko")
    assert "set KASPARRO_ALERT_WEBHOOK_URL" in (look(definitions) or "")
    assert env.count(incident) == 0


def test_a_failed_run_is_told_once_with_a_link_and_once_when_it_is_over(
    definitions: dg.Definitions, env: Environment, hook: Hook
) -> None:
    assert look(definitions) == "everything that there is to tell is told"
    assert hook.posts == []
    assert run_job(definitions, "coingecko")
    look(definitions)
    look(definitions)
    (post,) = hook.posts
    (told,) = post["incidents"]
    assert (told["kind"], told["subject"], told["state"]) == ("run_failed", "coingecko", "opened")
    assert "401" in told["summary"]
    (run,) = dg.DagsterInstance.get().get_runs()
    assert told["url"] == f"https://dagster.test/runs/{run.run_id}"
    assert told["url"] in post["text"]

    hook.status = 500
    assert run_job(definitions, "coingecko") is None
    said = look(definitions) or ""
    assert said.startswith("webhook: it answered 500")
    assert SECRET not in said
    with env.engine.begin() as connection:
        connection.execute(sa.text("UPDATE kasparro.incident_notice SET next_try_at = now()"))
    hook.status = 200
    look(definitions)
    look(definitions)
    assert [post["incidents"][0]["state"] for post in hook.posts] == ["opened", "recovered"]
    assert hook.posts[1]["incidents"][0]["id"] == told["id"]


def test_a_file_that_failed_is_not_well_because_another_one_is(env: Environment) -> None:
    for name in ("a.csv", "b.csv", "c.csv"):
        (env.drop_dir / name).touch()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(drops().name, ["a.csv", "b.csv", "c.csv"])

        def ended(first: str, last: str, status: dg.DagsterRunStatus) -> None:
            instance.add_run(dg.DagsterRun("csv_drops", status=status, tags=range_tags(first, last)))

        def told() -> list[str]:
            return [one.subject for one in failed_runs(instance, ["csv_drops"])]

        ended("a.csv", "a.csv", dg.DagsterRunStatus.FAILURE)
        ended("b.csv", "b.csv", dg.DagsterRunStatus.SUCCESS)
        assert told() == ["csv_drops a.csv"]
        ended("b.csv", "c.csv", dg.DagsterRunStatus.FAILURE)
        assert told() == ["csv_drops b.csv...c.csv", "csv_drops a.csv"]
        ended("a.csv", "b.csv", dg.DagsterRunStatus.SUCCESS)
        assert told() == ["csv_drops b.csv...c.csv"]
        (env.drop_dir / "c.csv").unlink()
        assert told() == []


def test_an_asset_that_its_condition_materializes_has_failed_until_it_has_not(env: Environment) -> None:
    with dg.DagsterInstance.ephemeral() as instance:

        def ended(asset: str, status: dg.DagsterRunStatus, **tags: str) -> None:
            tags = tags or {AUTOMATION_CONDITION_TAG: "true"}
            instance.add_run(
                dg.DagsterRun("__ASSET_JOB", status=status, tags=tags, asset_selection={dg.AssetKey(asset)})
            )

        def told() -> list[str]:
            return [one.subject for one in failed_runs(instance, ["__ASSET_JOB"])]

        ended("retention", dg.DagsterRunStatus.FAILURE, by="hand")
        assert told() == []
        ended("retention", dg.DagsterRunStatus.FAILURE)
        ended("other", dg.DagsterRunStatus.SUCCESS)
        assert told() == ["retention"]
        ended("retention", dg.DagsterRunStatus.SUCCESS)
        assert told() == []

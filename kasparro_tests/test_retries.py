"""What passes by itself is tried again in runs that started by themselves; what a person has to mend is tried once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa
import yaml

from kasparro_pipeline.components import api_source, drift
from kasparro_pipeline.definitions import defs
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.io_managers import retries
from kasparro_pipeline.load import QUIET, _first_error
from kasparro_pipeline.settings import REPOSITORY
from kasparro_pipeline.sources.http import RequestPolicy
from kasparro_pipeline.warehouse.calls import BudgetSpentError
from kasparro_pipeline.warehouse.tables import observation, source_run
from kasparro_tests.sources.vendor import Reply, Vendor, running_vendor
from kasparro_tests.test_api_source import NOT_ASKED, markets
from kasparro_tests.test_load import Environment, kasparro

BUSY = Reply(b"busy", status=503)
SCHEDULED = {"dagster/schedule_name": "coingecko_refresh"}


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


@pytest.fixture
def gecko(server, template, tmp_path: Path, monkeypatch) -> Iterator[tuple[Environment, Vendor]]:
    """CoinGecko, asked once in each try of a step; neither waits."""
    monkeypatch.setattr(api_source, "RequestPolicy", partial(RequestPolicy, attempts=1))
    monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0.01)
    with running_vendor(BUSY) as vendor, kasparro(server, template, tmp_path, vendor.url, NOT_ASKED) as env:
        yield env, vendor


def run(definitions: dg.Definitions, env: Environment, tags: dict[str, str] = SCHEDULED) -> str | None:
    result = definitions.resolve_job_def("coingecko").execute_in_process(
        instance=dg.DagsterInstance.get(),
        run_config=QUIET,
        partition_key=env.today.isoformat(),
        tags=tags,
        raise_on_error=False,
    )
    return None if result.success else _first_error(result)


def test_a_vendor_that_is_away_for_a_while_needs_no_human(gecko, definitions) -> None:
    env, vendor = gecko
    vendor.replies[:] = [BUSY, Reply(sent=-1), markets(1, 2)]
    assert run(definitions, env) is None
    assert len(vendor.requests) == 3
    assert env.count(observation) == 2
    assert {row.status for row in env.rows(sa.select(source_run))} == {"success"}


def test_one_that_stays_away_fails_the_run_with_its_own_words(gecko, definitions) -> None:
    env, vendor = gecko
    assert "answered 503 Service Unavailable" in (run(definitions, env) or "")
    assert len(vendor.requests) == 1 + retries.MAX_RETRIES


@pytest.mark.parametrize("reply", [Reply(b"{}", 401), Reply(b"{}", 403), Reply(b"[]")], ids=["401", "403", "empty"])
def test_what_a_person_has_to_mend_is_tried_once(gecko, definitions, reply: Reply) -> None:
    env, vendor = gecko
    vendor.replies[:] = [reply]
    assert run(definitions, env)
    assert len(vendor.requests) == 1


def test_a_run_that_somebody_waits_for_is_not_tried_again(gecko, definitions) -> None:
    env, vendor = gecko
    assert run(definitions, env, tags={})
    assert len(vendor.requests) == 1


def test_a_database_that_drops_the_connection_is_tried_again(gecko, definitions, monkeypatch) -> None:
    env, vendor = gecko
    vendor.replies[:] = [markets(1, 2)]
    parse, dropped = api_source.ObservationLoad.load, []

    def load(self):
        found = parse(self)
        frames = found.frames

        def cut(merging: sa.Connection):
            if not dropped:
                dropped.append(merging.connection.driver_connection.info.backend_pid)
                with env.engine.connect() as other:
                    other.exec_driver_sql(f"SELECT pg_terminate_backend({dropped[0]})")
            yield from frames(merging)

        return replace(found, frames=cut)

    monkeypatch.setattr(api_source.ObservationLoad, "load", load)
    assert run(definitions, env) is None
    assert dropped
    assert len(vendor.requests) == 1  # what was fetched is not fetched again
    assert env.count(observation) == 2


def test_what_can_pass() -> None:
    assert retries.can_pass(psycopg.errors.AdminShutdown())
    assert retries.can_pass(sa.exc.OperationalError("SELECT 1", None, Exception()))
    mended = [KasparroError("x"), BudgetSpentError("x"), drift.DriftError("x"), ValueError("x")]
    assert not any(map(retries.can_pass, mended))
    assert not retries.can_pass(sa.exc.ProgrammingError("SELECT 1", None, Exception()))


def test_dagster_starts_only_runs_again_whose_process_died() -> None:
    told = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())["run_retries"]
    assert told == {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}

"""What the API asks of Dagster: loads that are wanted, and the assets, on a real webserver."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from kasparro_api.dagster import Dagster, DagsterRefusedError
from kasparro_api.schemas import AssetGraph, Launched, RunAnswer
from kasparro_pipeline.components.partitions import drops
from kasparro_pipeline.ranges import RANGE_END, RANGE_START
from kasparro_pipeline.settings import Settings, settings
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import checkpoint, failed_check, run_request, source_run
from kasparro_tests.api.dagster_server import in_between, webserver
from kasparro_tests.api.rows import insert
from kasparro_tests.api.serving import app_on, served, within
from kasparro_tests.api.test_operations import step
from kasparro_tests.test_load import kasparro

KEYS = SecretStr("one:operate,two:operate,reader:read")
ONE = {"X-API-Key": "one"}
NOWHERE = "http://127.0.0.1:1"
DROPS = ["a/1.csv", "b/1.csv", "a/2.csv", "a/3.csv"]


@pytest.fixture(scope="module")
def dagster(server: sa.URL, template: sa.URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dagster")
    with kasparro(server, template, folder, NOWHERE, NOWHERE) as environment:
        dg.DagsterInstance.get().add_dynamic_partitions(drops().name or "", DROPS)
        rows = [{"source": f"csv_{path[0]}", "partition": path, "cursor": {}, "complete": True} for path in DROPS]
        insert(environment.engine, checkpoint, rows)
        with webserver() as url:
            yield url


@pytest.fixture
def client(dagster: str) -> Iterator[httpx.Client]:
    with served(app(dagster)) as client:
        client.headers.update(ONE)
        yield client


def app(dagster_url: str, **chosen: Any) -> Any:
    url = sa.make_url(settings().database_url.get_secret_value())
    return app_on(url, api_keys=KEYS, dagster_url=dagster_url, **chosen)


def today() -> date:
    return datetime.now(UTC).date()


def runs_there_are() -> int:
    return dg.DagsterInstance.get().get_runs_count()


def asked_for(answer: httpx.Response) -> list[tuple[str, str, str]]:
    assert answer.status_code == 202, answer.text
    told = Launched.model_validate_json(answer.content)
    found = []
    for run in told.data:
        kept = dg.DagsterInstance.get().get_run_by_id(run.run_id)
        assert kept.job_name == ("csv_drops" if run.source == "csv_drops" else run.source)
        assert (kept.tags[RANGE_START], kept.tags[RANGE_END]) == (run.first_partition, run.last_partition)
        found.append((run.source, run.first_partition, run.last_partition))
    return found


def test_everything_of_today_unless_told(client: httpx.Client) -> None:
    now = today().isoformat()
    vendors = ("coingecko", "coingecko_list", "coinpaprika", "coinpaprika_list")
    wanted = [*((vendor, now, now) for vendor in vendors), ("csv_drops", "a/1.csv", "a/3.csv")]
    assert asked_for(client.post("/runs")) == wanted
    answer = client.post("/v1/runs", json={})
    assert asked_for(answer) == wanted
    ids = [run["run_id"] for run in answer.json()["data"]]
    assert answer.headers["location"] == f"/v1/runs?run_id={','.join(ids)}"


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (
            {"sources": ["coingecko"], "from": "2026-01-02", "to": "2026-01-09"},
            [("coingecko", "2026-01-02", "2026-01-09")],
        ),
        ({"sources": ["coingecko"], "to": "2026-01-09"}, [("coingecko", "2026-01-09", "2026-01-09")]),
        ({"sources": ["csv_a"]}, [("csv_drops", "a/1.csv", "a/1.csv"), ("csv_drops", "a/2.csv", "a/3.csv")]),
        ({"sources": ["csv_b", "csv_b"]}, [("csv_drops", "b/1.csv", "b/1.csv")]),
        ({"partitions": ["a/3.csv", "a/2.csv"]}, [("csv_drops", "a/2.csv", "a/3.csv")]),
    ],
)
def test_what_is_asked_for_is_launched(client: httpx.Client, body: Any, wanted: Any) -> None:
    assert asked_for(client.post("/runs", json=body)) == wanted


def test_nothing_that_there_is_not_reaches_dagster(client: httpx.Client) -> None:
    before = runs_there_are()
    tomorrow = (today() + timedelta(days=1)).isoformat()
    cases: list[tuple[Any, str]] = [
        (
            {"sources": ["coingekko"]},
            "sources: no coingekko; there are coingecko, coingecko_list, coinpaprika, coinpaprika_list, csv_a, csv_b, "
            "csv_drops",
        ),
        ({"sources": []}, "sources"),
        ({"source": ["coingecko"]}, "source"),
        (
            {"sources": ["coingecko"], "from": "2009-01-02"},
            "from: 2009-01-02 is no day of the API sources: give one from",
        ),
        ({"to": tomorrow}, f"{tomorrow} is no day"),
        ({"from": "2026-01-03", "to": "2026-01-02"}, "from is after to"),
        ({"from": 0}, "from: not a day: write YYYY-MM-DD"),
        ({"from": "2026-02-30"}, "from: not a day"),
        ({"partitions": ["a/9.csv"]}, "partitions: no drop a/9.csv; there are a/1.csv, b/1.csv, a/2.csv, a/3.csv"),
        ({"sources": ["csv_b"], "partitions": ["a/1.csv"]}, "no drop a/1.csv; there are b/1.csv"),
        ({"sources": ["coingecko"], "partitions": ["a/1.csv"]}, "coingecko has days, not drops"),
        ({"partitions": ["a/1.csv"], "to": "2026-01-02"}, "leave out from and to"),
        ([], "valid dictionary"),
    ]
    for body, told in cases:
        answer = client.post("/runs", json=body, headers={"Idempotency-Key": "refused"})
        assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json"), body
        assert told in answer.json()["detail"], (body, answer.json()["detail"])
    for odd in (b'{"sources": ["\\ud800"]}', b'{"sources": ["\\u0000"]}', b'{"\\ud800": 1}', b"{"):
        answer = client.post("/runs", content=odd, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422, odd
    assert runs_there_are() == before
    # what was refused has not used the key up
    assert client.post("/runs", json={"sources": ["csv_b"]}, headers={"Idempotency-Key": "refused"}).status_code == 202


def test_who_may(dagster: str) -> None:
    before = runs_there_are()
    with served(app(dagster, api_read="open", api_rate_per_minute=3)) as client:
        assert client.post("/runs").status_code == 401
        assert client.post("/runs", headers={"X-API-Key": "reader"}).status_code == 403
        answers = [client.post("/runs", json={"sources": ["x"]}, headers=ONE).status_code for _ in range(4)]
        assert answers == [422, 422, 422, 429]
        assert client.options("/runs").headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert runs_there_are() == before


def test_a_repeated_request_starts_nothing_more(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kasparro_api.access")
    key = {"Idempotency-Key": "nightly"}
    body = {"sources": ["coinpaprika"]}
    first = client.post("/runs", json=body, headers=key)
    before = runs_there_are()
    again = client.post("/runs", json={"sources": ["coinpaprika"], "to": None}, headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["data"] == again.json()["data"]
    for answer in (first, again):  # who looks for a run finds who asked for it
        asked, run = answer.headers["x-request-id"], answer.json()["data"][0]["run_id"]
        line = re.compile(rf"request_id={asked} key_id=\S+ run_id={run}\b")
        assert within(5, lambda line=line: line.search(caplog.text) is not None)
    assert first.headers["location"] == again.headers["location"] == f"/runs/{first.json()['data'][0]['run_id']}"
    assert (first.headers.get("idempotency-replayed"), again.headers["idempotency-replayed"]) == (None, "true")
    other = client.post("/runs", json={"sources": ["coingecko"]}, headers=key)
    assert (other.status_code, other.json()["type"]) == (422, "urn:kasparro:problem:idempotency-key-reused")
    assert runs_there_are() == before
    theirs = client.post("/runs", json={"sources": ["coingecko"]}, headers={**key, "X-API-Key": "two"})
    assert theirs.status_code == 202
    assert client.post("/runs", headers={"Idempotency-Key": "a b"}).status_code == 422
    assert client.post("/runs", headers={"Idempotency-Key": "x" * 256}).status_code == 422


def test_many_at_once_start_one_run(client: httpx.Client) -> None:
    before = runs_there_are()

    def ask(_: int) -> httpx.Response:
        return client.post("/runs", json={"sources": ["coingecko"]}, headers={"Idempotency-Key": "at-once"})

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["data"][0]["run_id"] for answer in answers if answer.status_code == 202}) == 1
    for answer in answers:
        if answer.status_code == 409:
            assert (answer.json()["type"], answer.headers["retry-after"]) == (
                "urn:kasparro:problem:request-under-way",
                "2",
            )
    assert runs_there_are() == before + 1


def test_an_answer_of_dagster_that_is_lost_starts_nothing_twice(dagster: str) -> None:
    before = runs_there_are()
    body = {"sources": ["coingecko", "coinpaprika"]}
    with in_between(dagster) as (url, dropped), served(app(url)) as client:
        client.headers.update({**ONE, "Idempotency-Key": "lost"})
        dropped.append("launchRun")
        answer = client.post("/runs", json=body)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert answer.json()["type"] == "urn:kasparro:problem:dagster-unavailable"
        assert runs_there_are() == before + 1  # it was launched; nobody here knows
        dropped.clear()
        assert len(client.post("/runs", json=body).json()["data"]) == 2
    assert runs_there_are() == before + 2


def test_a_claim_of_a_process_that_died_is_taken_over(client: httpx.Client, dagster: str) -> None:
    body, key = {"sources": ["coingecko"]}, {"Idempotency-Key": "died"}
    first = client.post("/runs", json=body, headers=key)
    is_it = run_request.c.idempotency_key == "died"
    with current_engine().begin() as connection:  # as if it had ended before it could tell
        later = sa.text("clock_timestamp() + interval '1 h'")
        connection.execute(sa.update(run_request).where(is_it).values(runs=sa.null(), claimed_until=later))
    assert client.post("/runs", json=body, headers=key).status_code == 409
    with current_engine().begin() as connection:
        connection.execute(sa.update(run_request).where(is_it).values(claimed_until=sa.func.now()))
    again = client.post("/runs", json=body, headers=key)
    assert (again.status_code, again.json()["data"]) == (202, first.json()["data"])
    with current_engine().begin() as connection:  # a day later the key is a new one
        connection.execute(sa.update(run_request).where(is_it).values(requested_at=sa.text("now() - interval '25 h'")))
    later_on = client.post("/runs", json=body, headers=key)
    assert later_on.json()["data"][0]["run_id"] != first.json()["data"][0]["run_id"]


def test_a_run_is_found_before_and_after_it_begins(client: httpx.Client, dagster: str) -> None:
    answer = client.post("/runs", json={"sources": ["coingecko"]})
    where = answer.headers["location"]
    reading = {"X-API-Key": "reader"}
    told = RunAnswer.model_validate_json(client.get(where, headers=reading).content).data
    assert (told.status, told.sources, told.started_at, told.steps) == ("queued", ["coingecko"], None, [])
    instance = dg.DagsterInstance.get()
    instance.report_run_canceled(instance.get_run_by_id(told.run_id))
    told = RunAnswer.model_validate_json(client.get(where, headers=reading).content).data
    assert (told.status, told.error) == ("failure", "Dagster: canceled; see the run in its UI")
    with served(app(NOWHERE)) as away:
        assert away.get(where, headers=reading).status_code == 503
        assert away.get("/runs/nothing", headers=reading).status_code == 404
    insert(current_engine(), source_run, [step("coingecko", told.run_id, 0)])
    told = RunAnswer.model_validate_json(client.get(where, headers=reading).content).data
    assert (told.status, len(told.steps)) == ("success", 1)


def test_while_dagster_is_away(dagster: str) -> None:
    with served(app(NOWHERE)) as client:
        client.headers.update(ONE)
        answer = client.post("/runs")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert answer.json()["detail"] == "Dagster's webserver does not answer; see `kasparro status`"
        assert client.get("/health").status_code == 200


def test_something_else_at_dagsters_address(dagster: str) -> None:
    nowhere = sa.make_url("postgresql://nobody@127.0.0.1:1/none")
    with served(app_on(nowhere)) as other, served(app(str(other.base_url))) as client:
        answer = client.post("/runs", headers=ONE)
        assert answer.status_code == 503
        assert "no Dagster webserver answers at" in answer.json()["detail"]


def test_without_a_database_nothing_is_launched(dagster: str) -> None:
    before = runs_there_are()
    nowhere = sa.make_url("postgresql://nobody@127.0.0.1:1/none")
    with served(app_on(nowhere, api_keys=KEYS, dagster_url=dagster)) as client:
        answer = client.post("/runs", headers=ONE)
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:kasparro:problem:database-unavailable")
    assert runs_there_are() == before


def test_what_dagster_refuses_is_told_in_one_line(dagster: str) -> None:
    async def ask() -> None:
        asking = Dagster(Settings(dagster_url=dagster))
        try:
            await asking.launch("nothing", {"name": "__repository__", "location": {"name": "kasparro"}}, {})
        finally:
            await asking.close()

    with pytest.raises(DagsterRefusedError, match="nothing") as told:
        asyncio.run(ask())
    assert "\n" not in str(told.value)


def test_the_assets_and_how_they_are(client: httpx.Client, dagster: str) -> None:
    answer = client.get("/lineage", headers={"X-API-Key": "reader"})
    assert answer.status_code == 200, answer.text
    assets = {asset.asset_key: asset for asset in AssetGraph.model_validate_json(answer.content).data}
    vendors = [
        f"{name}/{part}" for name in ("coingecko", "coinpaprika", "csv_drops") for part in ("observations", "raw")
    ]
    lists = [f"{name}_list/{part}" for name in ("coingecko", "coinpaprika") for part in ("coins", "raw")]
    assert list(assets) == sorted(["coin_identity", "coins", *vendors, *lists, "retention", "unified_assets"])
    assert assets["coingecko/observations"].depends_on == ["coingecko/raw"]
    assert {"coins", "coin_identity", "csv_drops/observations"} <= set(assets["unified_assets"].depends_on)
    partitions = {name: asset.partitions for name, asset in assets.items()}
    assert (partitions["coingecko/raw"], partitions["csv_drops/raw"], partitions["coins"]) == ("day", "drop", None)
    assert {asset.health for asset in assets.values()} == {"unknown"}
    assert {asset.staleness for asset in assets.values()} == {"missing"}

    instance = dg.DagsterInstance.get()
    for name in ("raw", "observations"):
        made = dg.AssetMaterialization(["coinpaprika", name], partition="2026-11-01")
        instance.report_runless_asset_event(made)
    check = {"asset_key": "coinpaprika/observations", "check_name": "x", "severity": "error", "blocking": True}
    insert(current_engine(), failed_check, [{**check, "detail": "odd"}])
    data = client.get("/lineage", headers={"X-API-Key": "reader"}).json()["data"]
    raw, observed = ({asset["asset_key"]: asset for asset in data}[f"coinpaprika/{n}"] for n in ("raw", "observations"))
    assert raw["last_materialization"]["partition"] == "2026-11-01"
    assert datetime.now(UTC) - datetime.fromisoformat(raw["last_materialization"]["at"]) < timedelta(minutes=1)
    assert (observed["health"], observed["failed_checks"]) == ("degraded", 1)
    assert raw["health"] in ("healthy", "warning")
    assert client.get("/lineage?x=1", headers={"X-API-Key": "reader"}).status_code == 422


def test_the_assets_are_not_told_while_dagster_is_away(dagster: str) -> None:
    with served(app(NOWHERE)) as client:
        answer = client.get("/lineage")
        assert (answer.status_code, answer.json()["type"]) == (503, "urn:kasparro:problem:dagster-unavailable")
        assert answer.headers["retry-after"] == "10"

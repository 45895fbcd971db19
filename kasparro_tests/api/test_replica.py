"""The API reading from a streaming replica: real servers, the second a copy of the first that follows it."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from kasparro_api.run_plan import RunRequest
from kasparro_api.schemas import Health
from kasparro_pipeline import doctor
from kasparro_pipeline.doctor import Patient
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.warehouse.account import Account, clean_environment
from kasparro_pipeline.warehouse.database import create_engine
from kasparro_pipeline.warehouse.embedded import EmbeddedPostgres
from kasparro_pipeline.warehouse.keys import create_key, list_keys
from kasparro_pipeline.warehouse.migrate import migrate
from kasparro_pipeline.warehouse.tables import run_request, unified_assets
from kasparro_tests.api.rows import insert, unified
from kasparro_tests.api.serving import app_on, served, within
from kasparro_tests.conftest import FAST

DAY = date(2026, 11, 1)
RUNS = [{"run_id": "r", "job": "j", "source": "s", "partition": None, "status": "queued"}]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[sa.Engine, EmbeddedPostgres]]:
    """The database, and a replica that follows it."""
    primary = EmbeddedPostgres(tmp_path_factory.mktemp("primary"), options=FAST)
    follower = EmbeddedPostgres(tmp_path_factory.mktemp("replica"), options=FAST)
    primary.start()
    engine = create_engine(primary.url)
    migrate(engine)
    try:
        _copy(primary.url, follower)
        follower.start()
        yield engine, follower
    finally:
        engine.dispose()
        follower.remove()
        primary.remove()


def _copy(url: sa.URL, follower: EmbeddedPostgres) -> None:
    state = replace(follower._new_state(), password=str(url.password))
    follower._write_state(state)
    data = follower._data(state)
    follower._make_folder(data.parent)
    program = follower._runnable_binaries(state).folder / "pg_basebackup"
    where = ["-h", str(url.host), "-p", str(url.port), "-U", str(url.username), "-D", data]
    environment = {**clean_environment(), "PGPASSWORD": str(url.password)}
    subprocess.run(
        [program, *where, "--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast"],
        check=True,
        cwd="/",
        env=environment,
        **Account.owning(data.parent).run_as,
    )


@pytest.fixture
def service(servers: tuple[sa.Engine, EmbeddedPostgres]) -> Iterator[httpx.Client]:
    engine, follower = servers
    read_url = follower.url.render_as_string(hide_password=False)
    with served(app_on(engine.url, read_url=read_url, api_read="open")) as client:
        assert within(20, lambda: client.get("/health").status_code == 200)
        yield client


@contextmanager
def held_back(follower: EmbeddedPostgres) -> Iterator[None]:
    """The replica receives what changes and does not apply it."""
    engine = create_engine(follower.url)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT pg_wal_replay_pause()")
        state = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        assert within(20, lambda: bool(connection.exec_driver_sql(state).scalar()))
        try:
            yield
        finally:
            connection.exec_driver_sql("SELECT pg_wal_replay_resume()")
    engine.dispose()


def coins(client: httpx.Client) -> list[str]:
    return [row["coin_id"] for row in client.get("/data").json()["data"]]


def health(client: httpx.Client) -> Health:
    return Health.model_validate_json(client.get("/health").content)


def test_what_is_served_and_its_version_are_the_replicas(
    service: httpx.Client, servers: tuple[sa.Engine, EmbeddedPostgres]
) -> None:
    engine, follower = servers
    insert(engine, unified_assets, [unified("bitcoin", DAY)])
    assert within(20, lambda: coins(service) == ["bitcoin"])
    assert within(20, lambda: health(service).database.replica_lag_s == 0)
    assert health(service).database.reads_from == "replica"
    etag = {"If-None-Match": service.get("/data").headers["etag"]}
    with held_back(follower):
        insert(engine, unified_assets, [unified("ethereum", DAY)])
        assert within(20, lambda: (health(service).database.replica_lag_s or 0) > 0)
        assert coins(service) == ["bitcoin"]
        assert service.get("/data", headers=etag).status_code == 304
    assert within(20, lambda: service.get("/data", headers=etag).status_code == 200)
    assert coins(service) == ["bitcoin", "ethereum"]


def test_keys_and_what_was_asked_to_be_run_are_the_databases(
    service: httpx.Client, servers: tuple[sa.Engine, EmbeddedPostgres]
) -> None:
    engine, follower = servers
    with held_back(follower):
        with engine.begin() as connection:
            key = create_key(connection, "a test", ["operate"])
            (stored,) = list_keys(connection)
        headers = {"X-API-Key": key, "Idempotency-Key": "once"}
        body = RunRequest.model_validate({}).model_dump_json().encode()
        known = {"request_id": "q", "idempotency_key": "once", "body_sha256": hashlib.sha256(body).digest()}
        asked = {"key_id": stored.key_id, "claimed_until": sa.func.now(), "runs": RUNS}
        insert(engine, run_request, [known | asked])
        answer = service.post("/runs", headers=headers)
        assert (answer.status_code, answer.headers.get("Idempotency-Replayed")) == (202, "true"), answer.text
        assert json.loads(answer.content)["data"] == RUNS


def test_a_replica_that_is_away_is_named_and_found_again(
    service: httpx.Client, servers: tuple[sa.Engine, EmbeddedPostgres]
) -> None:
    follower = servers[1]
    follower.stop()
    assert within(20, lambda: service.get("/data").status_code == 503)
    assert "KASPARRO_READ_URL" in service.get("/data").json()["detail"]
    told = service.get("/health")
    assert (told.status_code, told.json()["database"]["reads_from"]) == (503, "replica")
    assert "KASPARRO_READ_URL" in told.json()["database"]["detail"]
    follower.start()
    assert within(20, lambda: service.get("/data").status_code == 200)


def test_the_doctor_tells_a_replica_from_what_is_none(
    servers: tuple[sa.Engine, EmbeddedPostgres], database: sa.URL
) -> None:
    engine, follower = servers
    primary, replica = (url.render_as_string(hide_password=False) for url in (engine.url, follower.url))

    def said(read_url: str, database_url: str = primary) -> str:
        patient = Patient(Settings(database_url=SecretStr(database_url), read_url=SecretStr(read_url)))
        return doctor._replica(patient)

    assert f":{follower.url.port}/" in said(replica)
    with pytest.raises(KasparroError, match="does not follow this database"):
        said(primary)  # a server that was promoted
    with pytest.raises(KasparroError, match="does not follow this database"):
        said(replica, database.render_as_string(hide_password=False))
    follower.stop()
    with pytest.raises(KasparroError, match=r"does not answer: .*refused; start it, or unset KASPARRO_READ_URL"):
        said(replica)
    follower.start()

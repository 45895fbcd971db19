"""The database goes away and comes back."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import httpx
import psutil
import pytest
import sqlalchemy as sa

from kasparro_api.schemas import Health
from kasparro_pipeline.warehouse.database import create_engine
from kasparro_pipeline.warehouse.embedded import EmbeddedPostgres
from kasparro_pipeline.warehouse.migrate import migrate
from kasparro_pipeline.warehouse.tables import unified_assets
from kasparro_tests.api.rows import insert, unified
from kasparro_tests.api.serving import app_at_home, served, within
from kasparro_tests.conftest import FAST


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path, options={**FAST, "synchronous_commit": "on"})  # what is written outlives a kill
    yield server
    server.remove()


def fill(url: sa.URL) -> None:
    engine = create_engine(url)
    migrate(engine)
    insert(engine, unified_assets, [unified("bitcoin", date(2026, 11, 1))])
    engine.dispose()


def is_away(client: httpx.Client) -> None:
    started = time.monotonic()
    health = client.get("/health")
    assert time.monotonic() - started < 3
    assert health.status_code == 503
    assert Health.model_validate_json(health.content).status == "unavailable"
    assert not health.json()["database"]["reachable"]


def test_away_at_the_start_then_back_then_gone_and_on_another_port(tmp_path: Path, postgres: EmbeddedPostgres) -> None:
    with served(app_at_home(tmp_path)) as client:
        is_away(client)
        data = client.get("/data")
        assert (data.status_code, data.headers["content-type"]) == (503, "application/problem+json")
        assert data.headers["retry-after"] == "2"
        assert data.json()["type"] == "urn:kasparro:problem:database-unavailable"

        postgres.start()
        fill(postgres.url)
        assert within(5, lambda: client.get("/health").status_code == 200)
        assert client.get("/data").json()["metadata"]["count"] == 1

        port = postgres.url.port
        postgres.stop()
        is_away(client)
        with socket.create_server(("127.0.0.1", port)):
            postgres.start()
            assert postgres.url.port != port
            assert within(5, lambda: client.get("/data").status_code == 200)


def test_a_restart_between_two_requests_goes_unnoticed(tmp_path: Path, postgres: EmbeddedPostgres) -> None:
    postgres.start()
    fill(postgres.url)
    with served(app_at_home(tmp_path)) as client:
        assert client.get("/data").status_code == 200
        postgres.stop()
        postgres.start()
        assert [client.get("/data").status_code for _ in range(5)] == [200] * 5


def test_a_crash_under_load_shows_as_clean_503s_only(tmp_path: Path, postgres: EmbeddedPostgres) -> None:
    postgres.start()
    fill(postgres.url)
    answers: list[httpx.Response] = []
    crashed = threading.Event()
    with served(app_at_home(tmp_path)) as client, ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask_until, crashed, client, answers) for _ in range(8)]
        try:
            assert within(5, lambda: len(answers) > 50)
            for process in backends(postgres):
                process.kill()
            postgres.start()
            assert within(5, lambda: client.get("/data").status_code == 200)
        finally:
            crashed.set()
    assert all(asked.result() is None for asked in asking)
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert all(answer.json()["metadata"]["count"] == 1 for answer in answers if answer.status_code == 200)
    assert all(answer.json()["detail"] for answer in answers if answer.status_code == 503)


def ask_until(stop: threading.Event, client: httpx.Client, answers: list[httpx.Response]) -> None:
    while not stop.is_set():
        answers.append(client.get("/data"))


def test_a_frozen_server_counts_as_away(tmp_path: Path, postgres: EmbeddedPostgres) -> None:
    postgres.start()
    fill(postgres.url)
    with served(app_at_home(tmp_path)) as client:
        assert client.get("/health").status_code == 200
        processes = backends(postgres)
        for process in processes:
            process.send_signal(signal.SIGSTOP)
        try:
            is_away(client)
        finally:
            for process in processes:
                process.send_signal(signal.SIGCONT)
        assert within(5, lambda: client.get("/health").status_code == 200)


def backends(postgres: EmbeddedPostgres) -> list[psutil.Process]:
    """The server's processes: the postmaster, which listens on its port, and its children."""
    for connection in psutil.net_connections("tcp4"):
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == postgres.url.port and connection.pid:
            postmaster = psutil.Process(connection.pid)
            return [postmaster, *postmaster.children()]
    raise AssertionError(f"nobody listens on {postgres.url.port}")

"""What every answer carries, and what a defect shows."""

from __future__ import annotations

import json
import logging
import re

import httpx
import pytest
import sqlalchemy as sa
from fastapi import Request

from kasparro_api.problems import Problem
from kasparro_pipeline.logs import JsonLines
from kasparro_tests.api.serving import app_on, served, within


@pytest.mark.parametrize("path", ["/data?limit=0", "/nowhere", "/docs", "/openapi.json"])
def test_every_answer_carries_the_requests_id(bare_service: httpx.Client, path: str) -> None:
    answer = bare_service.get(path, headers={"X-Request-ID": "desk-7:42"})
    assert answer.headers["x-request-id"] == "desk-7:42"
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("given", [None, "", "x" * 129, "with space", "tab\tend", 'quo"te', b"caf\xe9"])
def test_an_id_that_is_missing_or_unsafe_is_replaced(bare_service: httpx.Client, given: str | bytes | None) -> None:
    headers = {} if given is None else {"X-Request-ID": given}
    ids = {bare_service.get("/nowhere", headers=headers).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids)


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not-found"),
        ("GET", "/static-offline-docs/nothing.js", 404, "not-found"),
        ("POST", "/data", 405, "method-not-allowed"),
        ("GET", "/data?limit=x", 422, "invalid-request"),
    ],
)
def test_errors_are_problems(bare_service: httpx.Client, method: str, path: str, status: int, kind: str) -> None:
    answer = bare_service.request(method, path)
    problem = Problem.model_validate_json(answer.content)
    assert (answer.status_code, problem.status) == (status, status)
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem.type == f"urn:kasparro:problem:{kind}"
    assert problem.instance == path.partition("?")[0]
    assert problem.request_id == answer.headers["x-request-id"]


def test_405_tells_what_is_allowed(bare_service: httpx.Client) -> None:
    assert bare_service.delete("/health/live").headers["allow"] == "GET, HEAD, OPTIONS"


def test_a_defect_is_told_in_the_log_and_not_to_the_client(database: sa.URL, caplog: pytest.LogCaptureFixture) -> None:
    app = app_on(database)

    @app.get("/defect")
    async def defect(request: Request) -> None:
        async with request.state.database.connection() as connection:
            await connection.execute("SELECT secret_column FROM pg_class")
            raise AssertionError

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("the password is hunter2")

    with served(app) as client:
        answer = client.get("/broken", headers={"X-Request-ID": "r-1"})
        assert answer.status_code == 500
        assert Problem.model_validate_json(answer.content).request_id == "r-1"
        assert "hunter2" not in answer.text
        assert "secret_column" not in client.get("/defect").text
    failed = [record for record in caplog.records if record.exc_info]
    assert any("r-1" in record.getMessage() and "hunter2" in str(record.exc_info) for record in failed)


def test_one_log_line_a_request(bare_service: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kasparro_api.access")
    bare_service.get("/nowhere%0Astatus=200?key=hidden", headers={"X-Request-ID": "r-2"})
    assert within(5, lambda: bool(caplog.records))  # it is written after the answer is out
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"method=GET path=/nowhere%0Astatus=200 status=404 latency_ms=\d+\.\d request_id=r-2", line)


def test_log_lines_may_be_json() -> None:
    fields = {"status": 200, "request_id": "r-3"}
    record = logging.makeLogRecord({"msg": "a %s", "args": ("b",), "name": "x", "levelname": "INFO", "fields": fields})
    told = json.loads(JsonLines().format(record))
    assert told.pop("time").endswith("+00:00")
    assert told == {"level": "INFO", "logger": "x", "message": "a b", "status": 200, "request_id": "r-3"}


def test_sessions_are_read_only_in_utc_and_limited(database: sa.URL) -> None:
    app = app_on(database)

    @app.get("/session")
    async def session(request: Request) -> list[str]:
        async with request.state.database.connection() as connection:
            names = ("timezone", "default_transaction_read_only", "statement_timeout")
            return [(await (await connection.execute(f"SHOW {name}")).fetchone())[0] for name in names]

    @app.get("/slow")
    async def slow(request: Request) -> None:
        async with request.state.database.connection() as connection:
            await connection.execute("SET statement_timeout = '20ms'")
            await connection.execute("SELECT pg_sleep(5)")

    with served(app) as client:
        assert client.get("/session").json() == ["UTC", "on", "10s"]
        answer = client.get("/slow")
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:kasparro:problem:query-timeout"

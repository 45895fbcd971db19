"""Requests that schemathesis makes up from the OpenAPI document, valid and not: every answer is as documented.

``KASPARRO_FUZZ`` is the number of examples of an operation (`make fuzz`: many).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from pydantic import SecretStr

from kasparro_pipeline.warehouse.tables import (
    coin,
    coin_identity,
    drift,
    observation,
    quarantine,
    source_run,
    unified_assets,
)
from kasparro_tests.api.rows import insert, unified
from kasparro_tests.api.serving import app_on, served
from kasparro_tests.api.test_accounts import drifted, held
from kasparro_tests.api.test_operations import observed, step

EXAMPLES = int(os.environ.get("KASPARRO_FUZZ", "10"))
PHASES = "examples,coverage,fuzzing" if EXAMPLES > 50 else "examples,fuzzing"

# What a schema cannot say (a month has no 31st day, from is after to) is refused with 422 as well.
CONFIGURATION = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429"]

[auth.openapi.bearer]
bearer = "all"
"""


@contextmanager
def dagster() -> Iterator[str]:
    """Answers as Dagster's webserver does, at once; the real one is asked in test_dagster."""
    location = {"name": "__repository__", "location": {"name": "kasparro"}}

    def asset(source: str, kind: str) -> dict[str, Any]:
        about = {"groupName": "raw", "kinds": [], "description": None, "dependencyKeys": [], "jobNames": [source]}
        key = {"path": [source, "raw"]}
        return {"assetKey": key, **about, "partitionDefinition": {"type": kind}, "repository": location}

    def answer(query: str) -> dict[str, Any]:
        if "launchRun" in query:
            return {"launchRun": {"__typename": "LaunchRunSuccess", "run": {"runId": str(uuid4())}}}
        if "runsOrError" in query:
            return {"runsOrError": {"__typename": "Runs", "results": []}}
        if "runOrError" in query:
            return {"runOrError": {"__typename": "Run", "status": "QUEUED", "startTime": None, "endTime": None}}
        if "partitionKeys" in query:
            return {"assetNodes": [{"partitionKeys": ["a/1.csv"]}]}
        if "assetsLatestInfo" in query:
            return {"assetsLatestInfo": []}
        return {"assetNodes": [asset("coingecko", "TIME_WINDOW"), asset("csv_drops", "DYNAMIC")]}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["query"]
            body = json.dumps({"data": answer(query)}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def fill(engine: sa.Engine) -> None:
    insert(engine, coin, [{"coin_id": "bitcoin", "symbol": "BTC", "name": "Bitcoin"}])
    identity = {"source": "coingecko", "source_coin_id": "bitcoin", "coin_id": "bitcoin"}
    insert(engine, coin_identity, [{**identity, "method": "x", "confidence": 1, "evidence": "y"}])
    insert(engine, unified_assets, [unified("bitcoin", date(2026, 11, day)) for day in range(1, 9)])
    insert(engine, observation, [observed("coingecko", "bitcoin")])
    insert(engine, source_run, [step("coingecko", "0b1c9f0e-6a52-4a5d-9a3e-1f6d5a7f4d10", 0)])
    insert(engine, quarantine, [held(1)])
    insert(engine, drift, [drifted(1)])


@pytest.mark.timeout(3600)
def test_every_answer_is_as_documented(database: sa.URL, engine: sa.Engine, tmp_path: Path) -> None:
    fill(engine)
    with (
        dagster() as url,
        served(app_on(database, api_keys=SecretStr("all:admin"), api_read="key", dagster_url=url)) as at,
    ):
        (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{at.base_url}/openapi.json"]
        options = ["--checks", "all", "--phases", PHASES, "--seed", "1"]
        options += ["--max-examples", str(EXAMPLES), "--workers", "2", "--suppress-health-check", "all"]
        options += ["--continue-on-failure", "--warnings", "off"]
        done = subprocess.run(
            [*command, *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "NO_COLOR": "1"},
        )
        assert done.returncode == 0, done.stdout[-20000:] + done.stderr[-2000:]
        assert at.get("/health").status_code == 200

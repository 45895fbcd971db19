"""A real Dagster webserver over the definitions, and ones that do not do as they should."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import dagster as dg
import httpx
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster_webserver.webserver import DagsterWebserver

from kasparro_pipeline.settings import REPOSITORY
from kasparro_tests.test_load import running


@contextmanager
def webserver() -> Iterator[str]:
    """Dagster's webserver in this process, on its instance; runs it launches stay queued, since there is no daemon."""
    target = LoadableTargetOrigin(
        executable_path=sys.executable, module_name="kasparro_pipeline.definitions", working_directory=str(REPOSITORY)
    )
    origin = InProcessCodeLocationOrigin(target, location_name="kasparro")
    load = InProcessWorkspaceLoadTarget([origin])
    with (
        WorkspaceProcessContext(dg.DagsterInstance.get(), load) as context,
        running(DagsterWebserver(context).create_asgi_app()) as url,
    ):
        yield url


@contextmanager
def in_between(url: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy before a webserver. It drops every answer to a query that has a word of the list, having passed it on."""
    dropped: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = httpx.post(url + self.path, content=body, headers={"Content-Type": "application/json"}, timeout=30)
            query = json.loads(body)["query"]
            if any(word in query for word in dropped):
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}", dropped
        http.shutdown()

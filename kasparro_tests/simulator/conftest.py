"""The simulator on a real socket, at a time that tests set."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from kasparro_pipeline.simulator.app import create_app

NOON = datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC)


class SetClock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


@contextmanager
def serving(app: FastAPI) -> Iterator[httpx.Client]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive(), "uvicorn did not start"
                time.sleep(0.01)
            with httpx.Client(base_url=f"http://127.0.0.1:{listening.getsockname()[1]}") as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def _shared() -> Iterator[tuple[httpx.Client, SetClock]]:
    clock = SetClock()
    with serving(create_app(clock, rate_per_minute=100_000)) as client:
        yield client, clock


@pytest.fixture
def clock(_shared: tuple[httpx.Client, SetClock]) -> Iterator[SetClock]:
    _, clock = _shared
    yield clock
    clock.now = NOON


@pytest.fixture
def client(_shared: tuple[httpx.Client, SetClock]) -> httpx.Client:
    return _shared[0]


@pytest.fixture
def serve() -> Iterator[Callable[[FastAPI], httpx.Client]]:
    """Serve an app of the test's own until the test ends."""
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(serving(app))


@pytest.fixture
def recorded() -> Callable[[str], Any]:
    """Read a recorded vendor answer; skips the test where there are none."""
    folder = os.environ.get("KASPARRO_REALDATA")
    if not folder:
        pytest.skip("KASPARRO_REALDATA is not set")
    return lambda path: json.loads((Path(folder) / path).read_bytes())

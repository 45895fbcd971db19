from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import sqlalchemy as sa

from kasparro_tests.api.serving import app_on, served


@pytest.fixture
def service(database: sa.URL) -> Iterator[httpx.Client]:
    """The service on a fresh database."""
    with served(app_on(database)) as client:
        yield client


@pytest.fixture(scope="module")
def bare_service() -> Iterator[httpx.Client]:
    """The service without a database."""
    with served(app_on(sa.make_url("postgresql://nobody@127.0.0.1:1/none"))) as client:
        yield client

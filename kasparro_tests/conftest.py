"""A real PostgreSQL for every test that asks for one: a server for the run, a fresh migrated database for the test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import sqlalchemy as sa

from kasparro_pipeline.settings import Settings, settings
from kasparro_pipeline.warehouse.database import DRIVER, create_engine
from kasparro_pipeline.warehouse.embedded import EmbeddedPostgres
from kasparro_pipeline.warehouse.migrate import migrate
from kasparro_pipeline.warehouse.months import make_partitions, month_of
from kasparro_pipeline.warehouse.tables import observation, raw_payload

for _name in Settings.model_fields.keys() - {"postgres_bin"}:  # the tests are not about who runs them
    os.environ.pop(f"KASPARRO_{_name}".upper(), None)

BY_HAND = range(month_of(datetime(2026, 9, 1, tzinfo=UTC)), month_of(datetime(2027, 1, 1, tzinfo=UTC)))
"""Months of which there are partitions in every test's database."""
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "shared_buffers": "64MB"}


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sa.URL]:
    """A server on which databases can be made: ``KASPARRO_TEST_DATABASE_URL``, else an embedded one of this run."""
    named = os.environ.get("KASPARRO_TEST_DATABASE_URL")
    if named:
        yield sa.make_url(named).set(drivername=DRIVER)
        return
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"), options=FAST)
    postgres.start()
    yield postgres.url
    postgres.remove()


@pytest.fixture(scope="session")
def template(server: sa.URL) -> Iterator[sa.URL]:
    """A migrated database that tests copy; rows of some months can be put into it by hand."""
    with _new_database(server, None) as url:
        engine = create_engine(url)
        migrate(engine)
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        with engine.begin() as connection:
            for table in (observation, raw_payload):
                make_partitions(connection, table, {month_of(tomorrow), *BY_HAND})
        engine.dispose()
        yield url


@pytest.fixture
def database(server: sa.URL, template: sa.URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.URL]:
    """A fresh migrated database; ``DATABASE_URL`` leads to it."""
    with _new_database(server, template.database) as url:
        monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        settings.cache_clear()
        yield url
    settings.cache_clear()


@pytest.fixture
def engine(database: sa.URL) -> Iterator[sa.Engine]:
    """An engine on `database`."""
    engine = create_engine(database)
    yield engine
    engine.dispose()


@contextmanager
def _new_database(server: sa.URL, template: str | None) -> Iterator[sa.URL]:
    name = f"test_{uuid4().hex[:12]}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{template}"' if template else ""))
    try:
        yield server.set(database=name)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f'DROP DATABASE "{name}" WITH (FORCE)')

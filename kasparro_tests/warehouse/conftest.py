from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
import sqlalchemy as sa

from kasparro_pipeline.warehouse.database import create_engine
from kasparro_pipeline.warehouse.tables import (
    SCHEMA,
    merge_receipt,
    metadata,
    unified_assets_history,
    unified_change,
)
from kasparro_tests.conftest import _new_database
from kasparro_tests.warehouse import things


@pytest.fixture(scope="session")
def shop_engine(server: sa.URL) -> Iterator[sa.Engine]:
    with create_engine(server).connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = f"test_shop_{uuid4().hex[:12]}"
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine = create_engine(server.set(database=name))
        yield engine
        engine.dispose()
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def _migrated(server: sa.URL, template: sa.URL) -> Iterator[sa.Engine]:
    with _new_database(server, template.database) as url:
        engine = create_engine(url)
        yield engine
        engine.dispose()


@pytest.fixture
def tables(_migrated: sa.Engine) -> sa.Engine:
    """An engine on a database of the module's own with Kasparro's tables, all empty: quicker than a new one each."""
    with _migrated.begin() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(sa.delete(table))
        connection.execute(sa.delete(unified_assets_history))  # what the deletion has put there
        connection.execute(sa.delete(unified_change))
    return _migrated


@pytest.fixture
def shop(shop_engine: sa.Engine) -> sa.Engine:
    """An engine on a database with nothing but the tables of `things`, all empty, and one for receipts."""
    with shop_engine.begin() as connection:
        for schema in ("shop", SCHEMA):
            connection.execute(sa.schema.DropSchema(schema, cascade=True, if_exists=True))
            connection.execute(sa.schema.CreateSchema(schema))
        things.metadata.create_all(connection)
        merge_receipt.create(connection)
    return shop_engine

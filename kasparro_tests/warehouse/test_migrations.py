"""The migrations make the tables that are declared, and go back; rows that are there stay."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from kasparro_pipeline.warehouse import migrate
from kasparro_pipeline.warehouse.database import create_engine
from kasparro_pipeline.warehouse.months import make_partitions, month_of
from kasparro_pipeline.warehouse.tables import SCHEMA, metadata
from kasparro_tests.conftest import _new_database

TIME = datetime(2026, 11, 1, tzinfo=UTC)
REVISIONS = migrate.revisions()[::-1]
VALUES: list[tuple[type[sa.types.TypeEngine[Any]], object]] = [
    (sa.Boolean, True),
    (sa.Integer, 1),
    (sa.Numeric, 1),
    (sa.Date, date(2026, 11, 1)),
    (sa.DateTime, TIME),
    (sa.LargeBinary, b"a"),
    (sa.JSON, {}),
    (sa.String, "a"),
]


def declared() -> dict[str, tuple[dict[str, bool], set[str | None]]]:
    return {
        table.name: (
            {column.name: bool(column.nullable) for column in table.c},
            {index.name for index in table.indexes},
        )
        for table in metadata.sorted_tables
    }


def made(connection: sa.Connection) -> dict[str, tuple[dict[str, bool], set[str | None]]]:
    found = sa.inspect(connection)
    return {
        name: (
            {column["name"]: column["nullable"] for column in found.get_columns(name, SCHEMA)},
            {i["name"] for i in found.get_indexes(name, SCHEMA) if "duplicates_constraint" not in i},
        )
        for name in tables(connection)
        if name != "alembic_version"
    }


def tables(connection: sa.Connection) -> set[str]:
    """Names of all tables, of which partitions are a part."""
    partitions = connection.exec_driver_sql("SELECT relname FROM pg_class WHERE relispartition").scalars()
    return set(sa.inspect(connection).get_table_names(SCHEMA)) - set(partitions)


def test_the_migrated_schema_is_the_declared_one_and_goes_back(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        assert made(connection) == declared()
        command.downgrade(config, "base")
        assert made(connection) == {}
        command.upgrade(config, "head")
        assert made(connection) == declared()


def value(type_: sa.types.TypeEngine[Any]) -> object:
    """The same for every column of a type, so that what refers to something finds it."""
    if isinstance(type_, sa.ARRAY):
        return [value(type_.item_type)]
    return next(made for kind, made in VALUES if isinstance(type_, kind))


def fill(connection: sa.Connection) -> set[str]:
    """A row in each table that is empty; the names of all tables."""
    stored = sa.MetaData()
    stored.reflect(connection, SCHEMA, only=tables(connection))
    partitioned = connection.exec_driver_sql("SELECT relname FROM pg_class WHERE relkind = 'p'").scalars().all()
    for table in stored.sorted_tables:
        if table.name in partitioned:
            make_partitions(connection, table, [month_of(TIME)])
        if connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0:
            given = {column.name: value(column.type) for column in table.columns if column.identity is None}
            connection.execute(sa.insert(table).values(given))
    return {table.name for table in stored.sorted_tables}


def empty_ones(connection: sa.Connection, names: set[str]) -> set[str]:
    return {name for name in names if connection.scalar(sa.text(f"SELECT count(*) FROM {SCHEMA}.{name}")) == 0}


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_filled_database_of_any_version_comes_forward_and_goes_back(server: sa.URL, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    with _new_database(server, None) as url:
        engine = create_engine(url)
        migrate.migrate(engine, revision)
        with engine.begin() as connection:
            before = fill(connection)
            assert empty_ones(connection, before) == set()
        migrate.migrate(engine)
        with engine.begin() as connection:
            assert made(connection) == declared()
            assert empty_ones(connection, before) == set()
            fill(connection)
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.downgrade(config, revision)
            assert {*made(connection), "alembic_version"} == before
            assert empty_ones(connection, before) == set()
        migrate.migrate(engine)
        with engine.begin() as connection:
            assert made(connection) == declared()
            assert empty_ones(connection, before) == set()
            connection.execute(sa.text("UPDATE kasparro.unified_assets SET price_usd = 2"))
            told = connection.scalar(sa.text("SELECT count(*) FROM kasparro.unified_assets_as_of(clock_timestamp())"))
            assert told == 1
        engine.dispose()

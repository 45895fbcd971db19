"""The migrations make the tables that are declared, and go back."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from kasparro_pipeline.warehouse import migrate
from kasparro_pipeline.warehouse.tables import SCHEMA, metadata


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
        for name in found.get_table_names(SCHEMA)
        if name != "alembic_version"
    }


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

"""Bring the schema to the newest migration."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from kasparro_pipeline.warehouse.tables import SCHEMA

DAGSTER_SCHEMA = "dagster"
LOCK = 0x6B617370_6D696772  # one migration at a time, whoever starts it


def migrate(engine: sa.Engine, revision: str = "head") -> None:
    """Create both schemas where they are missing and run the Alembic migrations up to `revision`.

    Safe to call from several processes at once: one runs, the others wait and find nothing to do.
    """
    config = _config()
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        for schema in (SCHEMA, DAGSTER_SCHEMA):
            connection.execute(sa.schema.CreateSchema(schema, if_not_exists=True))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def revisions() -> list[str]:
    """The names of all migrations there are, newest first."""
    return [script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config

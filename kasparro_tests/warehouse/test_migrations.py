"""The migrations make the tables that are declared."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from kasparro_pipeline.warehouse import migrate


def test_the_migrated_schema_is_the_declared_one_and_goes_back(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.check(config)
        command.downgrade(config, "0001")
        command.upgrade(config, "head")
        command.check(config)

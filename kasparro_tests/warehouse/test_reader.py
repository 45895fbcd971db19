"""The reader's role and the data versions: made by the migrations where the user may, and taken away again."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from kasparro_pipeline.warehouse import migrate as migrations
from kasparro_pipeline.warehouse.database import create_engine
from kasparro_pipeline.warehouse.migrate import migrate
from kasparro_pipeline.warehouse.reader import BECOME_READER, READER
from kasparro_tests.api.serving import app_on, served

TRIGGERS = "SELECT count(*) FROM pg_trigger WHERE tgname = 'data_version'"


def test_down_and_up_again(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.Path(migrations.__file__).parent / "migrations"))
    with engine.begin() as connection:
        there = connection.scalar(sa.text(TRIGGERS))
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        assert (there, connection.scalar(sa.text(TRIGGERS))) == (9, 0)
        assert not {"api_key", "data_version"} & set(sa.inspect(connection).get_table_names("kasparro"))
    migrate(engine)
    with engine.connect() as connection:
        assert connection.scalar(sa.text(TRIGGERS)) == 9


def test_a_user_who_may_make_no_role_is_served_all_the_same(server: sa.URL) -> None:
    name = f"plain_{uuid4().hex[:8]}"
    admin = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
        connection.exec_driver_sql(f"CREATE DATABASE {name} OWNER {name}")
    url = server.set(username=name, password="x", database=name)
    engine = create_engine(url)
    try:
        migrate(engine)
        with engine.connect() as connection:
            assert connection.scalar(sa.text(BECOME_READER)) in (None, READER)
        with served(app_on(url)) as client:
            assert client.get("/data").json()["data"] == []
    finally:
        engine.dispose()
        with admin.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
            connection.exec_driver_sql(f"DROP ROLE {name}")

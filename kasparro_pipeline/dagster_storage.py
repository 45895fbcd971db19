"""Dagster's own tables, in a schema of their own of the database that Kasparro uses; dagster.yaml names this class."""

from __future__ import annotations

from typing import Any, Self

import sqlalchemy as sa
from dagster_postgres import DagsterPostgresStorage

from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.database import create_engine, ensure_database
from kasparro_pipeline.warehouse.migrate import DAGSTER_SCHEMA, migrate


class KasparroStorage(DagsterPostgresStorage):
    """`DagsterPostgresStorage` that knows by itself where the database is.

    So ``dg dev``, the webserver, the daemon and every run find it with nothing set, and no URL with a password stands
    in dagster.yaml, where the UI would show it.

    Raises:
        KasparroError: no database answers; see `ensure_database`.
    """

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:  # noqa: ANN401, ARG003 - Dagster's signature
        """The storage at `dagster_url`."""
        return cls(postgres_url=dagster_url().render_as_string(hide_password=False))


def dagster_url() -> sa.URL:
    """Where Dagster's tables are: our database, with the driver that dagster-postgres needs."""
    url = ensure_database(settings())
    engine = create_engine(url)
    migrate(engine)
    engine.dispose()
    return url.set(drivername="postgresql+psycopg2").update_query_dict({"options": f"-csearch_path={DAGSTER_SCHEMA}"})

"""Dagster's own tables, in a schema of their own of the database that Kasparro uses; dagster.yaml names this class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Self

import sqlalchemy as sa
from dagster import AssetKey, DagsterEventType, EventLogEntry
from dagster._core.storage.runs import RunStorage
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage

from kasparro_pipeline.dagster_logs import log_alike
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.database import create_engine, ensure_database
from kasparro_pipeline.warehouse.migrate import DAGSTER_SCHEMA, migrate

APPLICATION_NAME = "kasparro-dagster-events"
"""By which PostgreSQL shows the connections of Dagster's event log."""


class KasparroStorage(DagsterPostgresStorage):
    """`DagsterPostgresStorage` that knows by itself where the database is.

    So ``dg dev``, the webserver, the daemon and every run find it with nothing set, and no URL with a password stands
    in dagster.yaml, where the UI would show it.

    Raises:
        KasparroError: no database answers; see `ensure_database`.
    """

    def __init__(self, postgres_url: str) -> None:
        super().__init__(postgres_url)
        self._event_log_storage = EventLog(postgres_url, self.run_storage)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> Self:  # noqa: ANN401, ARG003 - Dagster's signature
        """The storage at `dagster_url`; every process makes one, and logs in our form from then on."""
        log_alike()
        return cls(dagster_url().render_as_string(hide_password=False))


class EventLog(PostgresEventLogStorage):
    """Dagster's event log, made for runs over many partitions.

    Dagster opens two connections for each event and stores a run's planned materializations, one a partition, one by
    one: a run over ten years of days would spend minutes before its first step. Here a connection is kept, and planned
    materializations are stored in the batches they come in (of ``DAGSTER_EVENT_BATCH_SIZE``).

    Args:
        runs: where the runs are whose events these are.
    """

    def __init__(self, postgres_url: str, runs: RunStorage) -> None:
        super().__init__(postgres_url)
        self._runs = runs
        self._engine = sa.create_engine(
            postgres_url,
            isolation_level="AUTOCOMMIT",
            pool_size=1,
            max_overflow=20,
            pool_pre_ping=True,
            connect_args={"application_name": APPLICATION_NAME},
        )

    def store_event(self, event: EventLogEntry) -> None:
        """Store it, after the status of a run that it says has failed.

        Whoever sees the event looks at the run at once: one that has not failed yet would not be tried again.
        """
        if event.dagster_event_type is DagsterEventType.RUN_FAILURE:
            moment = datetime.fromtimestamp(event.timestamp, UTC)
            self._runs.handle_run_event(event.run_id, event.get_dagster_event(), moment)
        super().store_event(event)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store `events`; a batch of planned materializations in one statement."""
        if {event.dagster_event_type for event in events} != {DagsterEventType.ASSET_MATERIALIZATION_PLANNED}:
            super().store_event_batch(events)
            return
        by_asset: dict[AssetKey, list[EventLogEntry]] = defaultdict(list)
        for event in events:
            by_asset[event.get_dagster_event().asset_key or AssetKey([])].append(event)
        for of_asset in by_asset.values():
            insert = self.prepare_insert_event_batch(of_asset)
            with self.index_transaction() as connection:
                ids = connection.scalars(insert.returning(sa.column("id"))).all()
                self._store_asset_event(connection, of_asset[-1], ids[-1])


def dagster_url() -> sa.URL:
    """Where Dagster's tables are: our database, with the driver that dagster-postgres needs."""
    url = ensure_database(settings())
    engine = create_engine(url)
    migrate(engine)
    engine.dispose()
    return url.set(drivername="postgresql+psycopg2").update_query_dict({"options": f"-csearch_path={DAGSTER_SCHEMA}"})

"""What each run did for each source, for /health and /stats: rows of ``source_run``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import dagster as dg
import sqlalchemy as sa
from dagster._core.launcher import WorkerStatus
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.run_health import health_of_load
from kasparro_pipeline.warehouse.tables import source_run

MAX_ERROR = 2000
KILLED = "the run's process ended before the step did"


@dataclass(frozen=True, slots=True)
class SourceRun:
    """One asset's step of one Dagster run, for the sources it reads."""

    engine: Callable[[], sa.Engine]
    run_id: str
    asset_key: str
    partition: str
    sources: frozenset[str]

    @classmethod
    def begin(
        cls, engine: Callable[[], sa.Engine], context: dg.AssetExecutionContext, sources: Iterable[str]
    ) -> SourceRun:
        """Record that the step has started, and that those of runs that were killed have failed."""
        keys = context.partition_keys
        partition = keys[0] if len(keys) == 1 else f"{keys[0]}...{keys[-1]}"
        run = cls(engine, context.run.run_id, context.asset_key.to_user_string(), partition, frozenset(sources))
        with engine().begin() as connection:
            _end_killed(connection, context.instance, run)
            for source in sorted(run.sources):
                run._write(connection, source, status="running", started_at=sa.func.clock_timestamp())
        return run

    def succeeded(self, connection: sa.Connection, counts: Mapping[str, Mapping[str, int]] | None = None) -> None:
        """Record the success of every source, with its counts by name, in the caller's transaction."""
        for source in sorted(self.sources):
            of_source = (counts or {}).get(source, {})
            self._write(connection, source, status="success", ended_at=sa.func.clock_timestamp(), **of_source)

    def without(self, sources: Iterable[str]) -> SourceRun:
        """This run, for the other sources."""
        return replace(self, sources=self.sources - set(sources))

    def failed(self, error: BaseException, sources: Iterable[str] | None = None) -> None:
        """Record the failure of these sources (all of them by default) in a transaction of its own.

        Where the database cannot be asked, the failed run tells.
        """
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:MAX_ERROR]
        with suppress(sa.exc.OperationalError), self.engine().begin() as connection:
            for source in sorted(self.sources if sources is None else sources):
                self._write(connection, source, status="failure", ended_at=sa.func.clock_timestamp(), error=line)

    def _write(self, connection: sa.Connection, source: str, **values: object) -> None:
        key = {"run_id": self.run_id, "asset_key": self.asset_key, "source": source}
        connection.execute(
            insert(source_run)
            .values(partition=self.partition, **key, **values)
            .on_conflict_do_update(index_elements=list(key), set_=values)
        )


def _end_killed(connection: sa.Connection, instance: dg.DagsterInstance, new: SourceRun) -> None:
    """A process that was killed could not say so; whoever comes next for one of its sources does."""
    is_open = (source_run.c.status == "running") & source_run.c.source.in_(new.sources)
    unended = connection.scalars(
        sa.select(source_run.c.run_id).where(is_open, source_run.c.run_id != new.run_id).distinct()
    ).all()
    if not unended:
        return
    killed = [run.run_id for run in instance.get_runs(dg.RunsFilter(run_ids=list(unended))) if _is_over(run)]
    connection.execute(
        sa.update(source_run)
        .where(is_open, source_run.c.run_id.in_(killed))
        .values(status="failure", ended_at=sa.func.clock_timestamp(), error=KILLED)
    )


def _is_over(run: dg.DagsterRun) -> bool:
    health = health_of_load(run)
    return run.is_finished or (health is not None and health.status is WorkerStatus.FAILED)

"""Forgetting what is old enough, by the settings: in our tables, and in Dagster's.

Dagster itself forgets nothing but ticks (dagster.yaml says when), and has no call that forgets a part of its event log,
so that part is done on its tables.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from kasparro_pipeline.settings import Settings
from kasparro_pipeline.warehouse.migrate import DAGSTER_SCHEMA
from kasparro_pipeline.warehouse.retention import prune_observations, prune_payloads, prune_unified_history
from kasparro_pipeline.warehouse.statistics import analyze


@dataclass(frozen=True, slots=True)
class Pruned:
    """How much was removed."""

    unified_assets_history: int = 0
    observation: int = 0
    raw_payload: int = 0
    dagster_events: int = 0
    dagster_runs: int = 0

    def as_dict(self) -> dict[str, int]:
        """By table."""
        return asdict(self)


def prune(engine: sa.Engine, instance: dg.DagsterInstance, settings: Settings) -> Pruned:
    """Remove what is older than the settings say, 0 days: nothing; then count what is left, for the planner."""
    now = datetime.now(UTC)

    def before(days: int) -> datetime | None:
        return now - timedelta(days=days) if days else None

    history, payloads = before(settings.history_days), before(settings.payload_days)
    observations = before(settings.observation_days)
    events, runs = before(settings.event_days), before(settings.run_days)
    pruned = Pruned(
        unified_assets_history=prune_unified_history(engine, history) if history else 0,
        observation=prune_observations(engine, observations) if observations else 0,
        raw_payload=prune_payloads(engine, payloads) if payloads else 0,
        dagster_runs=_prune_runs(engine, instance, runs) if runs else 0,
        dagster_events=_prune_events(engine, events) if events else 0,
    )
    analyze(engine)
    return pruned


def _prune_events(engine: sa.Engine, before: datetime) -> int:
    """Remove log lines and steps of finished runs; what was materialized, observed and checked stays, and each run."""
    statement = sa.text(
        f"DELETE FROM {DAGSTER_SCHEMA}.event_logs AS e USING {DAGSTER_SCHEMA}.runs AS r "  # noqa: S608
        "WHERE r.run_id = e.run_id AND r.status = ANY(:finished) AND e.timestamp < :before AND e.asset_key IS NULL "
        "AND coalesce(e.dagster_event_type, '') !~ '^(ASSET|PIPELINE|RUN)_'"
    )
    with engine.begin() as connection:
        return connection.execute(statement, {"finished": _FINISHED, "before": before.replace(tzinfo=None)}).rowcount


def _prune_runs(engine: sa.Engine, instance: dg.DagsterInstance, before: datetime) -> int:
    """Remove finished runs with all their events, but those that a partition's newest materialization is of.

    Their ids may still stand in our tables, as what fetched, parsed or unified something.
    """
    statement = sa.text(
        f"SELECT run_id FROM {DAGSTER_SCHEMA}.runs WHERE status = ANY(:finished) AND update_timestamp < :before "  # noqa: S608
        f"AND run_id NOT IN (SELECT DISTINCT ON (asset_key, partition) run_id FROM {DAGSTER_SCHEMA}.event_logs "
        "WHERE asset_key IS NOT NULL AND dagster_event_type = 'ASSET_MATERIALIZATION' "
        "ORDER BY asset_key, partition, id DESC)"
    )
    with engine.connect() as connection:
        found = connection.scalars(statement, {"finished": _FINISHED, "before": before.replace(tzinfo=None)}).all()
    for run_id in found:
        instance.delete_run(run_id)
    return len(found)


_FINISHED = [status.value for status in FINISHED_STATUSES]

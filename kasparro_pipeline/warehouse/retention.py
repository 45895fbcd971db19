"""How long the past is kept: what superseded rows there are, and removing those that are old enough."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.warehouse.tables import kept_since, unified_assets_history, unified_change


def prune_unified_history(engine: sa.Engine, before: datetime) -> int:
    """Remove what `unified_assets` said before the moment `before` (aware) and no longer says; the number of rows.

    From then on ``unified_assets_as_of`` refuses earlier moments. The table itself is not touched.
    """
    superseded_at = unified_assets_history.c.superseded_at
    horizon = insert(kept_since).values(table_name=unified_assets_history.name, since=before)
    with engine.begin() as connection:
        connection.execute(
            horizon.on_conflict_do_update(
                index_elements=["table_name"],
                set_={"since": sa.func.greatest(kept_since.c.since, horizon.excluded.since)},
            )
        )
        under_way = connection.scalar(sa.select(sa.func.kasparro.changes_under_way(before))) or []
        old = sa.delete(unified_assets_history).where(superseded_at < before, superseded_at.not_in(under_way))
        removed = connection.execute(old).rowcount
        connection.execute(sa.delete(unified_change).where(unified_change.c.committed_at <= before))
    return removed

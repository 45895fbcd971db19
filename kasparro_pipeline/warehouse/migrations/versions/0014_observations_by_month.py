"""Observations are partitioned by month.

Revision ID: 0014
Revises: 0013
"""

import sqlalchemy as sa
from alembic import op

from kasparro_pipeline.warehouse.months import partition_like_old
from kasparro_pipeline.warehouse.reader import GRANT_READER
from kasparro_pipeline.warehouse.versions import trigger

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

COLUMNS = (
    "source, source_coin_id, observed_at, symbol, name, price_usd, market_cap_usd, volume_24h_usd, circulating_supply, "
    "total_supply, max_supply, rank, fetched_at, payload_sha256, position, withdrawn_at"
)
TABLE = sa.Table("observation", sa.MetaData(schema="kasparro"))
OLD = "ALTER TABLE kasparro.observation RENAME TO observation_old"
NEW = "CREATE TABLE kasparro.observation (LIKE kasparro.observation_old INCLUDING DEFAULTS INCLUDING COMMENTS)"
KEYS = """
ALTER TABLE kasparro.observation ADD CONSTRAINT observation_pkey PRIMARY KEY (source, observed_at, source_coin_id);
CREATE INDEX observation_withdrawn ON kasparro.observation (source, observed_at) WHERE withdrawn_at IS NOT NULL
"""

MOVE = (
    f"INSERT INTO kasparro.observation ({COLUMNS}) SELECT {COLUMNS} FROM kasparro.observation_old "  # noqa: S608
    "ORDER BY source, observed_at, source_coin_id"
)


def upgrade() -> None:
    op.execute(OLD)
    op.execute(f"{NEW} PARTITION BY RANGE (observed_at)")
    partition_like_old(op.get_bind(), TABLE, "observed_at")
    op.execute(MOVE)
    _finish()


def downgrade() -> None:
    op.execute(OLD)
    op.execute(NEW)
    op.execute(MOVE)
    _finish()


def _finish() -> None:
    """Keys last: an index that is made of all rows at once takes less time than one that grows."""
    op.execute("DROP TABLE kasparro.observation_old")
    op.execute(KEYS)
    op.execute(trigger("observation"))
    op.execute(GRANT_READER)
    op.execute("ANALYZE kasparro.observation")

"""Observations are partitioned by month.

Revision ID: 0014
Revises: 0013
"""

from alembic import op

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
OLD = "ALTER TABLE kasparro.observation RENAME TO observation_old"
NEW = "CREATE TABLE kasparro.observation (LIKE kasparro.observation_old INCLUDING DEFAULTS INCLUDING COMMENTS)"
KEYS = """
ALTER TABLE kasparro.observation ADD CONSTRAINT observation_pkey PRIMARY KEY (source, observed_at, source_coin_id);
CREATE INDEX observation_withdrawn ON kasparro.observation (source, observed_at) WHERE withdrawn_at IS NOT NULL
"""

PARTITIONS = """
DO $$
DECLARE
    first CONSTANT timestamptz := '2009-01-01 00:00:00+00';
    last CONSTANT timestamptz := '2200-01-01 00:00:00+00';
    found record;
BEGIN
    FOR found IN
        SELECT DISTINCT
            CASE WHEN observed_at >= first AND observed_at < last
                THEN date_trunc('month', observed_at, 'UTC') AT TIME ZONE 'UTC' END AS month,
            observed_at >= last AS is_after
        FROM kasparro.observation_old
    LOOP
        EXECUTE format(
            'CREATE TABLE kasparro.observation_%s PARTITION OF kasparro.observation FOR VALUES FROM (%s) TO (%s)',
            CASE WHEN found.month IS NOT NULL THEN to_char(found.month, 'YYYY_MM')
                WHEN found.is_after THEN 'after' ELSE 'before' END,
            CASE WHEN found.month IS NOT NULL THEN quote_literal(to_char(found.month, 'YYYY-MM-DD') || ' 00:00:00+00')
                WHEN found.is_after THEN quote_literal(last) ELSE 'MINVALUE' END,
            CASE WHEN found.month IS NOT NULL
                THEN quote_literal(to_char(found.month + interval '1 month', 'YYYY-MM-DD') || ' 00:00:00+00')
                WHEN found.is_after THEN 'MAXVALUE' ELSE quote_literal(first) END
        );
    END LOOP;
END $$
"""

MOVE = (
    f"INSERT INTO kasparro.observation ({COLUMNS}) SELECT {COLUMNS} FROM kasparro.observation_old "  # noqa: S608
    "ORDER BY source, observed_at, source_coin_id"
)


def upgrade() -> None:
    op.execute(OLD)
    op.execute(f"{NEW} PARTITION BY RANGE (observed_at)")
    op.execute(PARTITIONS)
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

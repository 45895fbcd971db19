"""where a number came from: as-of history of unified_assets, rule versions by day, failed checks

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
KEY = sa.Text(collation="C")
COLUMNS = (
    "coin_id, day, symbol, name, price_usd, market_cap_usd, volume_24h_usd, circulating_supply, total_supply, "
    "max_supply, rank, price_source, source_count, sources, price_spread_pct, flags, observed_at, updated_at"
)

KEEP = f"""
CREATE FUNCTION kasparro.keep_superseded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- a row that this very transaction has written was never seen by anybody
    INSERT INTO kasparro.unified_assets_history ({COLUMNS}, superseded_at)
    SELECT {COLUMNS}, now() FROM superseded WHERE updated_at <> now();
    IF FOUND THEN
        INSERT INTO kasparro.unified_change VALUES (now(), clock_timestamp()) ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER keep_updated AFTER UPDATE ON kasparro.unified_assets
REFERENCING OLD TABLE AS superseded FOR EACH STATEMENT EXECUTE FUNCTION kasparro.keep_superseded();

CREATE TRIGGER keep_deleted AFTER DELETE ON kasparro.unified_assets
REFERENCING OLD TABLE AS superseded FOR EACH STATEMENT EXECUTE FUNCTION kasparro.keep_superseded();

CREATE FUNCTION kasparro.touch_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;

-- the merge sets updated_at itself; whoever forgets it would falsify the past
CREATE TRIGGER touch_updated BEFORE UPDATE ON kasparro.unified_assets
FOR EACH ROW WHEN (OLD.updated_at = NEW.updated_at) EXECUTE FUNCTION kasparro.touch_updated();

CREATE FUNCTION kasparro.note_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE kasparro.unified_change SET committed_at = clock_timestamp() WHERE began_at = NEW.began_at;
    RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER note_commit AFTER INSERT ON kasparro.unified_change
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION kasparro.note_commit();
"""  # noqa: S608

AS_OF = f"""
CREATE FUNCTION kasparro.history_reaches(at timestamptz) RETURNS boolean LANGUAGE plpgsql STABLE AS $$
DECLARE
    since timestamptz := (SELECT k.since FROM kasparro.kept_since k WHERE k.table_name = 'unified_assets_history');
BEGIN
    IF at < since THEN
        RAISE EXCEPTION 'the history of unified_assets begins at %', to_char(since, 'YYYY-MM-DD"T"HH24:MI:SSOF')
        USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN true;
END $$;

CREATE FUNCTION kasparro.changes_under_way(at timestamptz) RETURNS timestamptz[] LANGUAGE sql STABLE AS $$
    SELECT ARRAY(SELECT began_at FROM kasparro.unified_change WHERE began_at <= at AND committed_at > at)
$$;

-- What unified_assets said at that moment. A change counts from its commit on: what was under way does not yet.
-- The conditions stand outside the UNION ALL, so that both halves can be read in the order of an index; the arrays
-- in sub-selects, so that they are made once; and coalesce() changes nothing but the planner's mind, which takes
-- <> ALL for a condition that leaves no row where many rows came in one transaction.
CREATE FUNCTION kasparro.unified_assets_as_of(at timestamptz)
RETURNS SETOF kasparro.unified_assets LANGUAGE sql STABLE AS $$
    SELECT {COLUMNS}
    FROM (
        SELECT {COLUMNS}, CAST('infinity' AS timestamptz) AS superseded_at FROM kasparro.unified_assets
        UNION ALL
        SELECT {COLUMNS}, superseded_at FROM kasparro.unified_assets_history
    ) AS believed
    WHERE kasparro.history_reaches(at)
      AND updated_at <= at
      AND coalesce(updated_at <> ALL ((SELECT kasparro.changes_under_way(at))::timestamptz[]), true)
      AND (superseded_at > at OR superseded_at = ANY ((SELECT kasparro.changes_under_way(at))::timestamptz[]))
$$;
"""  # noqa: S608


def upgrade() -> None:
    op.create_table(
        "unified_assets_history",
        sa.Column("coin_id", KEY, nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        *(
            sa.Column(name, sa.Numeric(), nullable=True)
            for name in (
                "price_usd",
                "market_cap_usd",
                "volume_24h_usd",
                "circulating_supply",
                "total_supply",
                "max_supply",
            )
        ),
        sa.Column("rank", sa.BigInteger(), nullable=True),
        sa.Column("price_source", KEY, nullable=True, comment="the source price_usd is from"),
        sa.Column("source_count", sa.Integer(), nullable=False, comment="sources that gave a price for the day"),
        sa.Column(
            "sources",
            postgresql.ARRAY(KEY),
            nullable=False,
            comment="all sources with an observation of the day, sorted",
        ),
        sa.Column(
            "price_spread_pct",
            sa.Numeric(),
            nullable=True,
            comment="(highest - lowest) / median of the sources' prices, in percent",
        ),
        sa.Column("flags", postgresql.ARRAY(KEY), nullable=False),
        sa.Column("observed_at", TIME, nullable=False, comment="when the chosen price was observed"),
        sa.Column("updated_at", TIME, nullable=False, comment="since when the row was believed"),
        sa.Column("superseded_at", TIME, nullable=False, comment="until when"),
        sa.PrimaryKeyConstraint("coin_id", "day", "superseded_at"),
        schema="kasparro",
        comment="rows that unified_assets had; kept by its triggers, read by unified_assets_as_of()",
    )
    op.create_index(
        "unified_assets_history_day",
        "unified_assets_history",
        [sa.text("day DESC"), "coin_id"],
        schema="kasparro",
    )
    op.create_index("unified_assets_history_superseded", "unified_assets_history", ["superseded_at"], schema="kasparro")
    op.create_table(
        "unified_change",
        sa.Column(
            "began_at", TIME, nullable=False, comment="start of the transaction: what its rows have as updated_at"
        ),
        sa.Column("committed_at", TIME, nullable=False, comment="set by a trigger at the moment of the commit"),
        sa.PrimaryKeyConstraint("began_at"),
        schema="kasparro",
        comment="transactions that changed unified_assets: from when on others saw what they wrote",
    )
    op.create_table(
        "unified_day",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("rule_version", KEY, nullable=False),
        sa.Column("priorities", postgresql.JSONB(), nullable=False, comment="of the sources then, by source"),
        sa.Column("run_id", sa.Text(), nullable=True, comment="the Dagster run that made the day last"),
        sa.Column("unified_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("day"),
        schema="kasparro",
        comment="by which rule, and when, the rows of each day were made or found unchanged last",
    )
    op.create_table(
        "kept_since",
        sa.Column("table_name", KEY, nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.PrimaryKeyConstraint("table_name"),
        schema="kasparro",
        comment="from when on a table of the past is whole; what is older was pruned",
    )
    op.create_table(
        "failed_check",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("asset_key", KEY, nullable=False),
        sa.Column("check_name", KEY, nullable=False),
        sa.Column("day", sa.Date(), nullable=True, comment="null: the table as a whole"),
        sa.Column("severity", KEY, nullable=False, comment="error or warning"),
        sa.Column("blocking", sa.Boolean(), nullable=False, comment="the day is not unified until the check passes"),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("checked_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        schema="kasparro",
        comment="what the last evaluation of each check found wrong; empty when all is well",
    )
    op.create_index("raw_payload_sha256", "raw_payload", ["sha256"], schema="kasparro")
    op.execute(KEEP)
    op.execute(AS_OF)
    # Rows from before have no known rule, and what they replaced was not kept.
    op.execute(
        "INSERT INTO kasparro.unified_day (day, rule_version, priorities) "
        "SELECT DISTINCT day, '', '{}'::jsonb FROM kasparro.unified_assets"
    )
    op.execute(
        "INSERT INTO kasparro.kept_since SELECT 'unified_assets_history', now() "
        "WHERE EXISTS (SELECT FROM kasparro.unified_assets)"
    )


def downgrade() -> None:
    op.execute("DROP FUNCTION kasparro.unified_assets_as_of, kasparro.changes_under_way, kasparro.history_reaches")
    op.execute(
        "DROP TRIGGER keep_updated ON kasparro.unified_assets; DROP TRIGGER keep_deleted ON kasparro.unified_assets; "
        "DROP TRIGGER touch_updated ON kasparro.unified_assets; DROP TRIGGER note_commit ON kasparro.unified_change; "
        "DROP FUNCTION kasparro.keep_superseded, kasparro.touch_updated, kasparro.note_commit"
    )
    op.drop_index("raw_payload_sha256", table_name="raw_payload", schema="kasparro")
    for table in (
        "failed_check",
        "kept_since",
        "unified_day",
        "unified_change",
        "unified_assets_history",
    ):
        op.drop_table(table, schema="kasparro")

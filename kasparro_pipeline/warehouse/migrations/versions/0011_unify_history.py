"""which coins of a day have to be unified again, and ids that were given to another coin

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

KEY = sa.Text(collation="C")
TIME = sa.DateTime(timezone=True)
BEFORE = "days whose observations or identities changed since unified_assets was last made for them"
AFTER = "days, and of which coins, whose observations or identities changed since they were last unified"

SPANS = """
CREATE VIEW kasparro.coin_identity_past AS
SELECT r.source, r.source_coin_id, w.coin_id, coalesce(r.since, '-infinity') AS since, r.until
FROM kasparro.reused_id AS r
JOIN kasparro.coin_identity AS w ON w.source = r.was_source AND w.source_coin_id = r.was_source_coin_id;

COMMENT ON VIEW kasparro.coin_identity_past IS
'which coin the observations with since <= observed_at < until are of, where it is not the one of coin_identity';

CREATE VIEW kasparro.coin_identity_span AS
SELECT i.source, i.source_coin_id, i.coin_id, coalesce(r.until, '-infinity') AS since,
       CAST('infinity' AS timestamptz) AS until
FROM kasparro.coin_identity AS i
LEFT JOIN (
    SELECT source, source_coin_id, max(until) AS until FROM kasparro.reused_id GROUP BY source, source_coin_id
) AS r USING (source, source_coin_id)
UNION ALL
SELECT source, source_coin_id, coin_id, since, until FROM kasparro.coin_identity_past;

COMMENT ON VIEW kasparro.coin_identity_span IS
'which coin an observation is of: the one of its source_coin_id with since <= observed_at < until';
"""


def upgrade() -> None:
    columns = (
        sa.Column("source", KEY, comment="of the coins; null: every coin of the day"),
        sa.Column(
            "source_coin_ids",
            postgresql.ARRAY(KEY),
            comment="the coins touched, as the source calls them; null: all",
        ),
        sa.Column(
            "by_history",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="only a day before was touched, so no day after has to follow",
        ),
    )
    for column in columns:
        op.add_column("touched_day", column, schema="kasparro")
    op.create_table_comment("touched_day", AFTER, existing_comment=BEFORE, schema="kasparro")
    op.create_table(
        "reused_id",
        sa.Column("source", KEY, nullable=False),
        sa.Column("source_coin_id", KEY, nullable=False),
        sa.Column("until", TIME, nullable=False, comment="its observations before this are of the coin that it was"),
        sa.Column("since", TIME, comment="and from this on; null: from the beginning"),
        sa.Column("was_source", KEY, nullable=False, comment="a coin that it was one with then: it is what this is"),
        sa.Column("was_source_coin_id", KEY, nullable=False),
        sa.Column("found_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("source", "source_coin_id", "until"),
        sa.ForeignKeyConstraint(
            ["was_source", "was_source_coin_id"],
            ["kasparro.coin_identity.source", "kasparro.coin_identity.source_coin_id"],
            deferrable=True,
            initially="DEFERRED",
        ),
        schema="kasparro",
        comment="ids that a source has given to another coin, and what they were until then",
    )
    op.execute(SPANS)


def downgrade() -> None:
    op.execute("DROP VIEW kasparro.coin_identity_span, kasparro.coin_identity_past")
    op.drop_table("reused_id", schema="kasparro")
    for name in ("by_history", "source_coin_ids", "source"):
        op.drop_column("touched_day", name, schema="kasparro")
    op.create_table_comment("touched_day", BEFORE, existing_comment=AFTER, schema="kasparro")

"""which coins of a day have to be unified again

Revision ID: touched_coins
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "touched_coins"
down_revision = "0007"
branch_labels = None
depends_on = None

KEY = sa.Text(collation="C")
BEFORE = "days whose observations or identities changed since unified_assets was last made for them"
AFTER = "days, and of which coins, whose observations or identities changed since they were last unified"


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


def downgrade() -> None:
    for name in ("by_history", "source_coin_ids", "source"):
        op.drop_column("touched_day", name, schema="kasparro")
    op.create_table_comment("touched_day", BEFORE, existing_comment=AFTER, schema="kasparro")

"""calls to vendors, versions of their answers, coins of their last sweep

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KEY = sa.Text(collation="C")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "vendor_call",
        sa.Column("source", KEY, nullable=False),
        sa.Column("day", sa.Date(), nullable=False, comment="UTC"),
        sa.Column(
            "calls", sa.BigInteger(), nullable=False, comment="tries included; each is counted before it is made"
        ),
        sa.Column(
            "recent",
            postgresql.ARRAY(TIME),
            nullable=False,
            comment="the latest of them, for the rate limit of the next run",
        ),
        sa.PrimaryKeyConstraint("source", "day"),
        schema="kasparro",
        comment="how often each vendor was asked; what call budgets are kept by",
    )
    op.create_table(
        "vendor_answer",
        sa.Column("source", KEY, nullable=False),
        sa.Column(
            "position", sa.Integer(), nullable=False, autoincrement=False, comment="place in the sweep, as in delivery"
        ),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("sha256", KEY, nullable=False, comment="the payload"),
        sa.Column("etag", sa.Text()),
        sa.Column("last_modified", sa.Text()),
        sa.PrimaryKeyConstraint("source", "position"),
        schema="kasparro",
        comment="what the vendor calls the version of its last answer, to ask whether there is a newer one",
    )
    op.create_table(
        "last_sweep",
        sa.Column("source", KEY, nullable=False),
        sa.Column(
            "asked", sa.Text(), nullable=False, comment="address and parameters; coins of other ones are not compared"
        ),
        sa.Column("finished_at", TIME, server_default=sa.text("clock_timestamp()"), nullable=False),
        sa.Column("coins", postgresql.ARRAY(KEY), nullable=False, comment="source_coin_id of every coin there was"),
        sa.PrimaryKeyConstraint("source"),
        schema="kasparro",
        comment="the coins of each source's last whole sweep, to tell what has vanished",
    )
    op.add_column(
        "delivery",
        sa.Column(
            "source_coin_id",
            KEY,
            comment="the coin a history answer is about; null: the payload names its coins",
        ),
        schema="kasparro",
    )


def downgrade() -> None:
    op.drop_column("delivery", "source_coin_id", schema="kasparro")
    for table in ("last_sweep", "vendor_answer", "vendor_call"):
        op.drop_table(table, schema="kasparro")

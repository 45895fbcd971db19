"""What the API was asked to run, and the budgets of the vendors' calls

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kasparro_pipeline.warehouse.reader import GRANT_ASKING, GRANT_READER

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_request",
        sa.Column("request_id", sa.Text(), nullable=False, comment="tag kasparro/request of the runs launched for it"),
        sa.Column("key_id", sa.Text(collation="C"), nullable=False, comment="the API key that asked"),
        sa.Column("idempotency_key", sa.Text(collation="C"), nullable=True, comment="given by the caller; null: none"),
        sa.Column("body_sha256", sa.LargeBinary(), nullable=False),
        sa.Column(
            "requested_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column(
            "claimed_until",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="until then somebody is at work on it",
        ),
        sa.Column("runs", postgresql.JSONB(), nullable=True, comment="the answer; null: not yet"),
        sa.PrimaryKeyConstraint("request_id"),
        sa.UniqueConstraint("key_id", "idempotency_key"),
        schema="kasparro",
        comment="loads that the API was asked for in the last day; the one table that it writes",
    )
    op.create_index("run_request_requested", "run_request", ["requested_at"], schema="kasparro")
    op.execute(GRANT_READER)
    op.execute(GRANT_ASKING)
    for name in ("per_day", "per_month"):
        comment = "the budget that held at its last call; null: none"
        op.add_column("vendor_call", sa.Column(name, sa.BigInteger(), comment=comment), schema="kasparro")


def downgrade() -> None:
    for name in ("per_day", "per_month"):
        op.drop_column("vendor_call", name, schema="kasparro")
    op.drop_table("run_request", schema="kasparro")

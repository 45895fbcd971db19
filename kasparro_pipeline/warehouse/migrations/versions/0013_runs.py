"""Runs in their order, and each source's last success and failure, by index.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("source_run_started", "source_run", [sa.text("started_at DESC"), "run_id"], schema="kasparro")
    by_status = ["status", "source", sa.text("started_at DESC")]
    op.create_index("source_run_status", "source_run", by_status, schema="kasparro")


def downgrade() -> None:
    op.drop_index("source_run_status", "source_run", schema="kasparro")
    op.drop_index("source_run_started", "source_run", schema="kasparro")

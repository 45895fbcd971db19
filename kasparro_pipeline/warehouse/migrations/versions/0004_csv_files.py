"""Deliveries of files that could not be unpacked.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "delivery",
        sa.Column("problem", sa.Text, comment="reason code and sentence; the payload is only the beginning of a file"),
        schema="kasparro",
    )


def downgrade() -> None:
    op.drop_column("delivery", "problem", schema="kasparro")

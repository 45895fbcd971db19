"""Deliveries of files that could not be unpacked.

Revision ID: csv_files
"""

import sqlalchemy as sa
from alembic import op

revision = "csv_files"
down_revision = "0001"
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

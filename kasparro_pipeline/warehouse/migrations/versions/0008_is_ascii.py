"""Whether a payload is ASCII alone, so that a file is not read twice to tell its encoding.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    comment = "no byte is beyond ASCII: nothing in doubt of a CSV file's encoding"
    op.add_column("delivery", sa.Column("is_ascii", sa.Boolean, comment=comment), schema="kasparro")


def downgrade() -> None:
    op.drop_column("delivery", "is_ascii", schema="kasparro")

"""API keys, data versions, the reader's role, words to search coins by

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from kasparro_pipeline.warehouse.reader import GRANT_READER, MAKE_READER
from kasparro_pipeline.warehouse.versions import FUNCTION, trigger

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

VERSIONED = (
    *("unified_assets", "observation", "coin", "coin_identity", "source_coin", "source_run", "quarantine"),
    *("drift", "identity_review"),
)


def upgrade() -> None:
    op.create_table(
        "data_version",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("part", sa.Text(collation="C"), nullable=False, comment="name of the table that changed"),
        sa.PrimaryKeyConstraint("id"),
        schema="kasparro",
        comment="per table the ids left by its newest writes; the set never is what it was before "
        "(warehouse/versions.py)",
    )
    op.create_table(
        "api_key",
        sa.Column("key_id", sa.Text(collation="C"), nullable=False, comment="the part of the key that may be seen"),
        sa.Column("name", sa.Text(), nullable=False, comment="whom or what it is for"),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False, comment="of the part that may not be seen"),
        sa.Column("scopes", postgresql.ARRAY(sa.Text(collation="C")), nullable=False, comment="read, operate, admin"),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("key_id"),
        schema="kasparro",
    )
    op.create_index(
        "coin_words",
        "coin",
        [sa.text("to_tsvector('simple', coin_id || ' ' || coalesce(symbol, '') || ' ' || coalesce(name, ''))")],
        schema="kasparro",
        postgresql_using="gin",
    )
    op.execute(FUNCTION)
    for table in VERSIONED:
        op.execute(trigger(table))
    op.execute(MAKE_READER)
    op.execute(GRANT_READER)


def downgrade() -> None:
    # the role stays: it belongs to the server, and other databases may use it
    op.execute("DROP FUNCTION kasparro.bump_data_version() CASCADE")
    op.drop_index("coin_words", table_name="coin", schema="kasparro")
    op.drop_table("api_key", schema="kasparro")
    op.drop_table("data_version", schema="kasparro")

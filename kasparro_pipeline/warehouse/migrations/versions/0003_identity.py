"""identity: history, review, decisions

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY = sa.Text(collation="C")
TIME = sa.DateTime(timezone=True)


def _two_coins() -> list[sa.Column]:
    return [
        sa.Column(name, KEY, nullable=False)
        for name in ("source", "source_coin_id", "other_source", "other_source_coin_id")
    ]


def upgrade() -> None:
    op.create_table(
        "coin_identity_history",
        sa.Column("source", KEY, nullable=False),
        sa.Column("source_coin_id", KEY, nullable=False),
        sa.Column("valid_from", TIME, nullable=False, comment="when this was first decided"),
        sa.Column("valid_to", TIME, nullable=True, comment="when something else was decided; null: holds"),
        sa.Column("coin_id", KEY, nullable=False),
        sa.Column("symbol", sa.Text(), nullable=True, comment="what the source called it then"),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("listed", sa.Boolean(), nullable=False, comment="false: a vendor has not spoken of it for a week"),
        sa.Column("method", KEY, nullable=False),
        sa.Column("confidence", sa.Numeric(), nullable=False),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("source", "source_coin_id", "valid_from"),
        schema="kasparro",
        comment="what each source's coin was taken for, and from when to when",
    )
    op.create_index("coin_identity_history_coin", "coin_identity_history", ["coin_id"], schema="kasparro")
    op.create_index(
        "coin_identity_history_now",
        "coin_identity_history",
        ["source", "source_coin_id"],
        unique=True,
        schema="kasparro",
        postgresql_where=sa.text("valid_to IS NULL"),
    )
    op.create_table(
        "identity_review",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        *_two_coins(),
        sa.Column("reason", KEY, nullable=False, comment="why they were not joined"),
        sa.Column("confidence", sa.Numeric(), nullable=False, comment="expected share of such pairs that are one coin"),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source", "source_coin_id", "other_source", "other_source_coin_id"),
        schema="kasparro",
        comment="pairs of coins that may be one and wait for a person",
    )
    op.create_index(
        "identity_review_order",
        "identity_review",
        [sa.literal_column("confidence DESC"), "id"],
        schema="kasparro",
    )
    op.create_table(
        "identity_decision",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("ruling", KEY, nullable=False, comment="same, different or renamed"),
        *_two_coins(),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("decided_at", TIME, server_default=sa.text("now()"), nullable=False),
        sa.Column("undone_at", TIME, nullable=True, comment="null: it holds"),
        sa.Column("undone_by", sa.Text(), nullable=True),
        sa.Column("undone_why", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        schema="kasparro",
        comment="what persons have said of two coins; of two that hold on one pair the later counts",
    )


def downgrade() -> None:
    op.drop_table("identity_decision", schema="kasparro")
    op.drop_table("identity_review", schema="kasparro")
    op.drop_table("coin_identity_history", schema="kasparro")

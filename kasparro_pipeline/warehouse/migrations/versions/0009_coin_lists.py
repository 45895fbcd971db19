"""the vendors' own lists of their coins, and contract addresses

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

KEY = sa.Text(collation="C")
TIME = sa.DateTime(timezone=True)


def _listed_columns() -> list[sa.Column]:
    return [
        sa.Column(
            "listed", sa.Boolean(), nullable=False, comment="it is in the newest list, and not marked as inactive there"
        ),
        sa.Column("first_listed_at", TIME, nullable=False, comment="fetched_at of its first list"),
        sa.Column("unlisted_at", TIME, nullable=True, comment="fetched_at of the list that ended it; null: listed"),
        sa.Column("payload_sha256", KEY, nullable=False, comment="the list that said so first"),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="record in it, from 1"),
    ]


def _say_of_listed(comment: str) -> None:
    op.alter_column("coin_identity_history", "listed", comment=comment, schema="kasparro")


def upgrade() -> None:
    op.create_table(
        "coin_listing",
        sa.Column("source", KEY, nullable=False),
        sa.Column("source_coin_id", KEY, nullable=False),
        sa.Column("symbol", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        *_listed_columns(),
        sa.PrimaryKeyConstraint("source", "source_coin_id"),
        schema="kasparro",
        comment="the coins in each vendor's own list, those without a price too",
    )
    op.create_table(
        "coin_contract",
        sa.Column("source", KEY, nullable=False),
        sa.Column("source_coin_id", KEY, nullable=False),
        sa.Column("chain", KEY, nullable=False, comment="as CoinGecko calls it, where that is known"),
        sa.Column("address", KEY, nullable=False, comment="in lower case on chains whose addresses have none"),
        sa.Column("platform", KEY, nullable=False, comment="what the source calls the chain"),
        *_listed_columns(),
        sa.PrimaryKeyConstraint("source", "source_coin_id", "chain", "address"),
        schema="kasparro",
        comment="the contract addresses that each vendor gives for its coins",
    )
    op.create_index("coin_contract_address", "coin_contract", ["address"], schema="kasparro")
    _say_of_listed("false: not in its vendor's list, or silent for a week")


def downgrade() -> None:
    _say_of_listed("false: a vendor has not spoken of it for a week")
    op.drop_table("coin_contract", schema="kasparro")
    op.drop_table("coin_listing", schema="kasparro")

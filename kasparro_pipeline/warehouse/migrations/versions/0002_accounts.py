"""withdrawn observations, extents of deliveries, known fields and drift

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.Text(collation="C")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "observation",
        sa.Column("withdrawn_at", TIME, comment="when its file was delivered without it; null: still delivered"),
        schema="kasparro",
    )
    op.create_index(
        "observation_withdrawn",
        "observation",
        ["source", "observed_at"],
        schema="kasparro",
        postgresql_where=sa.text("withdrawn_at IS NOT NULL"),
    )
    for column in (
        sa.Column(
            "withdrawn", sa.BigInteger(), comment="observations its file no longer holds; of a file's last block"
        ),
        sa.Column("first_observed_at", TIME, comment="of its observations, as is the next"),
        sa.Column("last_observed_at", TIME),
        sa.Column("first_coin_id", KEY, comment="least source_coin_id of its observations; the next is the greatest"),
        sa.Column("last_coin_id", KEY),
    ):
        op.add_column("delivery", column, schema="kasparro")
    op.create_index("delivery_fetched", "delivery", ["source", "fetched_at"], schema="kasparro")
    op.create_index("delivery_parsed", "delivery", ["source", "parsed_at"], schema="kasparro")
    newest = [sa.literal_column("created_at DESC"), sa.literal_column("id DESC")]
    op.create_index("quarantine_newest", "quarantine", newest, schema="kasparro")
    op.create_index("quarantine_newest_of_source", "quarantine", ["source", *newest], schema="kasparro")
    op.create_table(
        "source_field",
        sa.Column("source", KEY, nullable=False),
        sa.Column("scope", KEY, nullable=False, comment="the file whose header it is; empty for an API"),
        sa.Column("path", KEY, nullable=False, comment="dotted path in a record, or header name"),
        sa.Column(
            "types",
            postgresql.ARRAY(KEY),
            nullable=False,
            comment="types of its values so far, null left out, sorted",
        ),
        sa.Column(
            "share",
            sa.Numeric(),
            nullable=False,
            comment="of the records of the payload it was learned from, 0 to 1",
        ),
        sa.Column("example", sa.Text()),
        sa.Column("present", sa.Boolean(), nullable=False, comment="whether it is part of the shape now"),
        sa.Column("first_seen", TIME, nullable=False, comment="fetched_at of the payload"),
        sa.Column(
            "last_seen",
            TIME,
            nullable=False,
            comment="of the newest payload whose shape was looked at and has it",
        ),
        sa.PrimaryKeyConstraint("source", "scope", "path"),
        schema="kasparro",
        comment="the fields of each source's records, learned from its first payloads",
    )
    op.create_table(
        "drift",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source", KEY, nullable=False),
        sa.Column("scope", KEY, nullable=False, comment="as in source_field"),
        sa.Column("path", KEY, nullable=False),
        sa.Column("kind", KEY, nullable=False, comment="new, missing, retyped or renamed"),
        sa.Column("severity", KEY, nullable=False, comment="error: a key field; warn: a mapped one; info: not mapped"),
        sa.Column("mapped_column", KEY, comment="column of an observation that is read from it"),
        sa.Column("renamed_to", KEY, comment="what a missing field became, as far as can be guessed"),
        sa.Column("confidence", sa.Numeric(), comment="of that guess, 0 to 1"),
        sa.Column("example", sa.Text(), comment="a value of the field (of the new one, when renamed)"),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("first_seen", TIME, nullable=False, comment="fetched_at of the payload that showed it first"),
        sa.Column("last_seen", TIME, nullable=False),
        sa.Column("payload_sha256", KEY, nullable=False, comment="the payload that showed it first"),
        sa.Column("resolved_at", TIME, comment="fetched_at of the payload that is as before again"),
        sa.Column("run_id", sa.Text()),
        sa.PrimaryKeyConstraint("id"),
        schema="kasparro",
        comment="what changed in the shape of a source's records",
    )
    op.create_index(
        "drift_open",
        "drift",
        ["source", "scope", "path", "kind"],
        unique=True,
        schema="kasparro",
        postgresql_where=sa.text("resolved_at IS NULL"),
    )


def downgrade() -> None:
    op.drop_table("drift", schema="kasparro")
    op.drop_table("source_field", schema="kasparro")
    for name in ("quarantine_newest_of_source", "quarantine_newest"):
        op.drop_index(name, table_name="quarantine", schema="kasparro")
    for name in ("delivery_parsed", "delivery_fetched"):
        op.drop_index(name, table_name="delivery", schema="kasparro")
    for name in ("withdrawn", "first_observed_at", "last_observed_at", "first_coin_id", "last_coin_id"):
        op.drop_column("delivery", name, schema="kasparro")
    op.drop_index("observation_withdrawn", table_name="observation", schema="kasparro")
    op.drop_column("observation", "withdrawn_at", schema="kasparro")

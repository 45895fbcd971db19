"""first tables

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "checkpoint",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("partition", sa.Text(collation="C"), nullable=False),
        sa.Column("cursor", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("complete", sa.Boolean(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column(
            "updated_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("source", "partition"),
        schema="kasparro",
    )
    op.create_table(
        "coin",
        sa.Column("coin_id", sa.Text(collation="C"), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("coin_id"),
        schema="kasparro",
    )
    op.create_table(
        "merge_receipt",
        sa.Column("table_name", sa.Text(collation="C"), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="of the frame that was merged"),
        sa.Column("low", postgresql.ARRAY(sa.Text()), nullable=False, comment="least key of the frame"),
        sa.Column("high", postgresql.ARRAY(sa.Text()), nullable=False, comment="greatest key of the frame"),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("versions", sa.Text(), nullable=False, comment="stands for the row versions stored from low to high"),
        sa.Column(
            "written_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("table_name", "digest"),
        schema="kasparro",
        comment="frames that lie in their table unchanged since they were merged; a cache, safe to empty",
    )
    op.create_table(
        "observation",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("source_coin_id", sa.Text(collation="C"), nullable=False),
        sa.Column("observed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("price_usd", sa.Numeric(), nullable=True),
        sa.Column("market_cap_usd", sa.Numeric(), nullable=True),
        sa.Column("volume_24h_usd", sa.Numeric(), nullable=True),
        sa.Column("circulating_supply", sa.Numeric(), nullable=True),
        sa.Column("total_supply", sa.Numeric(), nullable=True),
        sa.Column("max_supply", sa.Numeric(), nullable=True),
        sa.Column("rank", sa.BigInteger(), nullable=True),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False, comment="when the payload was fetched"),
        sa.Column("payload_sha256", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="record in the payload, from 1"),
        sa.PrimaryKeyConstraint("source", "observed_at", "source_coin_id"),
        schema="kasparro",
    )
    op.create_table(
        "quarantine",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("payload_sha256", sa.Text(collation="C"), nullable=False),
        sa.Column(
            "position", sa.BigInteger(), nullable=False, comment="record in the payload, from 1; 0: the payload itself"
        ),
        sa.Column("location", sa.Text(), nullable=False, comment="file and line, or request and record"),
        sa.Column("reason_code", sa.Text(collation="C"), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("record", sa.Text(), nullable=False),
        sa.Column("parser_version", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source", "payload_sha256", "position"),
        schema="kasparro",
    )
    op.create_table(
        "raw_payload",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("sha256", sa.Text(collation="C"), nullable=False, comment="hex digest of the bytes as they came"),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="the bytes, compressed with zstd"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False, comment="before compression"),
        sa.Column("first_fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("source", "sha256"),
        schema="kasparro",
    )
    op.create_table(
        "source_coin",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("source_coin_id", sa.Text(collation="C"), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column(
            "first_seen", sa.DateTime(timezone=True), nullable=False, comment="observed_at of the earliest observation"
        ),
        sa.Column(
            "last_seen",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="observed_at of the observation symbol and name are from",
        ),
        sa.PrimaryKeyConstraint("source", "source_coin_id"),
        schema="kasparro",
        comment="what each source calls each coin, latest word; what identity is decided on",
    )
    op.create_table(
        "source_run",
        sa.Column("run_id", sa.Text(collation="C"), nullable=False, comment="the Dagster run"),
        sa.Column("asset_key", sa.Text(collation="C"), nullable=False),
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("partition", sa.Text(), nullable=False, comment="one partition, or first...last of a range"),
        sa.Column("status", sa.Text(collation="C"), nullable=False, comment="running, success or failure"),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("records", sa.BigInteger(), nullable=True),
        sa.Column("inserted", sa.BigInteger(), nullable=True),
        sa.Column("updated", sa.BigInteger(), nullable=True),
        sa.Column("unchanged", sa.BigInteger(), nullable=True),
        sa.Column("quarantined", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("run_id", "asset_key", "source"),
        schema="kasparro",
        comment="what each run did for each source; a run that was killed stays running until the next one",
    )
    op.create_index(
        "source_run_latest",
        "source_run",
        ["source", sa.literal_column("started_at DESC")],
        unique=False,
        schema="kasparro",
    )
    op.create_table(
        "touched_day",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column(
            "touched_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("id"),
        schema="kasparro",
        comment="days whose observations or identities changed since unified_assets was last made for them",
    )
    op.create_table(
        "unified_assets",
        sa.Column("coin_id", sa.Text(collation="C"), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("symbol", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("price_usd", sa.Numeric(), nullable=True),
        sa.Column("market_cap_usd", sa.Numeric(), nullable=True),
        sa.Column("volume_24h_usd", sa.Numeric(), nullable=True),
        sa.Column("circulating_supply", sa.Numeric(), nullable=True),
        sa.Column("total_supply", sa.Numeric(), nullable=True),
        sa.Column("max_supply", sa.Numeric(), nullable=True),
        sa.Column("rank", sa.BigInteger(), nullable=True),
        sa.Column("price_source", sa.Text(collation="C"), nullable=True, comment="the source price_usd is from"),
        sa.Column("source_count", sa.Integer(), nullable=False, comment="sources that gave a price for the day"),
        sa.Column(
            "sources",
            postgresql.ARRAY(sa.Text(collation="C")),
            nullable=False,
            comment="all sources with an observation of the day, sorted",
        ),
        sa.Column(
            "price_spread_pct",
            sa.Numeric(),
            nullable=True,
            comment="(highest - lowest) / median of the sources' prices, in percent",
        ),
        sa.Column("flags", postgresql.ARRAY(sa.Text(collation="C")), nullable=False),
        sa.Column(
            "observed_at", sa.DateTime(timezone=True), nullable=False, comment="when the chosen price was observed"
        ),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("coin_id", "day"),
        schema="kasparro",
    )
    op.create_index(
        "unified_assets_day",
        "unified_assets",
        [sa.literal_column("day DESC"), "coin_id"],
        unique=False,
        schema="kasparro",
    )
    op.create_index(
        "unified_assets_symbol",
        "unified_assets",
        [sa.literal_column("lower(symbol)"), sa.literal_column("day DESC"), "coin_id"],
        unique=False,
        schema="kasparro",
    )
    op.create_table(
        "coin_identity",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("source_coin_id", sa.Text(collation="C"), nullable=False),
        sa.Column("coin_id", sa.Text(collation="C"), nullable=False),
        sa.Column("method", sa.Text(collation="C"), nullable=False),
        sa.Column("confidence", sa.Numeric(), nullable=False, comment="expected precision, 0 to 1"),
        sa.Column("evidence", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["coin_id"], ["kasparro.coin.coin_id"], initially="DEFERRED", deferrable=True),
        sa.PrimaryKeyConstraint("source", "source_coin_id"),
        schema="kasparro",
    )
    op.create_index("coin_identity_coin", "coin_identity", ["coin_id"], unique=False, schema="kasparro")
    op.create_table(
        "delivery",
        sa.Column("source", sa.Text(collation="C"), nullable=False),
        sa.Column("partition", sa.Text(collation="C"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("sha256", sa.Text(collation="C"), nullable=False),
        sa.Column("request", sa.Text(), nullable=False, comment="URL without secrets, or path below the drop folder"),
        sa.Column(
            "first_record",
            sa.BigInteger(),
            nullable=False,
            comment="line of the file on which a CSV block starts, else 1",
        ),
        sa.Column(
            "is_last", sa.Boolean(), nullable=False, comment="completed its sweep: last page, or last block of a file"
        ),
        sa.Column("run_id", sa.Text(), nullable=True, comment="the Dagster run that fetched it"),
        sa.Column("parser_version", sa.Text(), nullable=True, comment="null until parsed"),
        sa.Column("parsed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("parse_run_id", sa.Text(), nullable=True, comment="the Dagster run that parsed it"),
        sa.Column("records", sa.BigInteger(), nullable=True),
        sa.Column("inserted", sa.BigInteger(), nullable=True),
        sa.Column("updated", sa.BigInteger(), nullable=True),
        sa.Column("unchanged", sa.BigInteger(), nullable=True),
        sa.Column("quarantined", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["source", "sha256"],
            ["kasparro.raw_payload.source", "kasparro.raw_payload.sha256"],
        ),
        sa.PrimaryKeyConstraint("source", "partition", "position", "fetched_at"),
        schema="kasparro",
    )
    op.create_index("delivery_payload", "delivery", ["source", "sha256"], unique=False, schema="kasparro")


def downgrade() -> None:
    op.drop_index("delivery_payload", table_name="delivery", schema="kasparro")
    op.drop_table("delivery", schema="kasparro")
    op.drop_index("coin_identity_coin", table_name="coin_identity", schema="kasparro")
    op.drop_table("coin_identity", schema="kasparro")
    op.drop_index("unified_assets_symbol", table_name="unified_assets", schema="kasparro")
    op.drop_index("unified_assets_day", table_name="unified_assets", schema="kasparro")
    op.drop_table("unified_assets", schema="kasparro")
    op.drop_table("touched_day", schema="kasparro")
    op.drop_index("source_run_latest", table_name="source_run", schema="kasparro")
    op.drop_table("source_run", schema="kasparro")
    op.drop_table("source_coin", schema="kasparro")
    op.drop_table("raw_payload", schema="kasparro")
    op.drop_table("quarantine", schema="kasparro")
    op.drop_table("observation", schema="kasparro")
    op.drop_table("merge_receipt", schema="kasparro")
    op.drop_table("coin", schema="kasparro")
    op.drop_table("checkpoint", schema="kasparro")

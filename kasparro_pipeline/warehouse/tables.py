"""The tables of schema ``kasparro``: the one place that declares columns, types and keys.

Text keys use ``COLLATE "C"``: byte order, the fastest to compare and the same on every machine.
`Column.info` may hold ``{"compare": False}``: the column is written with its row, yet a difference in it alone is no
reason to write the row (provenance and time stamps).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

SCHEMA = "kasparro"
metadata = MetaData(schema=SCHEMA)

KEY = Text(collation="C")
TIME = DateTime(timezone=True)
NOT_COMPARED = {"compare": False}


def _numbers(*names: str) -> list[Column[object]]:
    """NUMERIC columns without a scale: every digit a vendor sends is kept."""
    return [Column(name, Numeric) for name in names]


raw_payload = Table(
    "raw_payload",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("sha256", KEY, primary_key=True, comment="hex digest of the bytes as they came"),
    Column("body", LargeBinary, nullable=False, comment="the bytes, compressed with zstd"),
    Column("size_bytes", BigInteger, nullable=False, comment="before compression"),
    Column("first_fetched_at", TIME, nullable=False),
)

delivery = Table(
    "delivery",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("partition", KEY, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("fetched_at", TIME, primary_key=True),
    Column("sha256", KEY, nullable=False),
    Column("request", Text, nullable=False, comment="URL without secrets, or path below the drop folder"),
    Column("first_record", BigInteger, nullable=False, comment="line of the file on which a CSV block starts, else 1"),
    Column("is_last", Boolean, nullable=False, comment="completed its sweep: last page, or last block of a file"),
    Column("run_id", Text, comment="the Dagster run that fetched it"),
    Column("parser_version", Text, comment="null until parsed"),
    Column("parsed_at", TIME),
    Column("parse_run_id", Text, comment="the Dagster run that parsed it"),
    *(Column(name, BigInteger) for name in ("records", "inserted", "updated", "unchanged", "quarantined")),
    ForeignKeyConstraint(["source", "sha256"], ["kasparro.raw_payload.source", "kasparro.raw_payload.sha256"]),
    Index("delivery_payload", "source", "sha256"),
)

checkpoint = Table(
    "checkpoint",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("partition", KEY, primary_key=True),
    Column("cursor", JSONB, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("run_id", Text),
    Column("updated_at", TIME, nullable=False, server_default=func.clock_timestamp()),
)

observation = Table(
    "observation",
    metadata,
    Column("source", KEY),
    Column("source_coin_id", KEY),
    Column("observed_at", TIME),
    Column("symbol", Text),
    Column("name", Text),
    *_numbers("price_usd", "market_cap_usd", "volume_24h_usd", "circulating_supply", "total_supply", "max_supply"),
    Column("rank", BigInteger),
    Column("fetched_at", TIME, nullable=False, info=NOT_COMPARED, comment="when the payload was fetched"),
    Column("payload_sha256", KEY, nullable=False, info=NOT_COMPARED),
    Column("position", BigInteger, nullable=False, info=NOT_COMPARED, comment="record in the payload, from 1"),
    # Time before coin: a day is one range of the index, and a new snapshot is appended at its end.
    PrimaryKeyConstraint("source", "observed_at", "source_coin_id"),
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", KEY, nullable=False),
    Column("payload_sha256", KEY, nullable=False),
    Column("position", BigInteger, nullable=False, comment="record in the payload, from 1; 0: the payload itself"),
    Column("location", Text, nullable=False, comment="file and line, or request and record"),
    Column("reason_code", KEY, nullable=False),
    Column("reason", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("parser_version", Text, nullable=False),
    Column("run_id", Text),
    Column("created_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    UniqueConstraint("source", "payload_sha256", "position"),
)

source_coin = Table(
    "source_coin",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("source_coin_id", KEY, primary_key=True),
    Column("symbol", Text),
    Column("name", Text),
    Column("first_seen", TIME, nullable=False, comment="observed_at of the earliest observation"),
    Column("last_seen", TIME, nullable=False, comment="observed_at of the observation symbol and name are from"),
    comment="what each source calls each coin, latest word; what identity is decided on",
)

source_run = Table(
    "source_run",
    metadata,
    Column("run_id", KEY, primary_key=True, comment="the Dagster run"),
    Column("asset_key", KEY, primary_key=True),
    Column("source", KEY, primary_key=True),
    Column("partition", Text, nullable=False, comment="one partition, or first...last of a range"),
    Column("status", KEY, nullable=False, comment="running, success or failure"),
    Column("started_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("ended_at", TIME),
    Column("error", Text),
    *(Column(name, BigInteger) for name in ("records", "inserted", "updated", "unchanged", "quarantined")),
    Index("source_run_latest", "source", text("started_at DESC")),
    comment="what each run did for each source; a run that was killed stays running until the next one",
)

touched_day = Table(
    "touched_day",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("day", Date, nullable=False),
    Column("touched_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    comment="days whose observations or identities changed since unified_assets was last made for them",
)

coin = Table(
    "coin",
    metadata,
    Column("coin_id", KEY, primary_key=True),
    Column("symbol", Text),
    Column("name", Text),
    Column("updated_at", TIME, nullable=False, server_default=func.now(), onupdate=func.now(), info=NOT_COMPARED),
    Index(
        "coin_words",
        text("to_tsvector('simple', coin_id || ' ' || coalesce(symbol, '') || ' ' || coalesce(name, ''))"),
        postgresql_using="gin",
    ),
)

coin_identity = Table(
    "coin_identity",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("source_coin_id", KEY, primary_key=True),
    Column("coin_id", KEY, nullable=False),
    Column("method", KEY, nullable=False),
    Column("confidence", Numeric, nullable=False, comment="expected precision, 0 to 1"),
    Column("evidence", Text, nullable=False),
    Column("updated_at", TIME, nullable=False, server_default=func.now(), onupdate=func.now(), info=NOT_COMPARED),
    ForeignKeyConstraint(["coin_id"], ["kasparro.coin.coin_id"], deferrable=True, initially="DEFERRED"),
    Index("coin_identity_coin", "coin_id"),
)

unified_assets = Table(
    "unified_assets",
    metadata,
    Column("coin_id", KEY, primary_key=True),
    Column("day", Date, primary_key=True),
    Column("symbol", Text),
    Column("name", Text),
    *_numbers("price_usd", "market_cap_usd", "volume_24h_usd", "circulating_supply", "total_supply", "max_supply"),
    Column("rank", BigInteger),
    Column("price_source", KEY, comment="the source price_usd is from"),
    Column("source_count", Integer, nullable=False, comment="sources that gave a price for the day"),
    Column("sources", ARRAY(KEY), nullable=False, comment="all sources with an observation of the day, sorted"),
    Column("price_spread_pct", Numeric, comment="(highest - lowest) / median of the sources' prices, in percent"),
    Column("flags", ARRAY(KEY), nullable=False),
    Column("observed_at", TIME, nullable=False, comment="when the chosen price was observed"),
    Column("updated_at", TIME, nullable=False, server_default=func.now(), onupdate=func.now(), info=NOT_COMPARED),
    Index("unified_assets_day", text("day DESC"), "coin_id"),
    Index("unified_assets_symbol", text("lower(symbol)"), text("day DESC"), "coin_id"),
)

merge_receipt = Table(
    "merge_receipt",
    metadata,
    Column("table_name", KEY, primary_key=True),
    Column("digest", LargeBinary, primary_key=True, comment="of the frame that was merged"),
    Column("low", ARRAY(Text), nullable=False, comment="least key of the frame"),
    Column("high", ARRAY(Text), nullable=False, comment="greatest key of the frame"),
    Column("row_count", BigInteger, nullable=False),
    Column("versions", Text, nullable=False, comment="stands for the row versions stored from low to high"),
    Column("written_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    comment="frames that lie in their table unchanged since they were merged; a cache, safe to empty",
)

data_version = Table(
    "data_version",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("part", KEY, nullable=False, comment="name of the table that changed"),
    comment="per table the ids left by its newest writes; the set never is what it was before (warehouse/versions.py)",
)

api_key = Table(
    "api_key",
    metadata,
    Column("key_id", KEY, primary_key=True, comment="the part of the key that may be seen"),
    Column("name", Text, nullable=False, comment="whom or what it is for"),
    Column("secret_sha256", LargeBinary, nullable=False, comment="of the part that may not be seen"),
    Column("scopes", ARRAY(KEY), nullable=False, comment="read, operate, admin"),
    Column("created_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("expires_at", TIME),
    Column("revoked_at", TIME),
)

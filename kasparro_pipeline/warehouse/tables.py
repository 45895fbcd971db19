"""The tables of schema ``kasparro``: the one place that declares columns, types and keys.

Text keys use ``COLLATE "C"``: byte order, the fastest to compare and the same on every machine.
`Column.info` may hold ``{"compare": False}``: the column is written with its row, yet a difference in it alone is no
reason to write the row (provenance and time stamps). It may also hold ``{"from": (column, ...)}``: the columns of an
observation that a column of `unified_assets` is made of, where they are not the one of the same name.
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

from kasparro_pipeline.warehouse.months import BY_MONTH

SCHEMA = "kasparro"
metadata = MetaData(schema=SCHEMA)

KEY = Text(collation="C")
TIME = DateTime(timezone=True)
NOT_COMPARED = {"compare": False}
GUARDED = ("price_usd", "market_cap_usd", "volume_24h_usd", "circulating_supply", "total_supply", "max_supply", "rank")
"""Numbers that are looked at for outliers."""


def _numbers(*names: str) -> list[Column[object]]:
    """NUMERIC columns without a scale: every digit a vendor sends is kept."""
    return [Column(name, Numeric) for name in names]


payload = Table(
    "payload",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("sha256", KEY, primary_key=True, comment="hex digest of the bytes as they came"),
    Column("first_fetched_at", TIME, nullable=False, comment="tells the month of raw_payload in which the bytes are"),
    UniqueConstraint("source", "sha256", "first_fetched_at"),
    # Both ways, so that there is no payload without its bytes, nor bytes twice; whoever writes both commits both.
    ForeignKeyConstraint(
        ["source", "sha256", "first_fetched_at"],
        ["kasparro.raw_payload.source", "kasparro.raw_payload.sha256", "kasparro.raw_payload.first_fetched_at"],
        name="payload_raw_payload_fkey",
        deferrable=True,
        initially="DEFERRED",
        use_alter=True,
    ),
    Index("payload_sha256", "sha256"),
    comment="which payloads are kept: each once, by its hash",
)

raw_payload = Table(
    "raw_payload",
    metadata,
    Column("source", KEY),
    Column("sha256", KEY),
    Column("body", LargeBinary, nullable=False, comment="the bytes, compressed with zstd"),
    Column("size_bytes", BigInteger, nullable=False, comment="before compression"),
    Column("first_fetched_at", TIME),
    PrimaryKeyConstraint("source", "sha256", "first_fetched_at"),
    ForeignKeyConstraint(
        ["source", "sha256", "first_fetched_at"],
        ["kasparro.payload.source", "kasparro.payload.sha256", "kasparro.payload.first_fetched_at"],
        name="raw_payload_payload_fkey",
        deferrable=True,
        initially="DEFERRED",
    ),
    postgresql_partition_by="RANGE (first_fetched_at)",
    info={BY_MONTH: "first_fetched_at"},
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
    Column("source_coin_id", KEY, comment="the coin a history answer is about; null: the payload names its coins"),
    Column("run_id", Text, comment="the Dagster run that fetched it"),
    Column("problem", Text, comment="reason code and sentence; the payload is only the beginning of a file"),
    Column("is_ascii", Boolean, comment="no byte is beyond ASCII: nothing in doubt of a CSV file's encoding"),
    Column("parser_version", Text, comment="null until parsed"),
    Column("parsed_at", TIME),
    Column("parse_run_id", Text, comment="the Dagster run that parsed it"),
    *(Column(name, BigInteger) for name in ("records", "inserted", "updated", "unchanged", "quarantined")),
    Column("withdrawn", BigInteger, comment="observations its file no longer holds; of a file's last block"),
    Column("first_observed_at", TIME, comment="of its observations, as is the next"),
    Column("last_observed_at", TIME),
    Column("first_coin_id", KEY, comment="least source_coin_id of its observations; the next is the greatest"),
    Column("last_coin_id", KEY),
    ForeignKeyConstraint(["source", "sha256"], ["kasparro.payload.source", "kasparro.payload.sha256"]),
    Index("delivery_payload", "source", "sha256"),
    Index("delivery_fetched", "source", "fetched_at"),
    Index("delivery_parsed", "source", "parsed_at"),
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

vendor_call = Table(
    "vendor_call",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("day", Date, primary_key=True, comment="UTC"),
    Column("calls", BigInteger, nullable=False, comment="tries included; each is counted before it is made"),
    Column("recent", ARRAY(TIME), nullable=False, comment="the latest of them, for the rate limit of the next run"),
    Column("per_day", BigInteger, comment="the budget that held at its last call; null: none"),
    Column("per_month", BigInteger, comment="the budget that held at its last call; null: none"),
    comment="how often each vendor was asked; what call budgets are kept by",
)

vendor_answer = Table(
    "vendor_answer",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("position", Integer, primary_key=True, comment="place in the sweep, as in delivery"),
    Column("request", Text, nullable=False),
    Column("sha256", KEY, nullable=False, comment="the payload"),
    Column("etag", Text),
    Column("last_modified", Text),
    comment="what the vendor calls the version of its last answer, to ask whether there is a newer one",
)

last_sweep = Table(
    "last_sweep",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("asked", Text, nullable=False, comment="address and parameters; coins of other ones are not compared"),
    Column("finished_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("coins", ARRAY(KEY), nullable=False, comment="source_coin_id of every coin there was"),
    comment="the coins of each source's last whole sweep, to tell what has vanished",
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
    Column("withdrawn_at", TIME, comment="when its file was delivered without it; null: still delivered"),
    # Time before coin: a day is one range of the index, and a new snapshot is appended at its end.
    PrimaryKeyConstraint("source", "observed_at", "source_coin_id"),
    Index("observation_withdrawn", "source", "observed_at", postgresql_where=text("withdrawn_at IS NOT NULL")),
    postgresql_partition_by="RANGE (observed_at)",
    info={BY_MONTH: "observed_at"},
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
    Index("quarantine_newest", text("created_at DESC"), text("id DESC")),
    Index("quarantine_newest_of_source", "source", text("created_at DESC"), text("id DESC")),
)

source_field = Table(
    "source_field",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("scope", KEY, primary_key=True, comment="the file whose header it is; empty for an API"),
    Column("path", KEY, primary_key=True, comment="dotted path in a record, or header name"),
    Column("types", ARRAY(KEY), nullable=False, comment="types of its values so far, null left out, sorted"),
    Column("share", Numeric, nullable=False, comment="of the records of the payload it was learned from, 0 to 1"),
    Column("example", Text),
    Column("present", Boolean, nullable=False, comment="whether it is part of the shape now"),
    Column("first_seen", TIME, nullable=False, comment="fetched_at of the payload"),
    Column("last_seen", TIME, nullable=False, comment="of the newest payload whose shape was looked at and has it"),
    comment="the fields of each source's records, learned from its first payloads",
)

drift = Table(
    "drift",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("source", KEY, nullable=False),
    Column("scope", KEY, nullable=False, comment="as in source_field"),
    Column("path", KEY, nullable=False),
    Column("kind", KEY, nullable=False, comment="new, missing, retyped or renamed"),
    Column("severity", KEY, nullable=False, comment="error: a key field; warn: a mapped one; info: not mapped"),
    Column("mapped_column", KEY, comment="column of an observation that is read from it"),
    Column("renamed_to", KEY, comment="what a missing field became, as far as can be guessed"),
    Column("confidence", Numeric, comment="of that guess, 0 to 1"),
    Column("example", Text, comment="a value of the field (of the new one, when renamed)"),
    Column("detail", Text, nullable=False),
    Column("first_seen", TIME, nullable=False, comment="fetched_at of the payload that showed it first"),
    Column("last_seen", TIME, nullable=False),
    Column("payload_sha256", KEY, nullable=False, comment="the payload that showed it first"),
    Column("resolved_at", TIME, comment="fetched_at of the payload that is as before again"),
    Column("run_id", Text),
    Index("drift_open", "source", "scope", "path", "kind", unique=True, postgresql_where=text("resolved_at IS NULL")),
    comment="what changed in the shape of a source's records",
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


def _listed_columns() -> list[Column[object]]:
    return [
        Column("listed", Boolean, nullable=False, comment="it is in the newest list, and not marked as inactive there"),
        Column("first_listed_at", TIME, nullable=False, info=NOT_COMPARED, comment="fetched_at of its first list"),
        Column("unlisted_at", TIME, info=NOT_COMPARED, comment="fetched_at of the list that ended it; null: listed"),
        Column("payload_sha256", KEY, nullable=False, info=NOT_COMPARED, comment="the list that said so first"),
        Column("position", BigInteger, nullable=False, info=NOT_COMPARED, comment="record in it, from 1"),
    ]


coin_listing = Table(
    "coin_listing",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("source_coin_id", KEY, primary_key=True),
    Column("symbol", Text),
    Column("name", Text),
    *_listed_columns(),
    comment="the coins in each vendor's own list, those without a price too",
)

coin_contract = Table(
    "coin_contract",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("source_coin_id", KEY, primary_key=True),
    Column("chain", KEY, primary_key=True, comment="as CoinGecko calls it, where that is known"),
    Column("address", KEY, primary_key=True, comment="in lower case on chains whose addresses have none"),
    Column("platform", KEY, nullable=False, comment="what the source calls the chain"),
    *_listed_columns(),
    Index("coin_contract_address", "address"),
    comment="the contract addresses that each vendor gives for its coins",
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
    Index("source_run_started", text("started_at DESC"), "run_id"),
    Index("source_run_status", "status", "source", text("started_at DESC")),
    comment="what each run did for each source; a run that was killed stays running until the next one",
)

touched_day = Table(
    "touched_day",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("day", Date, nullable=False),
    Column("source", KEY, comment="of the coins; null: every coin of the day"),
    Column("source_coin_ids", ARRAY(KEY), comment="the coins touched, as the source calls them; null: all"),
    Column(
        "by_history",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="only a day before was touched, so no day after has to follow",
    ),
    Column("touched_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    comment="days, and of which coins, whose observations or identities changed since they were last unified",
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

coin_identity_history = Table(
    "coin_identity_history",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("source_coin_id", KEY, primary_key=True),
    Column("valid_from", TIME, primary_key=True, comment="when this was first decided"),
    Column("valid_to", TIME, comment="when something else was decided; null: holds"),
    Column("coin_id", KEY, nullable=False),
    Column("symbol", Text, comment="what the source called it then"),
    Column("name", Text),
    Column("listed", Boolean, nullable=False, comment="false: not in its vendor's list, or silent for a week"),
    Column("method", KEY, nullable=False),
    Column("confidence", Numeric, nullable=False),
    Column("evidence", Text, nullable=False),
    Index("coin_identity_history_coin", "coin_id"),
    Index(
        "coin_identity_history_now", "source", "source_coin_id", unique=True, postgresql_where=text("valid_to IS NULL")
    ),
    comment="what each source's coin was taken for, and from when to when",
)

reused_id = Table(
    "reused_id",
    metadata,
    Column("source", KEY, primary_key=True),
    Column("source_coin_id", KEY, primary_key=True),
    Column("until", TIME, primary_key=True, comment="its observations before this are of the coin that it was"),
    Column("since", TIME, comment="and from this on; null: from the beginning"),
    Column("was_source", KEY, nullable=False, comment="a coin that it was one with then: it is what this is"),
    Column("was_source_coin_id", KEY, nullable=False),
    Column("found_at", TIME, nullable=False, server_default=func.now()),
    ForeignKeyConstraint(
        ["was_source", "was_source_coin_id"],
        ["kasparro.coin_identity.source", "kasparro.coin_identity.source_coin_id"],
        deferrable=True,
        initially="DEFERRED",
    ),
    comment="ids that a source has given to another coin, and what they were until then",
)
"""By it the views ``coin_identity_past`` and ``coin_identity_span`` say which coin an observation of its time is of."""


def _two_coins() -> list[Column[str]]:
    return [
        Column(name, KEY, nullable=False)
        for name in ("source", "source_coin_id", "other_source", "other_source_coin_id")
    ]


identity_review = Table(
    "identity_review",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    *_two_coins(),
    Column("reason", KEY, nullable=False, comment="why they were not joined"),
    Column("confidence", Numeric, nullable=False, comment="expected share of such pairs that are one coin"),
    Column("evidence", Text, nullable=False),
    Column("created_at", TIME, nullable=False, server_default=func.now()),
    UniqueConstraint("source", "source_coin_id", "other_source", "other_source_coin_id"),
    Index("identity_review_order", text("confidence DESC"), "id"),
    comment="pairs of coins that may be one and wait for a person",
)

identity_decision = Table(
    "identity_decision",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("ruling", KEY, nullable=False, comment="same, different or renamed"),
    *_two_coins(),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("decided_at", TIME, nullable=False, server_default=func.now()),
    Column("undone_at", TIME, comment="null: it holds"),
    Column("undone_by", Text),
    Column("undone_why", Text),
    comment="what persons have said of two coins; of two that hold on one pair the later counts",
)


def _unified_columns(*, is_key: bool) -> list[Column[object]]:
    return [
        Column("coin_id", KEY, primary_key=is_key, nullable=False, info={"from": ("source", "source_coin_id")}),
        Column("day", Date, primary_key=is_key, nullable=False, info={"from": ("observed_at",)}),
        Column("symbol", Text),
        Column("name", Text),
        *_numbers(*GUARDED[:-1]),
        Column("rank", BigInteger),
        Column("price_source", KEY, comment="the source price_usd is from", info={"from": ("source", "price_usd")}),
        Column(
            "source_count",
            Integer,
            nullable=False,
            comment="sources that gave a price for the day",
            info={"from": ("price_usd",)},
        ),
        Column(
            "sources",
            ARRAY(KEY),
            nullable=False,
            comment="all sources with an observation of the day, sorted",
            info={"from": ("source",)},
        ),
        Column(
            "price_spread_pct",
            Numeric,
            comment="(highest - lowest) / median of the sources' prices, in percent",
            info={"from": ("price_usd", "observed_at")},
        ),
        Column("flags", ARRAY(KEY), nullable=False, info={"from": (*GUARDED, "observed_at")}),
        Column("observed_at", TIME, nullable=False, comment="when the chosen price was observed"),
    ]


unified_assets = Table(
    "unified_assets",
    metadata,
    *_unified_columns(is_key=True),
    Column("updated_at", TIME, nullable=False, server_default=func.now(), onupdate=func.now(), info=NOT_COMPARED),
    Index("unified_assets_day", text("day DESC"), "coin_id"),
    Index("unified_assets_symbol", text("lower(symbol)"), text("day DESC"), "coin_id"),
)

unified_assets_history = Table(
    "unified_assets_history",
    metadata,
    *_unified_columns(is_key=False),
    Column("updated_at", TIME, nullable=False, comment="since when the row was believed"),
    Column("superseded_at", TIME, nullable=False, comment="until when"),
    PrimaryKeyConstraint("coin_id", "day", "superseded_at"),
    Index("unified_assets_history_day", text("day DESC"), "coin_id"),
    Index("unified_assets_history_superseded", "superseded_at"),
    comment="rows that unified_assets had; kept by its triggers, read by unified_assets_as_of()",
)

unified_change = Table(
    "unified_change",
    metadata,
    Column("began_at", TIME, primary_key=True, comment="start of the transaction: what its rows have as updated_at"),
    Column("committed_at", TIME, nullable=False, comment="set by a trigger at the moment of the commit"),
    comment="transactions that changed unified_assets: from when on others saw what they wrote",
)

unified_day = Table(
    "unified_day",
    metadata,
    Column("day", Date, primary_key=True),
    Column("rule_version", KEY, nullable=False),
    Column("priorities", JSONB, nullable=False, comment="of the sources then, by source"),
    Column("run_id", Text, comment="the Dagster run that made the day last"),
    Column("unified_at", TIME, nullable=False, server_default=func.now()),
    comment="by which rule, and when, the rows of each day were made or found unchanged last",
)

kept_since = Table(
    "kept_since",
    metadata,
    Column("table_name", KEY, primary_key=True),
    Column("since", TIME, nullable=False),
    comment="from when on a table of the past is whole; what is older was pruned",
)

failed_check = Table(
    "failed_check",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("asset_key", KEY, nullable=False),
    Column("check_name", KEY, nullable=False),
    Column("day", Date, comment="null: the table as a whole"),
    Column("severity", KEY, nullable=False, comment="error or warning"),
    Column("blocking", Boolean, nullable=False, comment="the day is not unified until the check passes"),
    Column("detail", Text, nullable=False),
    Column("run_id", Text),
    Column("checked_at", TIME, nullable=False, server_default=func.now()),
    comment="what the last evaluation of each check found wrong; empty when all is well",
)

incident = Table(
    "incident",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "kind", KEY, nullable=False, comment="run_failed, late, check_failed, drift, budget_spent or quarantine_grown"
    ),
    Column("subject", KEY, nullable=False, comment="what it is about: a job, a source, a check"),
    Column("summary", Text, nullable=False, comment="one line for people, as it was when it opened"),
    Column("run_id", Text, comment="the Dagster run that shows it, where there is one"),
    Column("opened_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("resolved_at", TIME, comment="null: it is open"),
    Index("incident_open", "kind", "subject", unique=True, postgresql_where=text("resolved_at IS NULL")),
    comment="what went wrong and somebody was, or is to be, told of",
)

incident_notice = Table(
    "incident_notice",
    metadata,
    Column("incident_id", BigInteger, primary_key=True),
    Column("news", KEY, primary_key=True, comment="opened or recovered"),
    Column("channel", KEY, primary_key=True, comment="webhook or email"),
    Column("sent_at", TIME, comment="null until it was delivered"),
    Column("tries", Integer, nullable=False, server_default=text("0"), comment="that failed"),
    Column("next_try_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    ForeignKeyConstraint(["incident_id"], ["kasparro.incident.id"], ondelete="CASCADE"),
    Index("incident_notice_unsent", "channel", "next_try_at", postgresql_where=text("sent_at IS NULL")),
    comment="what each channel is to be told, written with the incident, and whether it was",
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

run_request = Table(
    "run_request",
    metadata,
    Column("request_id", Text, primary_key=True, comment="tag kasparro/request of the runs launched for it"),
    Column("key_id", KEY, nullable=False, comment="the API key that asked"),
    Column("idempotency_key", KEY, comment="given by the caller; null: none"),
    Column("body_sha256", LargeBinary, nullable=False),
    Column("requested_at", TIME, nullable=False, server_default=func.clock_timestamp()),
    Column("claimed_until", TIME, nullable=False, comment="until then somebody is at work on it"),
    Column("runs", JSONB, comment="the answer; null: not yet"),
    UniqueConstraint("key_id", "idempotency_key"),
    Index("run_request_requested", "requested_at"),
    comment="loads that the API was asked for in the last day; the one table that it writes",
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

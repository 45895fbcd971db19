"""What travels between fetching, keeping and parsing.

`Payload` is what a fetcher yields and the raw payload IO manager keeps; `Delivery` is the same thing read back;
`ParsedPayload` is what a parser makes of one delivery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pyarrow as pa

OBSERVATION_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("source_coin_id", pa.string(), nullable=False),
        pa.field("observed_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("symbol", pa.string()),
        pa.field("name", pa.string()),
        *(
            pa.field(column, pa.string())
            for column in (
                "price_usd",
                "market_cap_usd",
                "volume_24h_usd",
                "circulating_supply",
                "total_supply",
                "max_supply",
            )
        ),
        pa.field("rank", pa.int64()),
        pa.field("fetched_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("payload_sha256", pa.string(), nullable=False),
        pa.field("position", pa.int64(), nullable=False),
    ]
)
"""Observations on their way into the database. Number columns hold the source's own digits as text (``1e-9`` and
``44456.514304206`` as they came), so that no float is ever in between; PostgreSQL reads them as NUMERIC.
`position` is the record's place in its payload, from 1; for CSV it is the line within the block."""

NUMBER_COLUMNS = (
    "price_usd",
    "market_cap_usd",
    "volume_24h_usd",
    "circulating_supply",
    "total_supply",
    "max_supply",
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a source's partition has been read once the payload that carries it is kept."""

    cursor: Mapping[str, Any]
    """Where to go on, in the fetcher's own terms; JSON."""
    complete: bool
    """True once there is nothing more to read."""


@dataclass(frozen=True, slots=True)
class Payload:
    """The exact bytes one request returned, or one line-aligned block of a CSV file."""

    source: str
    partition: str
    position: int
    """Place within the partition's sweep, from 0: page number - 1, or index of the block."""
    fetched_at: datetime
    """Aware, UTC."""
    body: bytes
    request: str
    """URL without secrets, or the file's path below the drop folder."""
    first_record: int = 1
    """Line of the file on which a CSV block starts; 1 otherwise."""
    checkpoint: Checkpoint | None = None
    is_ascii: bool | None = None
    """No byte of it is beyond ASCII; None: nobody has looked."""
    problem: str | None = None
    """Reason code and sentence, ``archive: …``, where the file could not be read and `body` is only its beginning."""
    source_coin_id: str | None = None
    """The coin that a history answer is about; None: the payload names its coins."""
    version: Version | None = None
    """What the vendor calls this version of its answer, to ask next time whether there is a newer one."""


@dataclass(frozen=True, slots=True)
class Version:
    """A vendor's name for one version of an answer: the headers ``ETag`` and ``Last-Modified``, as they came."""

    etag: str | None
    last_modified: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A payload as it was delivered once, read back from the database."""

    source: str
    partition: str
    position: int
    fetched_at: datetime
    sha256: str
    request: str
    first_record: int
    body: bytes
    source_coin_id: str | None = None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that could not become an observation."""

    position: int
    """The record's place in its payload, from 1 (0: the payload as a whole)."""
    location: str
    """For people: ``kaggle/coin_Bitcoin.csv:1057`` or ``https://… record 12``."""
    reason_code: str
    """Short and stable, such as ``bad_number``, ``ragged_row``, ``future_day``, ``conflict``."""
    reason: str
    """One sentence that names field, value and what to do where that is known."""
    record: str
    """The record as it came; NUL characters written as ``\\x00``."""


@dataclass(frozen=True, slots=True)
class ParsedPayload:
    """What one payload holds: ``records == observations.num_rows + duplicates + len(quarantined)``."""

    observations: pa.Table
    """Columns and types of `OBSERVATION_SCHEMA`; keys unique within the table."""
    records: int
    duplicates: int
    """Records equal to another one of the same payload."""
    quarantined: list[Quarantined] = field(default_factory=list)

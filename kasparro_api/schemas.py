"""What the answers look like. Documentation: PostgreSQL writes the bodies, tests hold them against these models."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Decimal = Annotated[
    str,
    Field(
        pattern=r"^-?\d+(\.\d+)?$",
        description="Exact decimal as a string, with every digit the source gave; never rounded, no exponent.",
        examples=["0.000000000000000001"],
    ),
]


class Answer(BaseModel):
    """What every answer of ours has in common."""

    model_config = ConfigDict(extra="forbid")


class Metadata(Answer):
    """About the answer."""

    request_id: str = Field(description="As in the header `X-Request-ID`.", examples=["6f1c0d3f5b0e4f51"])
    api_latency_ms: float = Field(description="Time spent in the service, database included.", examples=[2.417])


class PageMetadata(Metadata):
    """About a page."""

    count: int = Field(description="Rows on this page.", examples=[100])
    limit: int = Field(description="Rows a page may have.", examples=[100])
    next_cursor: str | None = Field(
        description="Give it as `cursor` for the next page; null on the last.",
        examples=["WyIyMDI2LTExLTAxIiwiYml0Y29pbiJd"],
    )


class UnifiedRow(Answer):
    """One coin on one day, chosen by rule among the observations of that day."""

    coin_id: str = Field(examples=["bitcoin"])
    day: date = Field(description="UTC.", examples=["2026-11-01"])
    symbol: str | None = Field(examples=["BTC"])
    name: str | None = Field(examples=["Bitcoin"])
    price_usd: Decimal | None = Field(examples=["67187.3358936566"])
    market_cap_usd: Decimal | None
    volume_24h_usd: Decimal | None
    circulating_supply: Decimal | None
    total_supply: Decimal | None
    max_supply: Decimal | None
    rank: int | None = Field(examples=[1])
    price_source: str | None = Field(description="The source `price_usd` is from.", examples=["coingecko"])
    source_count: int = Field(description="Sources that gave a price for the day.", examples=[2])
    sources: list[str] = Field(
        description="All sources with an observation of the day.", examples=[["coingecko", "coinpaprika"]]
    )
    price_spread_pct: Decimal | None = Field(
        description="(highest - lowest) / median of the sources' prices, in percent.", examples=["0.031"]
    )
    flags: list[str] = Field(description="What is odd about the row.", examples=[[]])
    observed_at: datetime = Field(description="When the chosen price was observed; UTC.")
    updated_at: datetime = Field(description="When the row was last written; UTC.")


class DataPage(Answer):
    """A page of the unified asset table."""

    metadata: PageMetadata
    data: list[UnifiedRow]


class Verdict(Answer):
    """What one source said of one field, and what became of it."""

    source: str
    value: str | None = Field(description="As it was said, numbers as exact decimals.", examples=["67187.3358936566"])
    verdict: Literal["chosen", "later_priority", "stale", "outlier", "no_value"] = Field(
        description="`chosen`; or why not: a source of a higher priority had a value, the value was old while others "
        "were fresh, it was an outlier, or there was none."
    )
    median: Decimal | None = Field(
        description="Of the fresh sources' values; only where they were far apart or jumped, and so were compared."
    )
    usual: Decimal | None = Field(description="What the value was compared with of the three days before; likewise.")


class IdentityOf(Answer):
    """Why the source's coin is this coin."""

    method: str = Field(examples=["symbol+name"])
    confidence: Decimal
    evidence: str


class ObservationOf(Answer):
    """A source's word of the day."""

    source: str
    source_coin_id: str
    observed_at: datetime
    symbol: str | None
    name: str | None
    price_usd: Decimal | None
    market_cap_usd: Decimal | None
    volume_24h_usd: Decimal | None
    circulating_supply: Decimal | None
    total_supply: Decimal | None
    max_supply: Decimal | None
    rank: int | None
    fetched_at: datetime
    payload_sha256: str = Field(description="The bytes are at `/payloads/{sha256}`.")
    position: int = Field(description="Record in the payload, from 1; of a CSV block, the line.")
    identity: IdentityOf


class DeliveryOf(Answer):
    """When and how a payload was delivered, and which runs took it in."""

    partition: str
    position: int = Field(description="Page or block, from 0.")
    fetched_at: datetime
    request: str = Field(description="URL without secrets, or path below the drop folder.")
    first_record: int = Field(description="Line of the file on which a CSV block starts, else 1.")
    run_id: str | None = Field(description="The Dagster run that fetched it.")
    parser_version: str | None
    parsed_at: datetime | None
    parse_run_id: str | None = Field(description="The Dagster run that parsed it.")


class PayloadOf(Answer):
    """A payload that an observation was in."""

    source: str
    sha256: str
    size_bytes: int
    deliveries: list[DeliveryOf] | None = Field(description="The newest first, no more than 20.")


class UnifiedBy(Answer):
    """What made the row's day, or found it unchanged, last."""

    rule_version: str
    run_id: str | None = Field(description="The Dagster run.")
    unified_at: datetime
    changing: bool = Field(description="Something has arrived since that may change the row; it is made again soon.")


class Lineage(Answer):
    """Where one row came from."""

    metadata: Metadata
    row: UnifiedRow
    fields: dict[str, list[Verdict]] = Field(description="By column, the sources in the order in which they are taken.")
    observations: list[ObservationOf]
    payloads: list[PayloadOf]
    unified_by: UnifiedBy | None


RunStatus = Literal["running", "success", "failure"]


class LastRun(Answer):
    """The newest run that touched a source."""

    run_id: str
    status: RunStatus
    started_at: datetime
    ended_at: datetime | None
    error: str | None


class SourceHealth(Answer):
    """How a source's runs went."""

    last_run: LastRun
    last_success_at: datetime | None
    last_failure_at: datetime | None
    failing: bool = Field(description="Whether the newest finished run failed.")


class DatabaseHealth(Answer):
    """Whether the database serves us."""

    reachable: bool = Field(description="Whether it answers and data can be read from it.")
    detail: str | None = Field(description="What is wrong and what to do; null when nothing is.")


class FailedCheck(Answer):
    """What a check found when it looked last."""

    asset_key: str = Field(examples=["coingecko/observations"])
    check: str = Field(examples=["no_future_day"])
    day: date | None = Field(description="Null: the table as a whole.")
    severity: Literal["error", "warning"] = Field(description="An error makes the service `degraded`.")
    blocking: bool = Field(description="The day is not unified until the check passes.")
    detail: str
    run_id: str | None = Field(description="The Dagster run that looked.")
    checked_at: datetime


class Health(Answer):
    """`ok`; `degraded`: data is served, a source's last run or a check failed; `unavailable`: no database, no data."""

    status: Literal["ok", "degraded", "unavailable"]
    metadata: Metadata
    database: DatabaseHealth
    sources: dict[str, SourceHealth]
    failed_checks: list[FailedCheck] = Field(description="Errors first, newest day first, no more than 100.")


class Count(Answer):
    """A number of rows."""

    count: int = Field(examples=[1000000])
    exact: bool = Field(description="Counted; false: the planner's estimate, because the table is large.")


class DeliveryStats(Answer):
    """Sums over the last parse of every delivery of a source."""

    count: int = Field(description="Payloads delivered, known ones too.")
    records: int
    inserted: int
    updated: int
    unchanged: int
    quarantined: int


class PayloadStats(Answer):
    """Payloads kept."""

    count: int
    bytes: int = Field(description="As they came.")
    stored_bytes: int = Field(description="Compressed.")


class QuarantineStats(Answer):
    """Records that could not become observations."""

    count: int
    by_reason: dict[str, int] = Field(examples=[{"bad_number": 3}])


class RunStep(Answer):
    """What a run did for one asset of a source."""

    run_id: str
    asset_key: str
    partition: str
    status: RunStatus
    started_at: datetime
    ended_at: datetime | None
    duration_s: float | None
    error: str | None
    records: int | None
    inserted: int | None
    updated: int | None
    unchanged: int | None
    quarantined: int | None


class RunStats(Answer):
    """The runs of a source, step by step."""

    last_success: RunStep | None
    last_failure: RunStep | None
    recent: list[RunStep] = Field(description="The newest steps, newest first.")


class SourceStats(Answer):
    """What a source has brought."""

    observations: Count
    deliveries: DeliveryStats | None
    payloads: PayloadStats | None
    quarantine: QuarantineStats | None
    runs: RunStats | None


class UnifiedStats(Answer):
    """The unified asset table."""

    rows: Count
    first_day: date | None
    last_day: date | None
    last_updated_at: datetime | None


class Stats(Answer):
    """What was processed, by source, and what came of it."""

    metadata: Metadata
    sources: dict[str, SourceStats]
    unified_assets: UnifiedStats

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


class Health(Answer):
    """`ok`; `degraded`: data is served, a source's last run failed; `unavailable`: no database, no data."""

    status: Literal["ok", "degraded", "unavailable"]
    metadata: Metadata
    database: DatabaseHealth
    sources: dict[str, SourceHealth]


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

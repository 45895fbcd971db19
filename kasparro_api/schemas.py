"""What the answers look like. Documentation: PostgreSQL writes the bodies, tests hold them against these models."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

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


class Row(Answer):
    """One row of a listing; with ``fields=`` it has only those."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=lambda schema: schema.pop("required", None))


def example_of(row: type[BaseModel]) -> dict[str, Any]:
    """A row made of the fields' examples."""
    return {name: field.examples[0] if field.examples else None for name, field in row.model_fields.items()}


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
        examples=["WyItZGF5IiwiMjAyNi0xMS0wMSIsImJpdGNvaW4iXQ"],
    )
    total: int | None = Field(None, description="Rows in all; only when `count` asks for it.", examples=[1000000])
    total_exact: bool | None = Field(None, description="Whether `total` was counted, not estimated.", examples=[True])


_TIME = "2026-11-01T23:50:00Z"
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class UnifiedRow(Row):
    """One coin on one day, chosen by rule among the observations of that day."""

    coin_id: str = Field(examples=["bitcoin"])
    day: date = Field(description="UTC.", examples=["2026-11-01"])
    symbol: str | None = Field(examples=["BTC"])
    name: str | None = Field(examples=["Bitcoin"])
    price_usd: Decimal | None = Field(examples=["67187.3358936566"])
    market_cap_usd: Decimal | None = Field(examples=["1339902511093.21"])
    volume_24h_usd: Decimal | None = Field(examples=["31260929299.52"])
    circulating_supply: Decimal | None = Field(examples=["19943012"])
    total_supply: Decimal | None = Field(examples=["19943012"])
    max_supply: Decimal | None = Field(examples=["21000000"])
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
    observed_at: datetime = Field(description="When the chosen price was observed; UTC.", examples=[_TIME])
    updated_at: datetime = Field(description="When the row was last written; UTC.", examples=[_TIME])


class ObservationRow(Row):
    """What a source said of one coin at one moment."""

    source: str = Field(examples=["coingecko"])
    source_coin_id: str = Field(description="What the source calls the coin.", examples=["bitcoin"])
    observed_at: datetime = Field(description="UTC.", examples=[_TIME])
    symbol: str | None = Field(examples=["btc"])
    name: str | None = Field(examples=["Bitcoin"])
    price_usd: Decimal | None = Field(examples=["67187.3358936566"])
    market_cap_usd: Decimal | None = Field(examples=["1339902511093.21"])
    volume_24h_usd: Decimal | None = Field(examples=["31260929299.52"])
    circulating_supply: Decimal | None = Field(examples=["19943012"])
    total_supply: Decimal | None = Field(examples=["19943012"])
    max_supply: Decimal | None = Field(examples=["21000000"])
    rank: int | None = Field(examples=[1])
    fetched_at: datetime = Field(description="When the payload was fetched; UTC.", examples=[_TIME])
    payload_sha256: str = Field(description="The payload it was read from.", examples=[_SHA256])
    position: int = Field(description="Record in the payload, from 1.", examples=[1])


class CoinRow(Row):
    """One crypto asset, whatever the sources call it."""

    coin_id: str = Field(examples=["bitcoin"])
    symbol: str | None = Field(examples=["BTC"])
    name: str | None = Field(examples=["Bitcoin"])
    sources: list[str] = Field(description="Sources that know it.", examples=[["coingecko", "coinpaprika"]])
    updated_at: datetime = Field(description="When symbol or name last changed; UTC.", examples=[_TIME])


RunStatus = Literal["running", "success", "failure"]


class RunRow(Row):
    """One Dagster run: the sum of what it did for its sources."""

    run_id: str = Field(examples=["0b1c9f0e-6a52-4a5d-9a3e-1f6d5a7f4d10"])
    status: RunStatus = Field(description="`failure` when any step failed.", examples=["success"])
    sources: list[str] = Field(examples=[["coingecko"]])
    started_at: datetime = Field(description="UTC.", examples=["2026-11-01T23:50:00Z"])
    ended_at: datetime | None = Field(description="UTC; null while it runs.", examples=["2026-11-01T23:50:09.5Z"])
    duration_s: Decimal | None = Field(examples=["9.500"])
    records: int | None = Field(examples=[5000])
    inserted: int | None = Field(examples=[4990])
    updated: int | None = Field(examples=[0])
    unchanged: int | None = Field(examples=[8])
    quarantined: int | None = Field(examples=[2])
    error: str | None = Field(description="Of the steps that failed.", examples=["coins.csv: binary_file"])


class SourceRow(Row):
    """A vendor or drop folder."""

    source: str = Field(examples=["coingecko"])
    coins: int = Field(description="Coins it ever spoke of.", examples=[5000])
    first_observed_at: datetime | None = Field(description="UTC.", examples=["2026-01-01T00:00:00Z"])
    last_observed_at: datetime | None = Field(description="UTC.", examples=[_TIME])
    last_success_at: datetime | None = Field(description="End of its last run that succeeded; UTC.", examples=[_TIME])
    quarantined: int = Field(description="Records in quarantine.", examples=[2])


RowOf = TypeVar("RowOf", bound=Row)


class Page(Answer, Generic[RowOf]):
    """A page of a listing."""

    metadata: PageMetadata
    data: list[RowOf]


DataPage = Page[UnifiedRow]


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


class Identity(Answer):
    """What a source calls a coin, and why that is this coin."""

    source: str = Field(examples=["coingecko"])
    source_coin_id: str = Field(examples=["bitcoin"])
    method: str = Field(examples=["symbol_and_name"])
    confidence: Decimal = Field(description="Expected precision, 0 to 1.", examples=["0.99"])
    evidence: str


class Coin(CoinRow):
    """One crypto asset: who says what of it, and its newest row."""

    identities: list[Identity]
    latest: UnifiedRow | None


class CoinAnswer(Answer):
    """A coin."""

    metadata: Metadata
    data: Coin


class Run(RunRow):
    """One Dagster run and its steps."""

    steps: list[RunStep]


class RunAnswer(Answer):
    """A run."""

    metadata: Metadata
    data: Run


class Alive(Answer):
    """The process answers."""

    status: Literal["ok"]


class Change(Answer):
    """`b` less `a`; null where one of them has none."""

    records: Decimal | None
    inserted: Decimal | None
    updated: Decimal | None
    unchanged: Decimal | None
    quarantined: Decimal | None
    duration_s: Decimal | None


class SourceCoin(Answer):
    """A coin as a source calls it."""

    source: str = Field(examples=["coingecko"])
    source_coin_id: str = Field(examples=["bitcoin"])


class ComparedCoins(Answer):
    """Coins of two runs; the first thousand that are new or vanished are named."""

    a: int
    b: int
    new_count: int
    vanished_count: int
    new: list[SourceCoin]
    vanished: list[SourceCoin]


class PriceAnomaly(SourceCoin):
    """A price that moved unlike the others."""

    price_a: Decimal = Field(examples=["1.0"])
    price_b: Decimal = Field(examples=["9.5"])
    change_pct: Decimal = Field(examples=["850.0000"])
    deviations: Decimal | None = Field(
        description="Scaled median absolute deviations from the median move; null where most prices moved alike.",
        examples=["41.3"],
    )


class Anomalies(Answer):
    """How many there are, and the first thousand."""

    count: int
    prices: list[PriceAnomaly]


class ComparedRuns(Answer):
    """Two runs side by side."""

    a: RunRow
    b: RunRow
    change: Change
    coins: ComparedCoins
    anomalies: Anomalies


class Comparison(Answer):
    """A comparison."""

    metadata: Metadata
    data: ComparedRuns

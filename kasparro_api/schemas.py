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
    pruned: bool = Field(description="Observations that the row rests on are no longer kept; the row stays as it is.")


class Materialized(Answer):
    """When an asset was made last."""

    at: datetime = Field(description="UTC.", examples=["2026-11-01T23:50:09.512Z"])
    run_id: str
    partition: str | None = Field(examples=["2026-11-01"])


class RunOfAsset(Answer):
    """The newest Dagster run that had the asset in it."""

    run_id: str
    status: str = Field(description="Dagster's word.", examples=["success"])


class Asset(Answer):
    """One Dagster asset."""

    asset_key: str = Field(examples=["coingecko/observations"])
    group: str = Field(examples=["observations"])
    kinds: list[str] = Field(examples=[["postgres"]])
    description: str | None
    depends_on: list[str] = Field(description="Asset keys.", examples=[["coingecko/raw"]])
    partitions: Literal["day", "drop"] | None = Field(description="Null: it has none.")
    last_materialization: Materialized | None
    running: bool = Field(description="Whether a run is making it now.")
    queued: bool = Field(description="Whether a run that will make it waits.")
    staleness: Literal["fresh", "stale", "missing"] = Field(
        description="Of what was made last. `stale`: its code, or what it stands on, has changed since."
    )
    failed_checks: int = Field(description="What they found is under `/health`.")
    last_run: RunOfAsset | None
    health: Literal["healthy", "warning", "degraded", "unknown"]


class AssetGraph(Answer):
    """The assets, by key."""

    metadata: Metadata
    data: list[Asset]


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


class QuarantineRow(Row):
    """A record that could not become an observation."""

    id: int = Field(examples=[7])
    source: str = Field(examples=["csv_exchange"])
    payload_sha256: str = Field(description="The payload that holds it.", examples=["ab" * 32])
    position: int = Field(description="Record in the payload, from 1; 0: the payload as a whole.", examples=[16])
    location: str = Field(description="File and line, or request and record.", examples=["exchange/2026-10.csv:17"])
    reason_code: str = Field(examples=["bad_number"])
    reason: str = Field(examples=["price_usd: 'twelve' is not a plain decimal number"])
    record: str = Field(description="As it came, at most 16 KiB of it; bytes that are no text are escaped.")
    parser_version: str
    created_at: datetime = Field(description="UTC.")


class DriftRow(Row):
    """A change in the fields of a source's records."""

    id: int = Field(examples=[7])
    source: str = Field(examples=["coinpaprika"])
    scope: str = Field(description="The file whose header it is; empty for an API.")
    path: str = Field(description="Dotted path in a record, or header name.", examples=["quotes.USD.price"])
    kind: Literal["new", "missing", "retyped", "renamed"] = Field(examples=["renamed"])
    severity: Literal["error", "warn", "info"] = Field(
        description="error: a key field; warn: another one that is read; info: one that is not read.", examples=["warn"]
    )
    mapped_column: str | None = Field(description="What the field is read as.", examples=["price_usd"])
    renamed_to: str | None = Field(description="What it became, as far as can be guessed.")
    confidence: Decimal | None = Field(description="Of that guess, 0 to 1.", examples=["0.87"])
    example: str | None = Field(description="A value of the field.")
    detail: str
    first_seen: datetime = Field(description="When the payload that showed it first was fetched; UTC.")
    last_seen: datetime = Field(description="The same of the last one; UTC.")
    payload_sha256: str
    resolved_at: datetime | None = Field(description="When it was as before again; null while it is not.")
    status: Literal["open", "closed"] = Field(description="`closed` once it was as before again.", examples=["open"])


class ReviewRow(Row):
    """Two coins that may be one: plausible and not certain, so not joined."""

    id: int = Field(description="Its number, for `kasparro identity review --accept`.", examples=[7])
    source: str = Field(examples=["coingecko"])
    source_coin_id: str = Field(examples=["bitcoin"])
    other_source: str = Field(examples=["csv_exchange"])
    other_source_coin_id: str = Field(examples=["BTC"])
    reason: str = Field(description="Why they were not joined.", examples=["ambiguous"])
    confidence: Decimal = Field(description="Expected share of such pairs that are one coin.", examples=["0.5"])
    evidence: str
    created_at: datetime = Field(description="Since when it waits; UTC.")


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
    reads_from: Literal["primary", "replica"] = Field(description="Which it is: `replica` with KASPARRO_READ_URL.")
    replica_lag_s: float | None = Field(
        description="Seconds the replica is behind; cut off, the age of the newest change it has. Null: no replica."
    )


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
    """One Dagster run and its steps; none while it is `queued`."""

    status: Literal["queued", "running", "success", "failure"] = Field(  # type: ignore[assignment]
        description="`failure` when any step failed; `queued` until the first one begins.", examples=["success"]
    )
    started_at: datetime | None = Field(description="UTC; null while it is queued.")  # type: ignore[assignment]
    steps: list[RunStep]


class RunAnswer(Answer):
    """A run."""

    metadata: Metadata
    data: Run


class LaunchedRun(Answer):
    """A Dagster run that was asked for."""

    run_id: str = Field(examples=["0b1c9f0e-6a52-4a5d-9a3e-1f6d5a7f4d10"])
    source: str = Field(examples=["coingecko"])
    first_partition: str = Field(description="A day, or a drop.", examples=["2026-11-01"])
    last_partition: str = Field(examples=["2026-11-01"])


class Launched(Answer):
    """The runs that were started."""

    metadata: Metadata
    data: list[LaunchedRun]


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


class Anomaly(SourceCoin):
    """A number that moved unlike the others of its kind."""

    a: Decimal = Field(examples=["1.0"])
    b: Decimal = Field(examples=["9.5"])
    change_pct: Decimal = Field(examples=["850.0000"])
    deviations: Decimal | None = Field(
        description="Scaled median absolute deviations from the median move; null where most of them moved alike.",
        examples=["41.3"],
    )


class AnomaliesOf(Answer):
    """How many there are, and the first thousand, the farthest first."""

    count: int
    coins: list[Anomaly]


class Anomalies(Answer):
    """By column."""

    price_usd: AnomaliesOf
    market_cap_usd: AnomaliesOf
    volume_24h_usd: AnomaliesOf


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

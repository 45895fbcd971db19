"""Mappings, deliveries and small payloads that the tests of this folder share."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from kasparro_pipeline.sources.csv.blocks import read_blocks
from kasparro_pipeline.sources.csv.dialect import CsvDialect, read_dialect, refused_file
from kasparro_pipeline.sources.csv.header import CsvMapping
from kasparro_pipeline.sources.csv.parse import parse_csv
from kasparro_pipeline.sources.json_records import JsonMapping
from kasparro_pipeline.sources.records import Delivery, ParsedPayload, Payload

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)

COINGECKO = JsonMapping(
    columns={
        "source_coin_id": ("id",),
        "observed_at": ("last_updated",),
        "symbol": ("symbol",),
        "name": ("name",),
        "price_usd": ("current_price",),
        "market_cap_usd": ("market_cap",),
        "volume_24h_usd": ("total_volume",),
        "circulating_supply": ("circulating_supply",),
        "total_supply": ("total_supply",),
        "max_supply": ("max_supply",),
        "rank": ("market_cap_rank",),
    }
)
COINPAPRIKA = JsonMapping(
    columns={
        "source_coin_id": ("id",),
        "observed_at": ("last_updated",),
        "symbol": ("symbol",),
        "name": ("name",),
        "price_usd": ("quotes", "USD", "price"),
        "market_cap_usd": ("quotes", "USD", "market_cap"),
        "volume_24h_usd": ("quotes", "USD", "volume_24h"),
        "circulating_supply": ("circulating_supply",),
        "total_supply": ("total_supply",),
        "max_supply": ("max_supply",),
        "rank": ("rank",),
    },
    zero_is_null=frozenset({"market_cap_usd", "circulating_supply", "total_supply", "max_supply"}),
)
CSV = CsvMapping(
    columns={
        "source_coin_id": ("source_coin_id", "id", "coin_id"),
        "symbol": ("symbol", "ticker", "currency"),
        "name": ("name", "coin", "coin name"),
        "quote": ("quote_currency", "currency"),
        "pair": ("pair", "market", "symbol"),
        "observed_at": (
            *("observed_at", "last_updated", "timestamp_utc", "timestamp_ms", "unix", "unix timestamp"),
            *("timestamp", "datetime", "date", "time"),
        ),
        "time_of_day": ("time",),
        "price_usd": ("price_usd", "current_price", "price", "close", "closing price (usd)"),
        "market_cap_usd": ("market_cap_usd", "market_cap", "marketcap", "mkt_cap"),
        "volume_24h_usd": ("volume_24h_usd", "total_volume", "volume_24h", "volume usd", "volume"),
        "circulating_supply": ("circulating_supply",),
        "total_supply": ("total_supply",),
        "max_supply": ("max_supply",),
        "rank": ("rank", "market_cap_rank"),
    }
)


def delivered(payload: Payload) -> Delivery:
    """The payload as it would be read back."""
    return Delivery(
        payload.source,
        payload.partition,
        payload.position,
        payload.fetched_at,
        hashlib.sha256(payload.body).hexdigest(),
        payload.request,
        payload.first_record,
        payload.body,
    )


def delivery(
    body: bytes, request: str = "https://vendor.test/coins", *, position: int = 0, first_record: int = 1
) -> Delivery:
    return delivered(Payload("test", "2026-11-20", position, NOW, body, request, first_record))


def read_csv(body: bytes, request: str = "drop/prices.csv") -> tuple[CsvDialect, ParsedPayload]:
    """Dialect and records of a file of one block."""
    dialect = read_dialect(lambda: [body], CSV, request)
    return dialect, parse_csv(delivery(body, request), dialect)


def read_file(path: Path) -> tuple[CsvDialect, list[ParsedPayload]]:
    """Dialect and records, block by block, of a file."""
    blocks = list(read_blocks(path, source="csv_drops", partition=path.name, request=path.name, fetched_at=NOW))
    dialect = read_dialect(lambda: (block.body for block in blocks), CSV, path.name)
    if blocks[0].problem:
        dialect = refused_file(blocks[0].problem)
    return dialect, [parse_csv(delivered(block), dialect) for block in blocks]

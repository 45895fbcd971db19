"""The vendors' lists as they answer them: which coins there are, their contracts, their prices of a day.

Formats: https://docs.coingecko.com/reference/coins-list, https://docs.coingecko.com/reference/coins-markets,
https://api.coinpaprika.com (``/coins``, ``/contracts/{platform}``, ``/tickers``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.identity.coins import Quote, SourceCoin

COINGECKO, COINPAPRIKA = "coingecko", "coinpaprika"

CHAINS = {
    "bnb-binance-coin": "binance-smart-chain",
    "bnb-binance-smart-chain": "binance-smart-chain",
    "matic-polygon": "polygon-pos",
    "avax-avalanche": "avalanche",
    "arb-arbitrum": "arbitrum-one",
    "op-optimism": "optimistic-ethereum",
    "trx-tron": "tron",
    "sol-solana": "solana",
    "eth-ethereum": "ethereum",
}
"""CoinPaprika's platforms by the names that CoinGecko gives the chains."""


def coingecko_coins(records: Iterable[Any]) -> list[SourceCoin]:
    """Coins of ``/coins/list``, with their contracts when it was asked for with ``include_platform=true``."""
    coins = _coins(COINGECKO, records)
    platforms = {record["id"]: record.get("platforms") or {} for record in records}
    return [replace(coin, contracts=_named(platforms[coin.source_coin_id])) for coin in coins]


def coinpaprika_coins(records: Iterable[Any]) -> list[SourceCoin]:
    """Coins of ``/coins``."""
    return _coins(COINPAPRIKA, records)


def with_contracts(coins: Iterable[SourceCoin], platform: str, records: Iterable[Any]) -> list[SourceCoin]:
    """CoinPaprika's coins with the addresses of ``/contracts/{platform}``."""
    chain = CHAINS.get(platform, platform)
    addresses = {record["id"]: record["address"] for record in records if record.get("id")}
    return [
        replace(coin, contracts={**coin.contracts, chain: addresses[coin.source_coin_id]})
        if coin.source_coin_id in addresses
        else coin
        for coin in coins
    ]


def with_coingecko_quotes(coins: Iterable[SourceCoin], records: Iterable[Any]) -> list[SourceCoin]:
    """Coins with the prices of ``/coins/markets``."""
    return _with_quotes(coins, records, lambda record: (record["current_price"], record["market_cap"]))


def with_coinpaprika_quotes(coins: Iterable[SourceCoin], records: Iterable[Any]) -> list[SourceCoin]:
    """Coins with the prices of ``/tickers``."""
    return _with_quotes(
        coins, records, lambda record: [record["quotes"]["USD"][name] for name in ("price", "market_cap")]
    )


def read_list(file: Path) -> list[Any]:
    """The records of a vendor's answer that is an array; numbers with every digit.

    Raises:
        KasparroError: it cannot be read, or is no array of objects with an ``id``.
    """
    try:
        records = json.loads(file.read_bytes(), parse_float=Decimal)
    except (OSError, ValueError) as error:
        raise KasparroError(f"{file}: cannot be read as JSON: {error}") from error
    if not isinstance(records, list) or not all(isinstance(r, dict) and isinstance(r.get("id"), str) for r in records):
        raise KasparroError(f"{file}: not a vendor's list: an array of objects with an id")
    return records


def _coins(source: str, records: Iterable[Any]) -> list[SourceCoin]:
    by_id = {record["id"]: record for record in records}
    return [SourceCoin(source, key, record.get("symbol"), record.get("name")) for key, record in by_id.items()]


def _named(platforms: Mapping[str, str | None]) -> dict[str, str]:
    return {chain: contract for chain, contract in platforms.items() if chain and contract}


def _with_quotes(
    coins: Iterable[SourceCoin], records: Iterable[Any], read: Callable[[Any], Iterable[Any]]
) -> list[SourceCoin]:
    quotes: dict[str, Quote] = {}
    for record in records:
        price, cap = read(record)
        updated = record.get("last_updated")
        if price is not None and updated:
            day = datetime.fromisoformat(updated).astimezone(UTC).date()
            quotes[record["id"]] = Quote(day, Decimal(price), Decimal(cap) if cap else None)
    return [replace(coin, quote=quotes.get(coin.source_coin_id)) for coin in coins]

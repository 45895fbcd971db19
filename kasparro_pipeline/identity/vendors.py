"""The vendors' coins from files of their answers: as listed, with their contracts, with their prices of a day.

Formats of prices: https://docs.coingecko.com/reference/coins-markets, https://api.coinpaprika.com (``/tickers``).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.identity.coins import Quote, SourceCoin
from kasparro_pipeline.identity.contracts import Claim, evidence_of

COINGECKO, COINPAPRIKA = "coingecko", "coinpaprika"


def coins_of(source: str, listed: Iterable[tuple[str, str | None, str | None]]) -> list[SourceCoin]:
    """Coins of a list: id, symbol and name of each."""
    return [SourceCoin(source, *words) for words in listed]


def with_contracts(coins: Iterable[SourceCoin], claims: Iterable[Claim]) -> list[SourceCoin]:
    """Coins with those of the addresses that are evidence."""
    found = evidence_of(claims)
    return [replace(coin, contracts=found.get(coin.key, {})) for coin in coins]


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

"""How good identity is: what it makes of two vendors' lists, held against pairs that are known to be one coin."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.identity.coins import Ruling, SourceCoin
from kasparro_pipeline.identity.match import identify
from kasparro_pipeline.identity.vendors import COINGECKO, COINPAPRIKA

Pair = tuple[str, str]
"""A CoinGecko id and a CoinPaprika id."""

COUNTED = ("", "0")
"""What `ambiguous` says of a pair that counts."""


@dataclass(slots=True)
class Measure:
    """Pairs joined against pairs known."""

    coingecko: int = 0
    coinpaprika: int = 0
    """Coins of each list."""
    joined: int = 0
    """Pairs joined."""
    by_method: dict[str, int] = field(default_factory=dict)
    open_pairs: int = 0
    known: int = 0
    """Known pairs whose two ids are in both lists."""
    decided: int = 0
    """Joined pairs whose CoinGecko id occurs in the known pairs."""
    right: int = 0
    precision: float | None = None
    """right / decided"""
    recall: float | None = None
    """right / known"""
    decided_either: int = 0
    """Joined pairs of which either id occurs in the known pairs."""
    precision_either: float | None = None
    """right / decided_either"""
    wrong: list[dict[str, Any]] = field(default_factory=list)
    """Joined pairs that contradict a known one, by either id."""
    missed: list[dict[str, Any]] = field(default_factory=list)
    """Known pairs that are not joined; `open`: they wait for a person."""

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def read_known(files: Iterable[Path]) -> set[Pair]:
    """The pairs of CSV files with ``coingecko_id``, ``coinpaprika_id`` and perhaps ``ambiguous``.

    Raises:
        KasparroError: a file cannot be read, or a column is missing.
    """
    known: set[Pair] = set()
    for file in files:
        try:
            with file.open(encoding="utf-8-sig", newline="") as opened:
                known |= {
                    (row["coingecko_id"], row["coinpaprika_id"])
                    for row in csv.DictReader(opened)
                    if (row.get("ambiguous") or "").strip() in COUNTED
                }
        except KeyError as error:
            raise KasparroError(f"{file}: no column {error.args[0]}") from None
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise KasparroError(f"{file}: cannot be read as CSV in UTF-8: {error}") from error
    return known


def measure(coins: Sequence[SourceCoin], known: set[Pair], rulings: Iterable[Ruling] = ()) -> Measure:
    """What identity makes of the coins of CoinGecko and CoinPaprika, against the pairs `known`."""
    matching = identify(coins, rulings, {COINGECKO: 10, COINPAPRIKA: 20}, {})
    members: dict[str, dict[str, tuple[str, str]]] = {}
    for identity in matching.identities:
        members.setdefault(identity.coin_id, {})[identity.source] = (identity.source_coin_id, identity.method)
    joined = {
        (group[COINGECKO][0], group[COINPAPRIKA][0]): group[COINPAPRIKA][1]
        for group in members.values()
        if len(group) == 2
    }
    ids = {source: {coin.source_coin_id: coin for coin in coins if coin.source == source} for source in _SOURCES}
    counted = {pair for pair in known if pair[0] in ids[COINGECKO] and pair[1] in ids[COINPAPRIKA]}
    open_pairs = {(pair.source_coin_id, pair.other_source_coin_id): pair.reason for pair in matching.open}
    result = Measure(
        coingecko=len(ids[COINGECKO]),
        coinpaprika=len(ids[COINPAPRIKA]),
        joined=len(joined),
        by_method=dict(Counter(joined.values()).most_common()),
        open_pairs=len(open_pairs),
        known=len(counted),
        decided=sum(pair[0] in {one for one, _ in counted} for pair in joined),
        right=len(joined.keys() & counted),
    )
    either = _touching(joined, counted)
    result.decided_either = len(either)
    result.precision, result.precision_either, result.recall = (
        round(result.right / count, 6) if count else None
        for count in (result.decided, result.decided_either, result.known)
    )
    told = _Teller(ids[COINGECKO], ids[COINPAPRIKA])
    for pair in sorted(either - counted):
        should = sorted(other for other in counted if other[0] == pair[0] or other[1] == pair[1])
        result.wrong.append(
            {**told.pair(pair), "method": joined[pair], "known": [told.pair(other) for other in should]}
        )
    for pair in sorted(counted - joined.keys()):
        result.missed.append({**told.pair(pair), "open": open_pairs.get(pair)})
    return result


_SOURCES = (COINGECKO, COINPAPRIKA)


def _touching(joined: Iterable[Pair], known: set[Pair]) -> set[Pair]:
    ones, others = {one for one, _ in known}, {other for _, other in known}
    return {pair for pair in joined if pair[0] in ones or pair[1] in others}


class _Teller:
    """Pairs with what the vendors call their coins."""

    def __init__(self, coingecko: dict[str, SourceCoin], coinpaprika: dict[str, SourceCoin]) -> None:
        self._coingecko, self._coinpaprika = coingecko, coinpaprika

    def pair(self, pair: Pair) -> dict[str, Any]:
        one, other = self._coingecko[pair[0]], self._coinpaprika[pair[1]]
        return {COINGECKO: _words(one), COINPAPRIKA: _words(other)}


def _words(coin: SourceCoin) -> dict[str, str | None]:
    return {"id": coin.source_coin_id, "symbol": coin.symbol, "name": coin.name}

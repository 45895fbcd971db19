"""Which sources' coins are the same coin.

A symbol is not an identity: thousands of coins share theirs. So two coins are one only

1. by the curated overrides file (``overrides.csv``), or
2. by symbol *and* name together, where no other coin of either source has both of them.

What has neither stays a coin of its own: a wrong merge is worse than a missed one.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib import resources

CERTAIN = Decimal(1)
SYMBOL_AND_NAME = Decimal("0.99")
"""Expected precision; the few wrong ones are different coins of equal symbol and name, each listed by one source."""

Key = tuple[str, str]
"""Source and source_coin_id."""

_NOT_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class SourceCoin:
    """A coin as one source calls it."""

    source: str
    source_coin_id: str
    symbol: str | None
    name: str | None

    @property
    def key(self) -> Key:
        """What identifies it."""
        return self.source, self.source_coin_id


@dataclass(frozen=True, slots=True)
class Override:
    """A curated word: the source's coin is this coin. `source` may hold ``*``."""

    source: str
    source_coin_id: str
    coin_id: str
    note: str

    def applies_to(self, coin: SourceCoin) -> bool:
        """Whether it speaks of `coin`."""
        return self.source_coin_id == coin.source_coin_id and fnmatchcase(coin.source, self.source)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which coin a source's coin is, and why."""

    source: str
    source_coin_id: str
    coin_id: str
    method: str
    """``override``, ``symbol+name``, or ``own``: nothing links it to another."""
    confidence: Decimal
    """Expected precision, 0 to 1."""
    evidence: str


def curated_overrides() -> list[Override]:
    """The overrides that come with Kasparro."""
    with resources.files(__package__).joinpath("overrides.csv").open(encoding="utf-8") as file:
        return [Override(**row) for row in csv.DictReader(file)]


def identify(
    coins: Iterable[SourceCoin],
    overrides: Iterable[Override],
    priorities: Mapping[str, int],
    existing: Mapping[Key, str],
) -> list[Identity]:
    """An identity for each of `coins`, in the order of their keys; the order they come in does not matter.

    A coin keeps the ``coin_id`` that one of its members has in `existing`. A new one is called by the id of its member
    from the source that is first by `priorities` (lower first; then by name), such as CoinGecko's ``bitcoin``.
    """
    ordered = sorted(coins, key=lambda coin: (priorities.get(coin.source, 1000), coin.key))
    curated = {coin.key: override for override in overrides for coin in ordered if override.applies_to(coin)}
    groups = _groups(ordered, curated, existing)
    taken: set[str] = set()
    found: list[Identity] = []
    named = [(_established(group, curated, existing), group) for group in groups]
    for coin_id, group in sorted(named, key=lambda pair: pair[0] is None):
        chosen = coin_id if coin_id is not None and coin_id not in taken else _new_id(group[0], taken)
        taken.add(chosen)
        found += [_identity(coin, chosen, group, curated) for coin in group]
    return sorted(found, key=lambda identity: (identity.source, identity.source_coin_id))


def _groups(
    ordered: list[SourceCoin], curated: Mapping[Key, Override], existing: Mapping[Key, str]
) -> list[list[SourceCoin]]:
    """Coins that are one, each group in the order given."""
    label_count: dict[tuple[str, str, str], int] = defaultdict(int)
    for coin in ordered:
        if (label := _label(coin)) is not None:
            label_count[coin.source, *label] += 1
    by_label: dict[tuple[str, str], str] = {}
    groups: dict[object, list[SourceCoin]] = defaultdict(list)
    for coin in ordered:
        label = _label(coin)
        unique = label is not None and label_count[coin.source, *label] == 1
        group: object
        if coin.key in curated:
            group = curated[coin.key].coin_id
            if unique and label is not None:
                by_label.setdefault(label, curated[coin.key].coin_id)
        else:
            group = _group_of(coin, label_count)
        groups[group].append(coin)
    for coin_id in {override.coin_id for override in curated.values()}:
        bearer = _bearer(coin_id, ordered, curated, existing)
        if bearer is not None:
            groups[coin_id] += groups.pop(_group_of(bearer, label_count), [])
    for label, coin_id in by_label.items():
        groups[coin_id] += groups.pop(("label", label), [])
    order = {coin.key: index for index, coin in enumerate(ordered)}
    return [sorted(group, key=lambda coin: order[coin.key]) for group in groups.values()]


def _group_of(coin: SourceCoin, label_count: Mapping[tuple[str, str, str], int]) -> object:
    """What a coin without an override is grouped by."""
    label = _label(coin)
    unique = label is not None and label_count[coin.source, *label] == 1
    return ("label", label) if unique else ("own", coin.key)


def _bearer(
    coin_id: str, ordered: list[SourceCoin], curated: Mapping[Key, Override], existing: Mapping[Key, str]
) -> SourceCoin | None:
    """The coin that has a curated `coin_id` without an override: it had it before, or its source's id gives it."""
    free = [coin for coin in ordered if coin.key not in curated]
    held = next((coin for coin in free if existing.get(coin.key) == coin_id), None)
    return held or next((c for c in free if c.key not in existing and _slug(c.source_coin_id) == coin_id), None)


def _slug(text: str) -> str:
    return _NOT_WORD.sub("-", text.casefold()).strip("-")


def _label(coin: SourceCoin) -> tuple[str, str] | None:
    """Symbol and name in the form in which equal ones are equal; None where one of them is missing."""
    if coin.symbol is None or coin.name is None:
        return None
    symbol, name = _plain(coin.symbol), _plain(coin.name)
    return (symbol, name) if symbol and name else None


def _plain(text: str) -> str:
    return _NOT_WORD.sub("", unicodedata.normalize("NFKC", text).casefold())


def _established(group: list[SourceCoin], curated: Mapping[Key, Override], existing: Mapping[Key, str]) -> str | None:
    """The coin_id the group has already: a curated one, else the one its first member had."""
    for coin in group:
        if coin.key in curated:
            return curated[coin.key].coin_id
    return next((existing[coin.key] for coin in group if coin.key in existing), None)


def _new_id(coin: SourceCoin, taken: set[str]) -> str:
    """A readable slug that no other coin has."""
    slug = _slug(coin.source_coin_id) or "coin"
    candidates = [slug, f"{slug}-{_NOT_WORD.sub('-', coin.source)}"]
    number = 2
    while candidates[0] in taken:
        candidates.pop(0)
        if not candidates:
            candidates.append(f"{slug}-{number}")
            number += 1
    return candidates[0]


def _identity(coin: SourceCoin, coin_id: str, group: list[SourceCoin], curated: Mapping[Key, Override]) -> Identity:
    override = curated.get(coin.key)
    if override is not None:
        return Identity(*coin.key, coin_id, "override", CERTAIN, override.note)
    if len(group) == 1:
        return Identity(*coin.key, coin_id, "own", CERTAIN, "nothing links it to a coin of another source")
    others = ", ".join(f"{other.source} {other.source_coin_id}" for other in group if other is not coin)
    evidence = f"{coin.symbol} {coin.name} is unique in each source: {others}"
    return Identity(*coin.key, coin_id, "symbol+name", SYMBOL_AND_NAME, evidence)

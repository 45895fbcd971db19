"""The rules by which two coins of different sources are one, strongest first, and how far each can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from kasparro_pipeline.identity.coins import SourceCoin
from kasparro_pipeline.identity.names import Label, alike

SAME_PRICE, SAME_CAP = Decimal("1.05"), Decimal("1.5")
"""Two vendors' words of one coin and day are closer together than these factors."""
OTHER_PRICE = Decimal(2)
"""Words of one day further apart than this factor are of different coins, until a person says otherwise."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A kind of evidence. A pair is joined where each of the two has no other partner by the same rule."""

    method: str
    confidence: Decimal
    """Expected precision: the share of the pairs it joins that are one coin, lists of the same time assumed.
    For a rule that does not join: the expected share of its pairs that are one."""
    told: str
    joins: bool = True


CONTRACT = Rule("contract", Decimal("0.999"), "the contract address on a chain is equal")
NAME_ID = Rule("symbol+name+id", Decimal("0.998"), "symbol, name and id are equal")
NAME_SLUG = Rule("symbol+name+slug", Decimal("0.995"), "symbol, name and id are equal but for punctuation")
NAME = Rule("symbol+name", Decimal("0.99"), "symbol and name are equal")
SLUG = Rule("symbol+slug", Decimal("0.99"), "symbol and id are equal")
CORE = Rule("symbol+core", Decimal("0.96"), "symbol and name are equal but for generic words")
RENAMED = Rule("name+slug", Decimal("0.94"), "name and id are equal, the symbol is another")
SLUG_ALIKE = Rule("slug", Decimal("0.92"), "the id is equal, symbol and name are others")
NAME_ALIKE = Rule("name", Decimal("0.9"), "the name is equal, the symbol alike")
PRICE = Rule("price", Decimal("0.97"), "symbol or name are equal, and price and market cap of the day agree")
CORE_SYMBOL = Rule("symbol+kind", Decimal("0.88"), "the symbol is equal, and name or id is no more than it")
RARE_WORD = Rule("symbol+word", Decimal("0.86"), "the symbol is equal, and the names share a rare word")
NUMBERED_NAME = Rule(
    "symbol+name-number", Decimal("0.93"), "symbol and name are equal, and the id of one ends in a number"
)
NAMESAKE = Rule("namesake", Decimal("0.5"), "the name is equal, a common one, and the symbol is another", joins=False)
NUMBERED = Rule("numbered", Decimal("0.5"), "the id of one ends in a number, as those of later namesakes", joins=False)
SYMBOL = Rule("symbol", Decimal("0.2"), "the symbol is equal", joins=False)

RULES = (
    *(CONTRACT, NAME_ID, NAME_SLUG, NAME, SLUG, CORE, RENAMED, SLUG_ALIKE, NAME_ALIKE, PRICE),
    *(NUMBERED_NAME, CORE_SYMBOL, RARE_WORD),
    *(NAMESAKE, NUMBERED, SYMBOL),
)
NEEDS_UNIQUE_SYMBOL = frozenset((CORE_SYMBOL, RARE_WORD))
"""Rules that stand on a symbol that neither source has twice."""
NEEDS_TRUST = NEEDS_UNIQUE_SYMBOL | {NUMBERED_NAME}
"""Rules that count between lists of the same time only: over the years symbols and names are given again."""
PROVEN_BY_PRICE = NEEDS_TRUST | {NAMESAKE, NUMBERED, SYMBOL}
"""Rules that are weak by themselves, and that price and market cap of one day make certain."""
NEEDS_TELLING_NAME = frozenset((RENAMED, NAME_ALIKE))
"""Rules that stand on a name that is not given twice by chance."""


def rule_of(one: Label, other: Label) -> Rule | None:
    """The strongest rule by which the words of two coins make them one; None: no reason to think so."""
    if one.derived != other.derived:  # a wrapped coin of a staked one is open, with the coin itself it is nothing
        return SYMBOL if one.derived and other.derived and one.symbol and one.symbol == other.symbol else None
    if one.symbol and one.symbol == other.symbol:
        return _of_equal_symbol(one, other)
    return _of_other_symbol(one, other)


def _of_equal_symbol(one: Label, other: Label) -> Rule:
    name = one.name != "" and one.name == other.name
    slug = one.slug != "" and one.slug == other.slug
    if name and slug:
        return NAME_ID if one.id == other.id else NAME_SLUG
    if name:
        return NUMBERED_NAME if _one_numbered(one, other) else NAME
    if slug:
        return CORE_SYMBOL if one.slug == one.symbol else SLUG
    if one.core and one.core == other.core and one.version == other.version and _one_kind(one, other):
        if _one_numbered(one, other):
            return NUMBERED
        return CORE_SYMBOL if one.core == one.symbol else CORE
    return SYMBOL


def _one_numbered(one: Label, other: Label) -> bool:
    return (one.unnumbered != "") != (other.unnumbered != "")


def _one_kind(one: Label, other: Label) -> bool:
    """A word more is no other thing, an exchanged one is: ``Yield App`` and ``Yield Finance``."""
    return one.kind <= other.kind or other.kind <= one.kind


def _of_other_symbol(one: Label, other: Label) -> Rule | None:
    name = len(one.name) >= 4 and one.name == other.name
    slug = len(one.slug) >= 4 and one.slug == other.slug
    if name and slug:
        return RENAMED
    if slug and one.name and other.name and not one.unnumbered:
        return SLUG_ALIKE
    if name and alike(one.symbol, other.symbol) and not _one_numbered(one, other):
        return NAME_ALIKE
    return None


def contracts_of(one: SourceCoin, other: SourceCoin) -> bool | None:
    """True: an address is equal; False: on a chain that both name, the addresses differ; None: they do not say."""
    shared = one.contracts.keys() & other.contracts.keys() if one.contracts and other.contracts else ()
    if not shared:
        return None
    return any(one.contracts[chain] & other.contracts[chain] for chain in shared)


def equal_contract(one: SourceCoin, other: SourceCoin) -> str:
    """An address that both have, and its chain, in words; empty where there is none."""
    for chain in sorted(one.contracts.keys() & other.contracts.keys()):
        for address in sorted(one.contracts[chain] & other.contracts[chain]):
            return f"{address} on {chain}"
    return ""


def prices_of(one: SourceCoin, other: SourceCoin) -> bool | None:
    """True: same-day price and, where both have it, market cap agree; False: prices are apart; None: no telling."""
    a, b = one.quote, other.quote
    if a is None or b is None or a.day != b.day or min(a.price, b.price) <= 0:
        return None
    apart = max(a.price, b.price) / min(a.price, b.price)
    if apart > OTHER_PRICE:
        return False
    caps = [cap for cap in (a.market_cap, b.market_cap) if cap]
    same_cap = len(caps) < 2 or max(caps) <= SAME_CAP * min(caps)
    return True if apart <= SAME_PRICE and same_cap else None


def caps_of(one: SourceCoin, other: SourceCoin) -> bool:
    """Whether both have a market cap."""
    return bool(one.quote and other.quote and one.quote.market_cap and other.quote.market_cap)

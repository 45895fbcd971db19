"""One source's coins matched with the coins of the sources before it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from kasparro_pipeline.identity.coins import OpenPair, SourceCoin
from kasparro_pipeline.identity.groups import Groups, Link
from kasparro_pipeline.identity.names import Label
from kasparro_pipeline.identity.rules import (
    CONTRACT,
    NAMESAKE,
    NEEDS_TELLING_NAME,
    NEEDS_TRUST,
    NEEDS_UNIQUE_SYMBOL,
    NUMBERED,
    NUMBERED_NAME,
    PRICE,
    PROVEN_BY_PRICE,
    RARE_WORD,
    RULES,
    SYMBOL,
    Rule,
    caps_of,
    contracts_of,
    equal_contract,
    prices_of,
    rule_of,
)

RARE_IN = 1000
"""A word is rare that not more than one coin in so many has, or four coins of a short list."""
LONG_NAME = 11
"""So many characters are not given twice by chance."""
TRUSTED_SYMBOLS = Decimal("0.7")
"""A symbol that two lists have once each counts for something where so large a share of such symbols is one coin by
stronger rules. It is less between lists of different years: symbols are used again."""
OPEN_PER_COIN = 3
"""Of a coin not more open pairs are told: the likeliest."""

_RANK = {rule.method: rank for rank, rule in enumerate(RULES)}


class Words:
    """What the sources call their coins, and how often each word is said."""

    def __init__(self, coins: Sequence[SourceCoin], labels: Sequence[Label]) -> None:
        self.coins = coins
        self.labels = labels
        self._said = Counter(word for told in labels for word in told.telling | told.stems)
        self._rarely = max(4, len(coins) // RARE_IN)

    def share_rare_word(self, one: int, other: int) -> bool:
        """Whether both have a word that few coins have, and are of one edition and kind."""
        a, b = self.labels[one], self.labels[other]
        shared = a.telling & b.telling if (a.version, a.derived) == (b.version, b.derived) else ()
        return any(self._said[word] <= self._rarely for word in shared)

    def is_telling_name(self, one: int, other: int) -> bool:
        """Whether the name that both have is hardly given twice by chance: a long one, or words only they have."""
        words = self.labels[one].stems | self.labels[other].stems
        return len(self.labels[one].name) >= LONG_NAME or (bool(words) and all(self._said[word] <= 2 for word in words))

    def keys(self, index: int) -> Iterator[Hashable]:
        """What two coins must share one of to be looked at as a pair."""
        told = self.labels[index]
        if told.symbol:
            yield "symbol", told.symbol
        for word in {told.name, told.slug}:
            if len(word) >= 4:
                yield "word", word
        for chain, addresses in self.coins[index].contracts.items():
            for address in addresses:
                yield "contract", chain, address


@dataclass(slots=True)
class _Pair:
    """A group of before and a group with a coin of this source, and the strongest rule that speaks for them."""

    left: int
    right: int
    one: int
    other: int
    rule: Rule
    veto: str = ""
    """Why it is not joined though the rule would."""
    agrees: bool = False
    """Prices of one day confirm it."""

    @property
    def joins(self) -> bool:
        return self.rule.joins and not self.veto

    @property
    def confidence(self) -> Decimal:
        """The rule's, nearer to 1 where prices confirm it; even odds at most where something speaks against it."""
        if self.veto:
            return min(self.rule.confidence, Decimal("0.5"))
        return 1 - (1 - self.rule.confidence) / 5 if self.agrees else self.rule.confidence


class Stage:
    """Matches source after source; what was matched is looked at when the next one comes."""

    def __init__(self, groups: Groups, words: Words) -> None:
        self._groups = groups
        self._words = words
        self._placed: dict[Hashable, list[int]] = defaultdict(list)
        self._is_placed: set[int] = set()

    def match(self, members: list[int]) -> list[OpenPair]:
        """Join the coins of one source with those before; the pairs that stay open."""
        rights = {self._groups.of(index) for index in members}
        free = [group for group in sorted(rights) if group not in self._is_placed]
        looked_at = sorted({*members, *(index for group in free for index in self._groups.members(group))})
        unique, joined = self._unique_symbols(looked_at)
        pairs = self._pairs(looked_at, unique)
        self._weigh(pairs, unique, joined)
        self._join(pairs, set(free))
        found = self._open(pairs)
        for group in free:
            self._place(group)
        return found

    def _place(self, right: int) -> None:
        """Make the coins of a group known to the sources that follow."""
        for index in self._groups.members(self._groups.of(right)):
            if index not in self._is_placed:
                self._is_placed.add(index)
                for key in self._words.keys(index):
                    self._placed[key].append(index)

    def _pairs(self, looked_at: Iterable[int], unique: set[str]) -> list[_Pair]:
        """Every pair that something speaks for, with the strongest rule; also those that cannot be joined any more,
        since a coin with two such partners is not sure of either."""
        labels = self._words.labels
        best: dict[tuple[int, int], _Pair] = {}
        for other in looked_at:
            right = self._groups.of(other)
            near = {one for key in self._words.keys(other) for one in self._placed.get(key, ())}
            for one in sorted(near):
                left = self._groups.of(one)
                rule = None if left == right else self._rule_of(one, other)
                if rule in NEEDS_UNIQUE_SYMBOL and labels[other].symbol not in unique:
                    rule = SYMBOL
                if rule is None or (rule is SYMBOL and not self._tells(one, other, unique)):
                    continue
                known = best.get((left, right))
                if known is None or _RANK[rule.method] < _RANK[known.rule.method]:
                    best[left, right] = _Pair(left, right, one, other, rule)
        return list(best.values())

    def _rule_of(self, one: int, other: int) -> Rule | None:
        coins, labels = self._words.coins, self._words.labels
        if contracts_of(coins[one], coins[other]):
            return CONTRACT
        rule = rule_of(labels[one], labels[other])
        if rule in NEEDS_TELLING_NAME and not self._words.is_telling_name(one, other):
            return NAMESAKE
        if rule is SYMBOL and self._words.share_rare_word(one, other):
            return RARE_WORD
        return rule

    def _tells(self, one: int, other: int, unique: set[str]) -> bool:
        """Whether an equal symbol is worth a look: no other coin has it, or one of the coins has no name."""
        labels = self._words.labels
        return labels[other].symbol in unique or not (labels[one].name and labels[other].name)

    def _weigh(self, pairs: list[_Pair], unique: set[str], joined: int) -> None:
        """What prices, contracts and the times of the lists say of each pair; `joined`: see `_unique_symbols`."""
        coins, labels = self._words.coins, self._words.labels
        by_symbol = [
            p for p in pairs if labels[p.one].symbol == labels[p.other].symbol and labels[p.one].symbol in unique
        ]
        strong = joined + sum(pair.rule.joins and pair.rule not in NEEDS_TRUST for pair in by_symbol)
        trusted = strong >= TRUSTED_SYMBOLS * (joined + len(by_symbol))
        for pair in pairs:
            one, other = coins[pair.one], coins[pair.other]
            prices = prices_of(one, other)
            pair.agrees = prices is True
            is_one_namesake = pair.rule is not SYMBOL or labels[pair.other].symbol in unique
            if pair.rule in PROVEN_BY_PRICE and is_one_namesake and pair.agrees and caps_of(one, other):
                pair.rule = PRICE
            elif pair.rule in NEEDS_TRUST and not trusted:
                pair.rule = NUMBERED if pair.rule is NUMBERED_NAME else SYMBOL
            if pair.rule is not CONTRACT:
                pair.veto = _veto(one, other, prices)
            elif labels[pair.one].derived != labels[pair.other].derived:
                pair.veto = "derived"  # a coin's list entry may hold the addresses of what stands for it elsewhere

    def _unique_symbols(self, looked_at: list[int]) -> tuple[set[str], int]:
        """The symbols that one group of before has and one of this source's, and how many of them are one coin
        already."""
        labels, of = self._words.labels, self._groups.of
        right: dict[str, set[int]] = defaultdict(set)
        for index in looked_at:
            right[labels[index].symbol].add(of(index))
        unique: set[str] = set()
        joined = 0
        for symbol, groups in right.items():
            left = {of(index) for index in self._placed.get(("symbol", symbol), ())}
            if len(left) == len(groups) == 1:
                unique.add(symbol)
                joined += left == groups
        return unique, joined

    def _join(self, pairs: list[_Pair], free: set[int]) -> None:
        """Rule after rule: a pair is joined where neither has another partner by the same rule."""
        waiting: set[int] = set()
        for rule in RULES:
            of_rule = [pair for pair in pairs if pair.rule is rule and pair.joins]
            count = Counter(group for pair in of_rule for group in (pair.left, pair.right))
            for pair in of_rule:
                is_sure = count[pair.left] == 1 and count[pair.right] == 1
                if is_sure and not waiting & {pair.left, pair.right} and pair.right in free:
                    told = self._told(pair)
                    self._groups.join(pair.one, pair.other, Link(rule.method, pair.confidence, told))
            waiting |= set(count)

    def _open(self, pairs: list[_Pair]) -> list[OpenPair]:
        """The pairs that could still be joined."""
        per_coin: dict[int, int] = Counter()
        found: list[OpenPair] = []
        pairs = sorted(pairs, key=lambda pair: (-pair.confidence, -self._cap(pair.one), pair.one, pair.other))
        for pair in pairs:
            if not self._groups.may_join(pair.one, pair.other) or per_coin[pair.right] >= OPEN_PER_COIN:
                continue
            per_coin[pair.right] += 1
            reason = pair.veto or ("ambiguous" if pair.rule.joins else pair.rule.method)
            confidence = min(pair.confidence, Decimal("0.5")) if reason == "ambiguous" else pair.confidence
            keys = (*self._words.coins[pair.one].key, *self._words.coins[pair.other].key)
            found.append(OpenPair(*keys, reason, confidence, self._told(pair)))
        return found

    def _cap(self, index: int) -> Decimal:
        quote = self._words.coins[index].quote
        return (quote.market_cap if quote else None) or Decimal(0)

    def _told(self, pair: _Pair) -> str:
        one, other = self._words.coins[pair.one], self._words.coins[pair.other]
        told = f"{one} ({one.symbol}, {one.name}) and {other} ({other.symbol}, {other.name}): {pair.rule.told}"
        if pair.rule is CONTRACT:
            told += f": {equal_contract(one, other)}"
        if one.quote and other.quote and one.quote.day == other.quote.day:
            told += f"; on {one.quote.day} they cost {one.quote.price} and {other.quote.price} USD"
        return told


def _veto(one: SourceCoin, other: SourceCoin, prices: bool | None) -> str:
    if contracts_of(one, other) is False:
        return "contract"
    return "price" if prices is False else ""

"""Which sources' coins are the same coin.

A symbol is not an identity: thousands of coins share theirs. Evidence counts in this order:

1. rulings: what a person has said of two coins;
2. what was joined before: a coin stays what it is when a vendor gives it another symbol or name, or lists a namesake;
3. a source's id that ended where another id with the same symbol and name began;
4. the rules of `rules`, strongest first.

Sources come in the order of their priority, each matched with the coins of all before it. A rule joins a pair only
where neither has another partner by the same rule; where it has, both wait for a person. What has no evidence stays a
coin of its own: a wrong merge is worse than a missed one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import groupby

from kasparro_pipeline.identity.coins import DIFFERENT, Identity, Key, Matching, OpenPair, Ruling, SourceCoin
from kasparro_pipeline.identity.groups import Groups, Link
from kasparro_pipeline.identity.names import Label, is_symbol_first, label, slug
from kasparro_pipeline.identity.rules import CONTRACT, equal_contract, rule_of
from kasparro_pipeline.identity.stage import Stage, Words

RULED, RENAMED_ID, OWN = "ruling", "renamed", "own"
CERTAIN, RENAMED_ID_CONFIDENCE = Decimal(1), Decimal("0.97")

RENAMED_WITHIN = timedelta(days=3)
"""An id that is gone and a new one with the same symbol and name are one coin when no more time is between them."""
DOUBTED = {"reused": Decimal("0.3"), "changed": Decimal("0.9")}
"""Expected share of doubted coins that are still the same. The first leave their group, the others stay until a person
says otherwise."""


def identify(
    coins: Iterable[SourceCoin],
    rulings: Iterable[Ruling],
    priorities: Mapping[str, int],
    existing: Mapping[Key, Identity],
) -> Matching:
    """An identity for each of `coins`, and the pairs that are open; the order the coins come in does not matter.

    Of two rulings on one pair the first counts. A coin keeps the ``coin_id`` that one of its members has in
    `existing`; a new one is called by the id of its member from the source that is first by `priorities` (lower
    first; then by name), such as CoinGecko's ``bitcoin``.
    """
    ordered = sorted(coins, key=lambda coin: (priorities.get(coin.source, 1000), coin.key))
    words = Words(ordered, _labels(ordered))
    groups = Groups(ordered)
    doubts = _doubts(words, existing)
    _rule(groups, rulings)
    _keep(groups, existing, {doubt.coin for doubt in doubts if doubt.reason == "reused"})
    _follow_renamed_ids(groups, words)
    stage = Stage(groups, words)
    open_pairs = [doubt.pair(ordered) for doubt in doubts if not groups.are_decided(doubt.coin, doubt.anchor)]
    for _, members in groupby(range(len(ordered)), key=lambda index: ordered[index].source):
        open_pairs += stage.match(list(members))
    open_pairs.sort(key=lambda pair: (-pair.confidence, pair.source, pair.source_coin_id, pair.other_source_coin_id))
    moved = [doubt for doubt in doubts if groups.of(doubt.coin) != groups.of(doubt.anchor) and not doubt.is_shared]
    named = {ordered[doubt.coin].key for doubt in moved}  # the name stays with those that are what they were
    identities = _identities(groups, {key: identity for key, identity in existing.items() if key not in named})
    return Matching(identities, open_pairs, [(ordered[doubt.coin].key, ordered[doubt.anchor].key) for doubt in moved])


def _labels(ordered: Sequence[SourceCoin]) -> list[Label]:
    labels: list[Label] = []
    for _, members in groupby(ordered, key=lambda coin: coin.source):
        listed = list(members)
        symbol_first = is_symbol_first([(coin.source_coin_id, coin.symbol) for coin in listed])
        labels += [label(coin.source_coin_id, coin.symbol, coin.name, symbol_first) for coin in listed]
    return labels


def _rule(groups: Groups, rulings: Iterable[Ruling]) -> None:
    """Join and part what persons have said to be one or not."""
    by_id: dict[str, list[SourceCoin]] = {}
    for coin in groups.coins:
        by_id.setdefault(coin.source_coin_id, []).append(coin)
    said: dict[frozenset[int], Ruling] = {}
    for ruling in rulings:
        for one, other in ruling.pairs(by_id):
            said.setdefault(frozenset((groups.index[one.key], groups.index[other.key])), ruling)
    groups.decided = set(said)
    groups.different = {pair for pair, ruling in said.items() if ruling.ruling == DIFFERENT}
    for spoken_of, ruling in said.items():
        if ruling.ruling != DIFFERENT:
            first, second = sorted(spoken_of)
            told = f"{groups.coins[first]} and {groups.coins[second]}: {ruling.who}: {ruling.why}"
            groups.join(first, second, Link(RULED, CERTAIN, told, same_source=True))


def _keep(groups: Groups, existing: Mapping[Key, Identity], reused: set[int]) -> None:
    """Join again what was joined before by a rule; what a ruling joined stands and falls with the ruling."""
    before: dict[str, list[int]] = {}
    for index, coin in enumerate(groups.coins):
        identity = existing.get(coin.key)
        if identity is not None and index not in reused:
            before.setdefault(identity.coin_id, []).append(index)
    for members in before.values():
        rows = {index: existing[groups.coins[index].key] for index in members}
        kept = [index for index in members if rows[index].method not in (RULED, OWN)]
        for index in kept[1:]:
            link = _link(rows[index])
            anchor = next((other for other in kept if groups.may_join(other, index, link)), index)
            better = None if link.same_source else _by_contract(groups.coins[anchor], groups.coins[index], link)
            groups.join(anchor, index, better or link, better or _link(rows[anchor]))


def _link(identity: Identity) -> Link:
    same_source = identity.method == RENAMED_ID
    return Link(identity.method, identity.confidence, identity.evidence, same_source=same_source)


def _by_contract(one: SourceCoin, other: SourceCoin, link: Link) -> Link | None:
    """Better evidence for two coins that `link` has joined: an equal contract that was not known then."""
    equal = equal_contract(one, other)
    if not equal or link.method == CONTRACT.method:
        return None
    return Link(CONTRACT.method, CONTRACT.confidence, f"{one} and {other}: {CONTRACT.told}: {equal}")


def _follow_renamed_ids(groups: Groups, words: Words) -> None:
    """A vendor that renames an id ends one and begins another with the same symbol and name."""
    namesakes: dict[tuple[str, str, str], list[int]] = {}
    for index, coin in enumerate(groups.coins):
        said = words.labels[index]
        if said.symbol and said.name and coin.first_seen and coin.last_seen:
            namesakes.setdefault((coin.source, said.symbol, said.name), []).append(index)
    for members in namesakes.values():
        for old in members:
            for new in members:
                gap = _gap(groups.coins[old], groups.coins[new])
                if len(members) == 2 and gap is not None and gap <= RENAMED_WITHIN:
                    told = f"{groups.coins[old]} ended where {groups.coins[new]} of equal symbol and name began"
                    link = Link(RENAMED_ID, RENAMED_ID_CONFIDENCE, told, same_source=True)
                    groups.join(min(old, new), max(old, new), link)


def _gap(old: SourceCoin, new: SourceCoin) -> timedelta | None:
    """The time between the end of `old` and the beginning of `new`; None where they overlap."""
    if old.last_seen is None or new.first_seen is None or old.last_seen >= new.first_seen:
        return None
    return new.first_seen - old.last_seen


@dataclass(frozen=True, slots=True)
class _Doubt:
    """A coin whose source calls it something else than when it was joined with `anchor`."""

    coin: int
    anchor: int
    reason: str
    told: str
    is_shared: bool
    """The anchor is in doubt as well."""

    def pair(self, coins: Sequence[SourceCoin]) -> OpenPair:
        return OpenPair(*coins[self.anchor].key, *coins[self.coin].key, self.reason, DOUBTED[self.reason], self.told)


def _doubts(words: Words, existing: Mapping[Key, Identity]) -> list[_Doubt]:
    """Coins that are not silently the same: another name on an id that is a bare symbol is another coin's, perhaps;
    on other ids both symbol and name have changed, and nothing joins them to the rest of their group any more."""
    together: dict[str, list[int]] = {}
    for index, coin in enumerate(words.coins):
        if coin.key in existing:
            together.setdefault(existing[coin.key].coin_id, []).append(index)
    found: list[_Doubt] = []
    for members in together.values():
        reasons: dict[int, str] = {}
        for index in members if len(members) > 1 else ():
            others = [words.labels[other] for other in members if other != index]
            if reason := _doubt(words.coins[index], words.labels[index], others):
                reasons[index] = reason
        for index, reason in reasons.items():
            anchor = min((other for other in members if other != index), key=lambda other: (other in reasons, other))
            coin = words.coins[index]
            was = " ".join(word for word in coin.was or () if word)
            told = f"{coin} was {was} when it was joined and is {coin.symbol} {coin.name}"
            told += f"; is it still what {words.coins[anchor]} is?"
            found.append(_Doubt(index, anchor, reason, told, anchor in reasons))
    return found


def _doubt(coin: SourceCoin, now: Label, others: Iterable[Label]) -> str | None:
    """``reused``, ``changed``, or nothing to doubt."""
    if coin.was is None:
        return None
    was = label(coin.source_coin_id, *coin.was)
    if not was.name or not now.name or was.core == now.core:
        return None
    if now.slug == now.symbol == was.symbol:
        return "reused"
    rules = [rule_of(now, other) for other in others]
    is_joined = any(rule is not None and rule.joins for rule in rules)
    return None if is_joined or was.symbol == now.symbol else "changed"


def _identities(groups: Groups, existing: Mapping[Key, Identity]) -> list[Identity]:
    taken: set[str] = set()
    found: list[Identity] = []
    named = [(_established([groups.coins[i] for i in members], existing), members) for members in groups.all()]
    for coin_id, members in sorted(named, key=lambda pair: pair[0] is None):
        chosen = coin_id if coin_id is not None and coin_id not in taken else _new_id(groups.coins[members[0]], taken)
        taken.add(chosen)
        found += [_identity(groups, index, chosen, alone=len(members) == 1) for index in members]
    return sorted(found, key=lambda identity: (identity.source, identity.source_coin_id))


def _identity(groups: Groups, index: int, coin_id: str, *, alone: bool) -> Identity:
    coin = groups.coins[index]
    if alone:
        return Identity(*coin.key, coin_id, OWN, CERTAIN, "nothing joins it to another coin")
    link = groups.links[index]
    return Identity(*coin.key, coin_id, link.method, link.confidence, link.evidence)


def _established(members: Iterable[SourceCoin], existing: Mapping[Key, Identity]) -> str | None:
    """The coin_id that the first member that had one had."""
    return next((existing[coin.key].coin_id for coin in members if coin.key in existing), None)


def _new_id(coin: SourceCoin, taken: set[str]) -> str:
    """A readable slug that no other coin has."""
    plain = slug(coin.source_coin_id) or "coin"
    candidates = [plain, f"{plain}-{slug(coin.source)}"]
    number = 2
    while candidates[0] in taken:
        candidates.pop(0)
        if not candidates:
            candidates.append(f"{plain}-{number}")
            number += 1
    return candidates[0]

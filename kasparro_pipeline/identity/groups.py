"""Coins in groups that are joined step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from kasparro_pipeline.identity.coins import SourceCoin


@dataclass(frozen=True, slots=True)
class Link:
    """Why a coin was joined with another."""

    method: str
    confidence: Decimal
    evidence: str
    same_source: bool = False
    """One source may have two of the coins: a person said so, or its id became another."""


class Groups:
    """`coins` by their index, each in one group; a group is named by its first member.

    One group has at most one coin of a source, unless a ruling or a renamed id makes two of them one.
    """

    def __init__(self, coins: Sequence[SourceCoin]) -> None:
        self.coins = coins
        self.index = {coin.key: index for index, coin in enumerate(coins)}
        self.links: dict[int, Link] = {}
        self.different: set[frozenset[int]] = set()
        """Pairs that a person said to be two coins."""
        self.decided: set[frozenset[int]] = set()
        """All pairs a person has spoken of."""
        self._group = list(range(len(coins)))
        self._members = {index: [index] for index in range(len(coins))}

    def of(self, index: int) -> int:
        """The group of a coin."""
        return self._group[index]

    def members(self, group: int) -> list[int]:
        """Its coins, in order."""
        return self._members[group]

    def all(self) -> list[list[int]]:
        """All groups, in the order of their first members."""
        return [self._members[group] for group in sorted(self._members)]

    def are_decided(self, one: int, other: int) -> bool:
        """Whether a person has spoken of these two coins."""
        return frozenset((one, other)) in self.decided

    def are_different(self, one: int, other: int) -> bool:
        """Whether a person has said that the two groups are two coins."""
        return bool(self.different) and any(
            frozenset((a, b)) in self.different for a in self._members[one] for b in self._members[other]
        )

    def may_join(self, one: int, other: int, link: Link | None = None) -> bool:
        """Whether no ruling parts the groups of these coins, and no source has a coin in both, unless `link` may."""
        left, right = self._group[one], self._group[other]
        if left == right or self.are_different(left, right):
            return False
        if link is not None and link.same_source:
            return True
        sources = {self.coins[index].source for index in self._members[left]}
        return not any(self.coins[index].source in sources for index in self._members[right])

    def join(self, one: int, other: int, link: Link, link_of_one: Link | None = None) -> None:
        """Make the groups of two coins one, where that may be."""
        if not self.may_join(one, other, link):
            return
        left, right = sorted((self._group[one], self._group[other]))
        self.links.setdefault(other, link)
        self.links.setdefault(one, link_of_one or link)
        for index in self._members[right]:
            self._group[index] = left
        self._members[left] = sorted(self._members[left] + self._members.pop(right))

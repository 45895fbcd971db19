"""Which contract addresses say which coin a coin is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from kasparro_pipeline.identity.coins import Key

PLACEHOLDERS = frozenset((f"0x{0:040x}", f"0x{'e' * 40}"))
"""What stands for a chain's own coin where an address is asked for."""


class Claim(NamedTuple):
    """That a source gives an address on a chain as its coin's; equal addresses are written alike."""

    source: str
    source_coin_id: str
    chain: str
    address: str


def evidence_of(claims: Iterable[Claim]) -> dict[Key, dict[str, frozenset[str]]]:
    """Each coin's addresses by chain. One that several coins of a source claim tells nothing of any of them."""
    claimants: dict[tuple[str, str, str], set[str]] = {}
    for source, source_coin_id, chain, address in claims:
        if address not in PLACEHOLDERS:
            claimants.setdefault((source, chain, address), set()).add(source_coin_id)
    found: dict[Key, dict[str, frozenset[str]]] = {}
    for (source, chain, address), coins in claimants.items():
        if len(coins) == 1:
            of_coin = found.setdefault((source, min(coins)), {})
            of_coin[chain] = of_coin.get(chain, frozenset()) | {address}
    return found

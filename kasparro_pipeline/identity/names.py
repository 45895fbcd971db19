"""What a coin's symbol, name and id say, in forms in which equal things are equal."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

NEUTRAL = frozenset(("token", "tokens", "coin", "coins", "the", "erc20", "bep20"))
"""Words that say nothing at all of a coin."""

GENERIC = NEUTRAL | frozenset(
    (
        *("app", "blockchain", "capital", "chain", "com", "dao", "exchange", "finance", "foundation", "governance"),
        *("io", "labs", "network", "platform", "project", "protocol"),
    )
)
"""Words that say what kind of thing a coin is and not which one: ``Bancor`` and ``Bancor Network`` may be one."""

DERIVED = frozenset(
    (
        *("wrapped", "bridged", "peg", "pegged", "staked", "staking", "synth", "synthetic", "leveraged", "inverse"),
        *("vault", "ibc", "wormhole", "multichain", "anyswap", "axelar", "allbridge"),
    )
)
"""Words of a coin that stands for another one and is not it: ``Wrapped Bitcoin`` is not ``Bitcoin``."""

SHARED_WORD_CHARACTERS = 3
"""Shorter words are shared by chance."""

_VERSION = re.compile(r"old|new|legacy|classic|v?\d+|ii|iii")
_TOKEN_STANDARD = re.compile(r"\b(erc|bep)[\s_-]?20\b", re.IGNORECASE)
_NOT_WORD = re.compile(r"[\W_]+")
_NUMBER_AT_END = re.compile(r"-\d+$")


def plain(text: str) -> str:
    """`text` without case, width, blanks and punctuation."""
    return _NOT_WORD.sub("", unicodedata.normalize("NFKC", text).casefold())


def slug(text: str) -> str:
    """`text` as a readable id: lower case, words joined by ``-``."""
    return _NOT_WORD.sub("-", text.casefold()).strip("-")


def _words(text: str) -> list[str]:
    return [word for word in _NOT_WORD.split(_standard(text)) if word]


def _standard(text: str) -> str:
    """Without case and width, and ``ERC-20`` as one word."""
    return _TOKEN_STANDARD.sub(r"\g<1>20", unicodedata.normalize("NFKC", text).casefold())


@dataclass(frozen=True, slots=True)
class Label:
    """What one source's words for a coin come down to; empty where the source does not say."""

    symbol: str
    name: str
    id: str
    """The id, without the symbol in front of it where the source's ids are made so (``zcn-0chain``)."""
    slug: str
    """`id` without punctuation."""
    unnumbered: str
    """For an id that ends in a number, by which vendors tell later namesakes apart (``nova-2``): what is before it."""
    core: str
    """The name without generic words; where nothing is left, the name."""
    kind: frozenset[str]
    """The generic words of the name, the neutral ones left out."""
    derived: frozenset[str]
    """Words of name and id that say that it stands for another coin."""
    version: frozenset[str]
    """Words of the name that tell an edition from another: ``v2`` is not ``v1``."""
    telling: frozenset[str]
    """Words of name and id that may tell which coin it is."""

    @property
    def stems(self) -> set[str]:
        """The telling words without an ending that any coin may have: ``star`` of ``starcoin``."""
        return {_stem(word) for word in self.telling}


@lru_cache(maxsize=200_000)
def label(source_coin_id: str, symbol: str | None, name: str | None, symbol_first: bool = False) -> Label:
    """What these words come down to; `symbol_first`: the source's ids are ``symbol-slug``."""
    short = plain(symbol or "")
    told = source_coin_id.partition("-")[2] if symbol_first else source_coin_id
    told = told or source_coin_id
    name_words, id_words = _words(name or ""), _words(told)
    core = "".join(word for word in name_words if word not in GENERIC)
    return Label(
        symbol=short,
        name=plain(name or ""),
        id=told.casefold(),
        slug=plain(told),
        unnumbered=plain(_NUMBER_AT_END.sub("", told)) if _NUMBER_AT_END.search(_standard(told)) else "",
        core=core or plain(name or ""),
        kind=GENERIC.intersection(name_words) - NEUTRAL,
        derived=DERIVED.intersection(name_words + id_words),
        version=frozenset(word for word in name_words if _VERSION.fullmatch(word)),
        telling=frozenset(
            word
            for word in name_words + id_words
            if len(word) >= SHARED_WORD_CHARACTERS and word != short and word not in GENERIC and not word.isdecimal()
        ),
    )


def alike(one: str, other: str) -> bool:
    """Whether one symbol may be a later form of the other: ``agi`` and ``agix``, ``rndr`` and ``render``.

    Not ``wbtc`` and ``btc``: a letter in front makes a wrapped coin.
    """
    short, long = sorted((one, other), key=len)
    if len(short) < 2 or long.endswith(short):
        return False
    return long.startswith(short) or (len(short) >= 3 and SequenceMatcher(None, short, long).ratio() >= 0.75)


def _stem(word: str) -> str:
    ending = next((end for end in ("coin", "token", "chain") if word.endswith(end) and word != end), "")
    return word.removesuffix(ending)


def is_symbol_first(ids_and_symbols: list[tuple[str, str | None]]) -> bool:
    """Whether a source makes its ids as ``symbol-slug``: nine in ten begin with their symbol and go on."""
    told = [(source_coin_id, slug(symbol)) for source_coin_id, symbol in ids_and_symbols if symbol]
    fitting = sum(slug(source_coin_id).startswith(f"{symbol}-") for source_coin_id, symbol in told)
    return fitting > 0 and fitting * 10 >= len(told) * 9

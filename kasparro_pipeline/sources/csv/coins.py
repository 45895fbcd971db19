"""Which coin a record or a file is about, and in which currency its price is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.fields import RefusedError, shown

QUOTES = ("USD", "USDT", "USDC", "BUSD", "TUSD", "FDUSD", "DAI", "EUR", "GBP", "JPY", "KRW", "TRY", "BTC", "ETH", "BNB")
"""Currencies that the end of a pair written without a separator is recognised by."""

NOT_IN_USD = frozenset(QUOTES) - {"USD", "BTC", "ETH", "BNB"}
"""Nobody names a file so that is not about prices in them."""

_STATE_MONEY = frozenset(
    {
        *("USD", "EUR", "GBP", "JPY", "KRW", "TRY", "AUD", "CAD", "CHF", "CNY", "HKD", "INR"),
        *("BRL", "MXN", "RUB", "SGD", "PLN", "NZD", "ZAR", "SEK", "NOK", "DKK", "CZK", "THB"),
        *("IDR", "UAH", "TWD", "ILS", "PHP", "VND", "NGN", "AED"),
    }
)

_PAIR = re.compile(r"([A-Z0-9.$]{1,20})[/_:-]([A-Z0-9]{2,10})")
_NOT_IN_SLUG = re.compile(r"[\W_]+")
_HISTORICAL = re.compile(r"(.+?)(?:[ _-]+[0-9][0-9_. -]*)?[ _-]+historical[ _]data(?![a-z]).*", re.I | re.S)
_CHART = re.compile(r"([a-z0-9]{1,20})-([a-z]{3})-max")
_PAIR_IN_NAME = re.compile(rf"(?:^|[ _-])([A-Z0-9]{{2,10}})[ _/-]({'|'.join(QUOTES)})(?=$|[ _.(-])")
_JOINED_IN_NAME = re.compile(rf"(?:^|[ _-])([A-Z0-9]{{2,10}}(?:{'|'.join(QUOTES)}))(?=$|[ _.(-])")


@dataclass(frozen=True, slots=True)
class NamedCoin:
    """The one coin that a whole file is about."""

    source_coin_id: str
    symbol: str | None = None
    name: str | None = None
    quote: str = "USD"
    """What its price is in."""


def split_pair(pair: str, header: tuple[str, ...] = ()) -> tuple[str, str] | None:
    """Base and quote of ``BTC/USD``, ``BTC-USD`` or ``BTCUSD``; None where `pair` is one currency.

    ``BNBUSD`` may be BNB/USD or BN/BUSD; a header like ``Volume BNB`` tells.

    Raises:
        RefusedError: ``ambiguous_pair``; nothing tells.
    """
    pair = pair.strip().upper()
    match = _PAIR.fullmatch(pair)
    if match is not None:
        return match[1], match[2]
    found = [
        (pair.removesuffix(quote), quote) for quote in QUOTES if pair.endswith(quote) and len(pair) > len(quote) + 1
    ]
    if len(found) > 1:
        named = {word for name in header for word in re.split(r"[\s_]+", name.upper())}
        found = [(base, quote) for base, quote in found if base in named] or found
    if len(found) > 1:
        ways = " or ".join("/".join(way) for way in found)
        raise RefusedError("ambiguous_pair", f"pair {shown(pair)} may be {ways}; write it with a slash")
    return found[0] if found else None


def are_currencies(values: Iterable[str]) -> bool:
    """Whether what is called a currency is money of states, in which prices are, and no coin."""
    named = {value.upper() for value in values if not fields.is_null(value)}
    return bool(named) and named <= _STATE_MONEY


def check_dollars(shown_as: str, quote: str) -> None:
    """Refuse a price in another currency; a dollar coin is another currency, too: 1 USDT is not always 1 USD.

    Raises:
        RefusedError: ``not_usd``.
    """
    if quote.upper() not in ("USD", "US$", "$"):
        raise RefusedError("not_usd", f"{shown(shown_as)} is a price in {quote}, not in USD")


def coin_of_file(stem: str, header: tuple[str, ...]) -> NamedCoin | None:
    """The coin that a file's name without its ending says it is about; None where it says none.

    ``BTC-USD`` (Yahoo), ``Kraken_ETHUSD_d`` (CryptoDataDownload), ``btc-usd-max`` (CoinGecko's charts),
    ``Bitcoin Historical Data - Investing.com``, ``Bitcoin_1.1.2024-31.1.2024_historical_data_coinmarketcap``.

    Raises:
        RefusedError: ``ambiguous_pair``.
    """
    if match := _CHART.fullmatch(stem):
        return _of_pair(stem, match[1].upper(), match[2].upper())
    subject = match[1] if (match := _HISTORICAL.fullmatch(stem)) else None
    looked_at = subject or stem
    if match := _PAIR_IN_NAME.search(looked_at):
        return _of_pair(stem, match[1], match[2])
    if (match := _JOINED_IN_NAME.search(looked_at)) and (pair := split_pair(match[1], header)):
        return _of_pair(stem, *pair)
    if subject is None:
        return None
    name = re.sub(r"[ _]+", " ", subject).strip()
    return NamedCoin(slug(name) or stem, name=name)


def _of_pair(stem: str, base: str, quote: str) -> NamedCoin:
    return NamedCoin(f"{stem}:{base}/{quote}", symbol=base, quote=quote)


def slug(*words: str) -> str | None:
    """``btc-bitcoin``."""
    return _NOT_IN_SLUG.sub("-", "-".join(words).lower()).strip("-") or None

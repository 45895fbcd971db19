"""Which coins there are, and what each vendor calls them.

Some eighty are written down in ``coins.csv``: well-known coins and the odd ones that trip loaders up. The rest are
minted from word lists. No prices over time in here.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Context, Decimal
from functools import cache
from hashlib import blake2b
from itertools import islice, product
from pathlib import Path
from typing import Literal

Vendor = Literal["coingecko", "coinpaprika", "exchange"]

MINTED = 432
_STEMS = (
    *("Velora", "Kyntra", "Ombrix", "Zephra", "Talvio", "Quenda", "Norvik", "Lumera", "Draxo", "Pellux"),
    *("Mirano", "Sorvex", "Aldura", "Brimsa", "Cyrano", "Delphix", "Evanta", "Fyrola", "Gantor", "Helvia"),
    *("Ixomar", "Jorvan", "Krylos", "Lavend", "Mondra", "Nexula", "Orphia", "Pyrana", "Qubira", "Rovello"),
    *("Selkra", "Tymora", "Ultava", "Vexora", "Wyrmos", "Xandra", "Yolvik", "Zantos", "Arkeva", "Boltra"),
)
_KINDS = ("Finance", "Swap", "Network", "Protocol", "Chain", "Token", "Games", "AI", "Coin", "Inu", "DAO", "Gold")


@dataclass(frozen=True, slots=True)
class Listing:
    """What one vendor calls a coin."""

    id: str
    symbol: str
    name: str
    active: bool = True
    contracts: Mapping[str, str] = field(default_factory=dict)
    """Address by chain, chains as CoinGecko calls them."""


@dataclass(frozen=True, slots=True)
class Coin:
    """One coin: the same for every vendor that lists it."""

    key: str
    """Unique; everything random about the coin is drawn from it."""
    listings: Mapping[Vendor, Listing]
    price: Decimal | None
    """US dollars around which the price moves; None: nobody knows one."""
    swing: Decimal
    """How far the price moves from there at most, as a share of it."""
    circulating_supply: Decimal | None
    total_supply: Decimal | None
    max_supply: Decimal | None
    updated_every: int
    """Minutes between two updates of the coin's numbers."""
    since: date
    """The first day with a price."""


def draw(*words: object) -> int:
    """64 bits that depend on nothing but `words`: the same in every process and on every machine."""
    return int.from_bytes(blake2b("\x1f".join(map(str, words)).encode(), digest_size=8).digest())


@cache
def universe() -> tuple[Coin, ...]:
    """Every coin of the simulated market, well-known ones first."""
    names = enumerate(islice(product(_KINDS, _STEMS), MINTED))
    return (*_written_down(), *(_minted(index, stem, kind) for index, (kind, stem) in names))


@cache
def listed(vendor: Vendor) -> Mapping[str, Coin]:
    """The coins `vendor` gives prices of, by its own id."""
    listings = ((coin.listings.get(vendor), coin) for coin in universe())
    return {listing.id: coin for listing, coin in listings if listing and listing.active}


def _written_down() -> list[Coin]:
    with Path(__file__).with_name("coins.csv").open(encoding="utf-8", newline="") as file:
        return [_from_row(row) for row in csv.DictReader(file)]


def _from_row(row: Mapping[str, str]) -> Coin:
    price, circulating, total, maximum = (
        Decimal(row[column]) if row[column] else None
        for column in ("price", "circulating_supply", "total_supply", "max_supply")
    )
    key = row["coingecko"] or row["coinpaprika"]
    return Coin(
        key=key,
        listings=_listings(row),
        price=price,
        swing=Decimal(row["swing"]),
        circulating_supply=circulating,
        total_supply=total,
        max_supply=maximum,
        updated_every=int(row["updated_every"] or 1),
        since=_since(key),
    )


def _listings(row: Mapping[str, str]) -> dict[Vendor, Listing]:
    vendors: tuple[Vendor, ...] = ("coingecko", "coinpaprika", "exchange")
    return {
        vendor: Listing(
            id=row[vendor],
            symbol=row.get(f"{vendor}_symbol") or row["symbol"],
            name=row.get(f"{vendor}_name") or row["name"],
            active=row["delisted"] != vendor,
            contracts=_contracts(f"{row['contracts']} {row.get(f'{vendor}_contracts', '')}"),
        )
        for vendor in vendors
        if row[vendor]
    }


def _contracts(text: str) -> dict[str, str]:
    """``chain=address`` pairs, blanks between."""
    pairs = (pair.partition("=") for pair in text.split())
    return {chain: address for chain, _, address in pairs}


def _minted(index: int, stem: str, kind: str) -> Coin:
    key = f"{stem}-{kind}".lower()
    price = Decimal(1000 + draw(key, "price") % 9000).scaleb(-3 - draw(key, "scale") % 7)
    worth = Decimal(1000 + draw(key, "worth") % 9000) * 10 ** (1 + draw(key, "size") % 5)
    supply = Context(prec=4).divide(worth, price)
    circulating = supply * (50 + draw(key, "circulating") % 51) / 100
    return Coin(
        key=key,
        listings=_minted_listings(index, stem, kind),
        price=price,
        swing=Decimal(30 + draw(key, "swing") % 20) / 100,
        circulating_supply=circulating if draw(key, "known") % 5 else None,
        total_supply=supply,
        max_supply=supply if draw(key, "capped") % 2 else None,
        updated_every=(1, 1, 1, 1, 1, 1, 5, 60)[draw(key, "updated") % 8],
        since=_since(key),
    )


def _minted_listings(index: int, stem: str, kind: str) -> dict[Vendor, Listing]:
    """Six of eleven at both vendors, three at CoinGecko alone, two at CoinPaprika alone; some names and symbols differ.

    Symbols end in the first letter of the kind, so that a stem's Chain and Coin, or Games and Gold, share theirs.
    """
    symbol, name, slug = f"{stem[:3]}{kind[0]}".upper(), f"{stem} {kind}", f"{stem}-{kind}".lower()
    address = f"0x{blake2b(slug.encode(), digest_size=20).hexdigest()}"
    contracts = {"ethereum": address} if draw(slug, "token") % 3 else {}
    listings: dict[Vendor, Listing] = {}
    if index % 11 < 9:
        listings["coingecko"] = Listing(slug, symbol, name, contracts=contracts)
    if index % 11 not in {6, 7, 8}:
        listings["coinpaprika"] = Listing(
            f"{symbol.lower()}-{slug}",
            stem[:5].upper() if index % 31 == 7 else symbol,
            stem if index % 11 == 5 else name,
            contracts=contracts,
        )
    return listings


def _since(key: str) -> date:
    return date(2013, 1, 1) + timedelta(days=draw(key, "since") % 4000)

"""What every coin costs at every minute: pure functions, no clock, no state, integers and decimals only.

A price is a base price moved by smooth noise; the noise is drawn from the coin and the minute, so any process computes
the same past. Minutes are whole minutes since 1970-01-01T00:00Z.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache

from kasparro_pipeline.simulator.coins import Coin, Vendor, draw, listed

HOUR, DAY = 60, 24 * 60

_ONE = 10**9
_WAVES = ((30 * DAY, 600), (DAY, 300), (47, 100))  # minutes from level to level, weight in thousandths
_SKEW = Decimal("0.005")  # of the swing: keeps two vendors' prices less than 1 % apart


@dataclass(frozen=True, slots=True)
class Quote:
    """What one vendor says of one coin; US dollars."""

    minute: int
    """When the numbers were last updated: at most the coin's `updated_every` before the minute asked for."""
    price: Decimal
    market_cap: Decimal | None
    """None where the circulating supply is not known."""
    volume_24h: Decimal


def quote(coin: Coin, vendor: Vendor, minute: int) -> Quote | None:
    """What `vendor` says of `coin` at `minute`; None for a coin that nobody knows a price of."""
    said = price(coin, vendor, minute)
    if coin.price is None or said is None:
        return None
    minute = _last_update(coin, minute)
    supply = coin.circulating_supply
    turnover = Decimal(1 + draw(coin.key, "turnover") % 15) / 100
    usual = coin.price * (supply or 10**6) * turnover
    return Quote(
        minute=minute,
        price=said,
        market_cap=None if supply is None else said * supply,
        volume_24h=usual * (1 + Decimal(_wave(f"volume {vendor} {coin.key}", DAY, minute)) / (2 * _ONE)),
    )


def price(coin: Coin, vendor: Vendor, minute: int) -> Decimal | None:
    """The price in `quote`, at a fraction of the cost."""
    if coin.price is None:
        return None
    minute = _last_update(coin, minute)
    move = 0
    for period, weight in _WAVES:
        move += weight * _wave(coin.key, period, minute)
    skew = _SKEW * _wave(f"{vendor} {coin.key}", DAY, minute)
    return coin.price * (1 + coin.swing * (Decimal(move) / 1000 + skew) / _ONE)


@lru_cache(maxsize=64)
def ranked(vendor: Vendor, hour: int) -> tuple[tuple[int, Coin], ...]:
    """The vendor's coins with their ranks: by market cap at the start of `hour`, those without one last, by id.

    Hours count from 1970. Ranks move by the hour, so that pages read within an hour never overlap.
    """

    def place(item: tuple[str, Coin]) -> tuple[Decimal, str]:
        source_coin_id, coin = item
        cap = (price(coin, vendor, hour * HOUR) or Decimal(0)) * (coin.circulating_supply or 0)
        return -cap, source_coin_id

    in_order = sorted(listed(vendor).items(), key=place)
    return tuple((rank, coin) for rank, (_, coin) in enumerate(in_order, start=1))


def ticks(coin: Coin, start: int, end: int, step: int) -> Iterator[int]:
    """Every minute from `start` to `end`, both included, that divides by `step` and on which the coin had a price."""
    start = max(start, first_minute(coin))
    return iter(range(start + -start % step, end + 1, step))


def first_minute(coin: Coin) -> int:
    """The first minute on which the coin had a price."""
    return day_start(coin.since)


def day_start(day: date) -> int:
    """The minute at which `day` starts, UTC."""
    return (day - date(1970, 1, 1)).days * DAY


def minute_of(moment: datetime) -> int:
    """The minute that the aware `moment` is in."""
    return int(moment.timestamp()) // 60


def moment_of(minute: int) -> datetime:
    """The start of `minute`, aware, UTC."""
    return datetime.fromtimestamp(minute * 60, UTC)


def _last_update(coin: Coin, minute: int) -> int:
    return minute - minute % coin.updated_every


def _wave(key: str, period: int, minute: int) -> int:
    """Between -`_ONE` and `_ONE`, smooth in time: a smoothstep from one drawn level to the next every `period` minutes.

    In integers: the last bits of a float may differ between machines.
    """
    cell, offset = divmod(minute, period)
    level, step = _level_and_step(key, period, cell)
    return level + step * (offset * offset * (3 * period - 2 * offset)) // (period * period * period)


@lru_cache(maxsize=1 << 16)
def _level_and_step(key: str, period: int, cell: int) -> tuple[int, int]:
    level, following = (draw(key, period, at) % (2 * _ONE + 1) - _ONE for at in (cell, cell + 1))
    return level, following - level

"""CoinPaprika's API v1 as far as the pipeline reads it: fields, their order, number style; 0 where it knows nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from itertools import islice
from typing import Any

import msgspec
from fastapi import APIRouter, HTTPException, Query, Response

from kasparro_pipeline.simulator import wire
from kasparro_pipeline.simulator.coins import Coin, Vendor, draw, listed, universe
from kasparro_pipeline.simulator.market import (
    DAY,
    HOUR,
    Quote,
    day_start,
    first_minute,
    minute_of,
    price,
    quote,
    ranked,
    ticks,
)

TOO_MANY_REQUESTS = {"error": "too many requests"}
MAX_TICKS = 5000

_VENDOR: Vendor = "coinpaprika"
_SPANS = {
    "15m": 15,
    "30m": 30,
    "1h": HOUR,
    "6h": 6 * HOUR,
    "12h": 12 * HOUR,
    "24h": DAY,
    "7d": 7 * DAY,
    "30d": 30 * DAY,
    "1y": 365 * DAY,
}
_INTERVALS = {
    **{f"{minutes}m": minutes for minutes in (5, 10, 15, 30, 45)},
    **{f"{hours}h": hours * HOUR for hours in (1, 2, 3, 6, 12, 24)},
    **{f"{days}d": days * DAY for days in (1, 7, 14, 30, 90, 365)},
}

_PLATFORMS = {
    "eth-ethereum": ("ethereum", "ERC20"),
    "bnb-binance-coin": ("binance-smart-chain", "BEP20"),
    "matic-polygon": ("polygon-pos", "ERC20"),
    "sol-solana": ("solana", "Other"),
    "avax-avalanche": ("avalanche", "ERC20"),
    "arb-arbitrum": ("arbitrum-one", "ERC20"),
    "op-optimism": ("optimistic-ethereum", "ERC20"),
    "base-base": ("base", "ERC20"),
    "trx-tron": ("tron", "TRC20"),
}
"""What CoinPaprika calls the chains, and the type of the contracts there."""

_Row = dict[str, Any]


def routes(this_minute: Callable[[], int]) -> APIRouter:
    """The endpoints below ``/v1``."""
    router = APIRouter(prefix="/v1", tags=[_VENDOR])

    @router.get("/tickers")
    async def tickers(quotes: str = "USD") -> Response:
        _check_quotes(quotes)
        minute = this_minute()
        return _json([_ticker(coin, rank, minute) for rank, coin in ranked(_VENDOR, minute // HOUR)])

    @router.get("/coins")
    async def coins() -> Response:
        active = [_entry(coin, rank) for rank, coin in ranked(_VENDOR, this_minute() // HOUR)]
        return _json(active + [_entry(coin, 0) for coin in _delisted()])

    @router.get("/contracts")
    async def platforms() -> Response:
        return _json(list(_PLATFORMS))

    @router.get("/contracts/{platform}")
    async def contracts(platform: str) -> Response:
        if platform not in _PLATFORMS:
            raise HTTPException(404, {"error": "id not found"})
        return _json(_contracts(*_PLATFORMS[platform]))

    @router.get("/tickers/{coin_id}/historical")
    async def historical(
        coin_id: str,
        start: str,
        end: str | None = None,
        interval: str = "5m",
        limit: int = Query(default=1000, ge=1, le=MAX_TICKS),
    ) -> Response:
        coin = listed(_VENDOR).get(coin_id)
        if coin is None:
            raise HTTPException(404, {"error": "id not found"})
        if interval not in _INTERVALS:
            raise HTTPException(400, {"error": f"invalid interval: {interval}"})
        last = this_minute() if end is None else min(_minute("end", end), this_minute())
        minutes = islice(ticks(coin, _minute("start", start), last, _INTERVALS[interval]), limit)
        return _json([_tick(minute, said) for minute in minutes if (said := quote(coin, _VENDOR, minute))])

    return router


def _json(body: object) -> Response:
    return Response(wire.encode(body), media_type="application/json; charset=utf-8")


def _check_quotes(quotes: str) -> None:
    if quotes.upper() != "USD":
        raise HTTPException(400, {"error": f"invalid quotes: {quotes}"})


def _minute(parameter: str, value: str) -> int:
    """The minute that a day, an RFC 3339 time (UTC where it names no zone) or Unix seconds fall in."""
    try:
        moment = datetime.fromtimestamp(int(value), UTC) if value.isdecimal() else datetime.fromisoformat(value)
    except (ValueError, OverflowError, OSError):
        raise HTTPException(400, {"error": f"invalid {parameter}: {value}"}) from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return minute_of(moment)


def _ticker(coin: Coin, rank: int, minute: int) -> _Row:
    now = quote(coin, _VENDOR, minute)
    listing = coin.listings[_VENDOR]
    if now is None:
        raise ValueError(f"{listing.id} in coins.csv has no price; CoinPaprika lists none without")
    return {
        "id": listing.id,
        "name": listing.name,
        "symbol": listing.symbol,
        "rank": rank,
        "circulating_supply": _whole(coin.circulating_supply),
        "total_supply": _whole(coin.total_supply),
        "max_supply": _whole(coin.max_supply),
        "beta_value": wire.go(Decimal(draw(coin.key, "beta") % 2_000_000).scaleb(-6)),
        "first_data_at": wire.seconds(day_start(coin.since)),
        "last_updated": wire.seconds(now.minute),
        "quotes": {"USD": _usd(coin, now)},
    }


def _usd(coin: Coin, now: Quote) -> _Row:
    changes = {span: _change(coin, now, back) for span, back in _SPANS.items()}
    yesterday = quote(coin, _VENDOR, now.minute - DAY) or now
    ath = wire.significant(coin.price or now.price, 16) * (2 + draw(coin.key, "ath") % 40)
    return {
        "price": wire.go(wire.significant(now.price, 16)),
        "volume_24h": wire.go(wire.significant(now.volume_24h, 16)),
        "volume_24h_change_24h": _percent((now.volume_24h / yesterday.volume_24h - 1) * 100),
        "market_cap": _whole(now.market_cap),
        "market_cap_change_24h": _percent(changes["24h"] if now.market_cap else Decimal(0)),
        **{f"percent_change_{span}": _percent(change) for span, change in changes.items()},
        "ath_price": wire.go(ath),
        "ath_date": wire.seconds(day_start(coin.since) + draw(coin.key, "ath day") % (700 * DAY)),
        "percent_from_price_ath": _percent((now.price / ath - 1) * 100),
    }


def _change(coin: Coin, now: Quote, back: int) -> Decimal:
    """By how many percent the price moved in the last `back` minutes; 0 where it had none then."""
    then = price(coin, _VENDOR, now.minute - back)
    if then is None or now.minute - back < first_minute(coin):
        return Decimal(0)
    return (now.price / then - 1) * 100


def _delisted() -> list[Coin]:
    return [coin for coin in universe() if _VENDOR in coin.listings and not coin.listings[_VENDOR].active]


def _contracts(chain: str, kind: str) -> list[_Row]:
    listings = [coin.listings[_VENDOR] for coin in universe() if _VENDOR in coin.listings]
    return [
        {"address": listing.contracts[chain], "id": listing.id, "type": kind, "active": listing.active}
        for listing in listings
        if chain in listing.contracts
    ]


def _entry(coin: Coin, rank: int) -> _Row:
    listing = coin.listings[_VENDOR]
    return {
        "id": listing.id,
        "name": listing.name,
        "symbol": listing.symbol,
        "rank": rank,
        "is_new": False,
        "is_active": listing.active,
        "type": "token" if listing.contracts else "coin",
    }


def _tick(minute: int, said: Quote) -> _Row:
    return {
        "timestamp": wire.seconds(minute),
        "price": wire.go(wire.significant(said.price, 16)),
        "volume_24h": _whole(said.volume_24h),
        "market_cap": _whole(said.market_cap),
    }


def _whole(value: Decimal | None) -> msgspec.Raw | None:
    return wire.whole(value or Decimal(0))


def _percent(value: Decimal) -> msgspec.Raw:
    return wire.go(value.quantize(Decimal("0.01")))

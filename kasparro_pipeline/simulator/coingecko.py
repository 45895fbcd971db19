"""CoinGecko's API v3 as far as the pipeline reads it: fields, their order, number style and null habits."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
from fastapi import APIRouter, HTTPException, Query, Request, Response

from kasparro_pipeline.simulator import wire
from kasparro_pipeline.simulator.coins import Coin, Vendor, draw, listed
from kasparro_pipeline.simulator.market import DAY, HOUR, Quote, day_start, price, quote, ranked, ticks

TOO_MANY_REQUESTS = {
    "status": {
        "error_code": 429,
        "error_message": "You've exceeded the Rate Limit. Please visit https://www.coingecko.com/en/api/pricing "
        "to subscribe to our API plans for higher rate limits.",
    }
}
PER_PAGE = 250

_VENDOR: Vendor = "coingecko"
_SAMPLES = range(6 * HOUR, DAY + 1, 6 * HOUR)  # minutes back at which a day's high and low are looked for

_FIELDS = (
    "id",
    "symbol",
    "name",
    "image",
    "current_price",
    "market_cap",
    "market_cap_rank",
    "fully_diluted_valuation",
    "total_volume",
    "high_24h",
    "low_24h",
    "price_change_24h",
    "price_change_percentage_24h",
    "market_cap_change_24h",
    "market_cap_change_percentage_24h",
    "circulating_supply",
    "total_supply",
    "max_supply",
    "ath",
    "ath_change_percentage",
    "ath_date",
    "atl",
    "atl_change_percentage",
    "atl_date",
    "roi",
    "last_updated",
)

_Row = dict[str, Any]
_Ranked = tuple[int, Coin]


def routes(this_minute: Callable[[], int]) -> APIRouter:
    """The endpoints below ``/api/v3``."""
    router = APIRouter(prefix="/api/v3", tags=[_VENDOR])

    @router.get("/ping")
    async def ping() -> Response:
        return _json({"gecko_says": "(V3) To the Moon!"})

    @router.get("/coins/markets")
    async def markets(  # noqa: PLR0913, PLR0917
        request: Request,
        vs_currency: str,
        ids: str | None = None,
        order: str = "market_cap_desc",
        per_page: int = Query(default=100, ge=1),
        page: int = Query(default=1, ge=1),
    ) -> Response:
        _check_currency(vs_currency)
        minute, per_page = this_minute(), min(per_page, PER_PAGE)
        wanted = set(ids.split(",")) if ids else listed(_VENDOR).keys()
        coins = [(rank, coin) for rank, coin in _ordered(order, minute) if coin.listings[_VENDOR].id in wanted]
        start = (page - 1) * per_page
        return wire.tagged(request, [_market(coin, rank, minute) for rank, coin in coins[start : start + per_page]])

    @router.get("/coins/list")
    async def coins_list(request: Request, include_platform: bool = False) -> Response:
        return wire.tagged(request, [_entry(coin, include_platform) for _, coin in sorted(listed(_VENDOR).items())])

    @router.get("/coins/{coin_id}/market_chart/range")
    async def market_chart(
        coin_id: str, vs_currency: str, start: int = Query(alias="from"), end: int = Query(alias="to")
    ) -> Response:
        coin = listed(_VENDOR).get(coin_id)
        if coin is None:
            raise HTTPException(404, {"error": "coin not found"})
        _check_currency(vs_currency)
        return _json(_chart(coin, -(-start // 60), min(end // 60, this_minute())))

    return router


def _json(body: object) -> Response:
    return Response(wire.encode(body), media_type="application/json; charset=utf-8")


def _check_currency(vs_currency: str) -> None:
    if vs_currency.lower() != "usd":
        raise HTTPException(422, {"error": "invalid vs_currency"})


def _ordered(order: str, minute: int) -> list[_Ranked]:
    by_cap = ranked(_VENDOR, minute // HOUR)
    keys: dict[str, Callable[[_Ranked], Any]] = {
        "market_cap": lambda item: -item[0],
        "volume": lambda item: _volume(item[1], minute),
        "id": lambda item: item[1].listings[_VENDOR].id,
    }
    by, _, direction = order.rpartition("_")
    if by not in keys or direction not in {"asc", "desc"}:
        raise HTTPException(422, {"error": "invalid order"})
    return sorted(by_cap, key=keys[by], reverse=direction == "desc")


def _volume(coin: Coin, minute: int) -> Decimal:
    said = quote(coin, _VENDOR, minute)
    return said.volume_24h if said else Decimal(0)


def _market(coin: Coin, rank: int, minute: int) -> _Row:
    """One record of ``/coins/markets``; what is not known stays null."""
    listing = coin.listings[_VENDOR]
    row: _Row = dict.fromkeys(_FIELDS)
    row |= {
        "id": listing.id,
        "symbol": listing.symbol.lower(),
        "name": listing.name,
        "image": f"https://images.example/coins/{listing.id}.png",
        "circulating_supply": wire.ruby(coin.circulating_supply),
        "total_supply": wire.ruby(coin.total_supply),
        "max_supply": wire.ruby(coin.max_supply),
    }
    now = quote(coin, _VENDOR, minute)
    if now and coin.price:
        row |= _now(coin, rank, now) | _day(coin, now) | _ever(coin, coin.price, now)
    return row


def _now(coin: Coin, rank: int, now: Quote) -> _Row:
    return {
        "current_price": _price(now.price),
        "market_cap": wire.whole(now.market_cap),
        "market_cap_rank": rank if now.market_cap else None,
        "fully_diluted_valuation": wire.whole(coin.total_supply and coin.total_supply * now.price),
        "total_volume": wire.whole(now.volume_24h),
        "last_updated": wire.milliseconds(now.minute),
    }


def _day(coin: Coin, now: Quote) -> _Row:
    """What happened in the last 24 hours."""
    earlier = [said for back in _SAMPLES if (said := price(coin, _VENDOR, now.minute - back))]
    change = now.price - earlier[-1]
    row: _Row = {
        "high_24h": _price(max(now.price, *earlier)),
        "low_24h": _price(min(now.price, *earlier)),
        "price_change_24h": wire.ruby(wire.significant(change, 16)),
        "price_change_percentage_24h": _percent(now.price, earlier[-1]),
    }
    if coin.circulating_supply:
        row["market_cap_change_24h"] = wire.ruby(wire.significant(change * coin.circulating_supply, 15))
        row["market_cap_change_percentage_24h"] = row["price_change_percentage_24h"]
    return row


def _ever(coin: Coin, base: Decimal, now: Quote) -> _Row:
    """All-time high and low, beyond anything the price model reaches, and the return since the first sale."""
    first = day_start(coin.since)
    high, low = base * (2 + draw(coin.key, "ath") % 40), base / (2 + draw(coin.key, "atl") % 400)
    row: _Row = {
        "ath": _price(high),
        "ath_change_percentage": _percent(now.price, high),
        "ath_date": wire.milliseconds(first + draw(coin.key, "ath day") % (700 * DAY)),
        "atl": _price(low),
        "atl_change_percentage": _percent(now.price, low),
        "atl_date": wire.milliseconds(first + draw(coin.key, "atl day") % (700 * DAY)),
    }
    if draw(coin.key, "roi") % 8 == 0:
        times = wire.significant(now.price / low - 1, 16)
        row["roi"] = {"times": wire.ruby(times), "currency": "usd", "percentage": wire.ruby(times * 100)}
    return row


def _entry(coin: Coin, include_platform: bool) -> _Row:
    listing = coin.listings[_VENDOR]
    entry: _Row = {"id": listing.id, "symbol": listing.symbol.lower(), "name": listing.name}
    if include_platform:
        entry["platforms"] = dict(listing.contracts)
    return entry


def _chart(coin: Coin, start: int, end: int) -> _Row:
    """A point every hour, every day for more than 90 days."""
    minutes = ticks(coin, start, end, HOUR if end - start <= 90 * DAY else DAY)
    points = [(minute * 60_000, said) for minute in minutes if (said := quote(coin, _VENDOR, minute))]
    return {
        "prices": [(moment, wire.ruby(said.price)) for moment, said in points],
        "market_caps": [(moment, wire.ruby(said.market_cap)) for moment, said in points],
        "total_volumes": [(moment, wire.ruby(said.volume_24h)) for moment, said in points],
    }


def _price(value: Decimal) -> msgspec.Raw | None:
    """Whole dollars from 10,000, cents from 1, six significant digits below."""
    if value >= 10_000:
        return wire.whole(value)
    return wire.ruby(value.quantize(Decimal("0.01")) if value >= 1 else wire.significant(value, 6))


def _percent(now: Decimal, then: Decimal) -> msgspec.Raw | None:
    return wire.ruby(((now / then - 1) * 100).quantize(Decimal("0.00001")))

"""A vendor that there is not, for trying how one is added: pages by cursor, records within, numbers as texts."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_right
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from fastapi import APIRouter, HTTPException, Query, Response

from kasparro_pipeline.simulator import wire
from kasparro_pipeline.simulator.coins import Coin, Vendor, listed
from kasparro_pipeline.simulator.market import quote

TOO_MANY_REQUESTS = {"errors": [{"code": "rate_limited", "message": "slow down"}]}

_LISTED_BY: Vendor = "coinpaprika"
_Row = dict[str, Any]


def routes(this_minute: Callable[[], int]) -> APIRouter:
    """The endpoints below ``/feed/v1``."""
    router = APIRouter(prefix="/feed/v1", tags=["marketfeed"])

    @router.get("/assets")
    async def assets(limit: int = Query(default=100, ge=1, le=200), cursor: str | None = None) -> Response:
        coins = _coins()
        keys = list(coins)
        start = 0 if cursor is None else bisect_right(keys, _decoded(cursor))
        page = keys[start : start + limit]
        more = start + limit < len(keys)
        minute = this_minute()
        body = {
            "data": [_asset(coins[key], minute) for key in page],
            "page": {"next": urlsafe_b64encode(page[-1].encode()).decode() if more else None},
        }
        return Response(wire.encode(body), media_type="application/json")

    return router


def _coins() -> Mapping[str, Coin]:
    return {coin.key: coin for coin in sorted(listed(_LISTED_BY).values(), key=lambda coin: coin.key)}


def _decoded(cursor: str) -> str:
    try:
        return urlsafe_b64decode(cursor).decode()
    except ValueError:
        raise HTTPException(400, {"errors": [{"code": "bad_cursor", "message": "cursor is not one of ours"}]}) from None


def _asset(coin: Coin, minute: int) -> _Row:
    listing = coin.listings[_LISTED_BY]
    now = quote(coin, _LISTED_BY, minute)
    return {
        "id": coin.key,
        "ticker": listing.symbol,
        "title": listing.name,
        "usd": {
            "last": _text(now.price if now else None),
            "cap": _text(now.market_cap if now else None),
            "volume": _text(now.volume_24h if now else None),
        },
        "supply": {"circulating": _text(coin.circulating_supply), "max": _text(coin.max_supply)},
        "at": now.minute * 60 if now else minute * 60,
    }


def _text(value: Decimal | None) -> str | None:
    return None if value is None else f"{value:f}"

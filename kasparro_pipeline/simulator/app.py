"""The simulator as one FastAPI app: the vendors' routers, a clock, a rate limit for each vendor."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from kasparro_pipeline.settings import settings
from kasparro_pipeline.simulator import coingecko, coinpaprika, marketfeed
from kasparro_pipeline.simulator.coins import listed
from kasparro_pipeline.simulator.market import minute_of

Clock = Callable[[], datetime]


class Throttle:
    """A FastAPI dependency that admits `per_minute` calls at once and as many again over each minute.

    Beyond that it answers 429 with the vendor's `body` and the seconds to wait in ``Retry-After``.
    """

    def __init__(self, per_minute: int, body: Mapping[str, Any]) -> None:
        self._body = body
        self._seconds_a_call = 60 / per_minute
        self._horizon = 60.0 - self._seconds_a_call
        self._paid_until = 0.0

    async def __call__(self) -> None:
        """Count one call."""
        now = time.monotonic()
        wait = self._paid_until - now - self._horizon
        if wait > 0:
            raise HTTPException(429, self._body, headers={"Retry-After": str(math.ceil(wait))})
        self._paid_until = max(self._paid_until, now) + self._seconds_a_call


def utc_now() -> datetime:
    """The time now, aware, UTC."""
    return datetime.now(UTC)


def create_app(clock: Clock = utc_now, rate_per_minute: int | None = None) -> FastAPI:
    """Make the app.

    `clock` says what time the market has, aware. `rate_per_minute` is how many calls each vendor admits;
    None: ``KASPARRO_SIMULATOR_RATE_PER_MINUTE``.
    """
    rate = rate_per_minute or settings().simulator_rate_per_minute
    app = FastAPI(
        title="Kasparro simulator",
        description="CoinGecko, CoinPaprika and one that there is not, from a computed market.",
    )

    def this_minute() -> int:
        return minute_of(clock())

    for vendor in (coingecko, coinpaprika, marketfeed):
        throttle = Throttle(rate, vendor.TOO_MANY_REQUESTS)
        app.include_router(vendor.routes(this_minute), dependencies=[Depends(throttle)])

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {
            "status": "ok",
            "time": clock().isoformat(),
            "coins": {"coingecko": len(listed("coingecko")), "coinpaprika": len(listed("coinpaprika"))},
        }

    @app.exception_handler(HTTPException)
    async def refuse(_: Request, error: HTTPException) -> Response:
        """The vendors' own error bodies, without FastAPI's ``detail`` around them."""
        return JSONResponse(error.detail, error.status_code, error.headers)

    return app


app = create_app()

"""The simulator behind a layer that counts requests and, drawn by a seed, answers badly."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from random import Random
from typing import Any

from kasparro_pipeline.simulator.app import create_app
from kasparro_pipeline.simulator.coins import listed

FAULTS = ("429", "503", "reset", "truncated", "slow")
SOURCES = {"/api/v3": "coingecko", "/v1": "coinpaprika"}
SNAPSHOTS = ("/coins/markets", "/tickers")
PAGE = 40
"""CoinGecko's records a page."""
PAGES = {"coingecko": len(listed("coingecko")) // PAGE + 1, "coinpaprika": 1}
"""That one sweep asks for; the last one has fewer records than `PAGE`, if none."""


@dataclass
class FaultyVendors:
    """An ASGI app. `now` is the market's time, which stands still until it is set."""

    now: datetime
    random: Random
    share: float = 0.0
    """Of the requests, so many are answered badly or slowly."""
    answered: Counter[str] = field(default_factory=Counter)
    """By source: requests that were given the simulator's whole answer."""
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By source and kind: requests that were not."""

    def __post_init__(self) -> None:
        self._app = create_app(clock=lambda: self.now, rate_per_minute=10**9)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].endswith(SNAPSHOTS):
            # A load over midnight asks for the history of the day that has just become past; there is none.
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"{}"})
            return
        source = next(name for path, name in SOURCES.items() if scope["path"].startswith(path))
        fault = self.random.choice(FAULTS) if self.random.random() < self.share else None
        if fault == "truncated" and any(name == b"if-none-match" for name, _ in scope["headers"]):
            fault = "reset"  # a 304 has no body, so half of it is all of it
        if fault == "slow":
            await asyncio.sleep(self.random.uniform(0.02, 0.4))
        if fault in {None, "slow"}:
            self.answered[source] += 1
            await self._app(scope, receive, send)
            return
        self.faults[source, fault] += 1
        if fault == "truncated":
            await self._app(scope, receive, _Halved(send))
        elif fault == "reset":
            send.__self__.transport.abort()
        else:
            headers = [(b"content-length", b"2"), (b"retry-after", b"1")]
            await send({"type": "http.response.start", "status": int(fault), "headers": headers})
            await send({"type": "http.response.body", "body": b"{}"})


class _Halved:
    """Sends the first half of the body, and hangs up."""

    def __init__(self, send: Any) -> None:
        self._send = send

    async def __call__(self, message: Any) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": message["body"][: len(message["body"]) // 2], "more_body": True}
        await self._send(message)
        if message["type"] == "http.response.body":
            await asyncio.sleep(0.01)
            self._send.__self__.transport.close()

"""How the vendors' servers write numbers and times: digits in, the same digits out."""

from __future__ import annotations

import hashlib
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache

import msgspec
from fastapi import Request, Response

from kasparro_pipeline.simulator.market import moment_of

encode = msgspec.json.encode


def tagged(request: Request, body: object) -> Response:
    """`body` as JSON with an ``ETag``; 304 for a client that has it already."""
    content = encode(body)
    etag = f'W/"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
    if request.headers.get("If-None-Match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return Response(content, media_type="application/json; charset=utf-8", headers={"ETag": etag})


def significant(value: Decimal, digits: int) -> Decimal:
    """`value` rounded to so many significant digits."""
    return Context(prec=digits, rounding=ROUND_HALF_EVEN).plus(value)


def whole(value: Decimal | None) -> msgspec.Raw | None:
    """As an integer, however large; null for None."""
    return None if value is None else _raw(f"{value:.0f}")


def ruby(value: Decimal | None) -> msgspec.Raw | None:
    """As Ruby writes a float (CoinGecko): ``19109818.0``, ``1.626e-05``, ``4.2e+17``; null for None."""
    if value is None:
        return None
    if value and not -4 <= value.adjusted() < 16:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return _raw(f"{_with_point(mantissa)}e{int(exponent):+03d}")
    return _raw(_with_point(f"{value:f}"))


def go(value: Decimal) -> msgspec.Raw:
    """As Go writes a float (CoinPaprika): ``44456.514304206``, ``-4``, ``3.422753010803e-7``."""
    if value and not -6 <= value.adjusted() < 21:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return _raw(f"{_trimmed(mantissa)}e{int(exponent):+d}")
    return _raw(_trimmed(f"{value:f}"))


@lru_cache(maxsize=1 << 14)
def milliseconds(minute: int) -> str:
    """``2026-11-23T09:09:00.000Z``."""
    return f"{moment_of(minute):%Y-%m-%dT%H:%M:%S.000Z}"


@lru_cache(maxsize=1 << 14)
def seconds(minute: int) -> str:
    """``2026-11-23T09:09:00Z``."""
    return f"{moment_of(minute):%Y-%m-%dT%H:%M:%SZ}"


def _trimmed(digits: str) -> str:
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _with_point(digits: str) -> str:
    digits = _trimmed(digits)
    return digits if "." in digits else f"{digits}.0"


def _raw(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())

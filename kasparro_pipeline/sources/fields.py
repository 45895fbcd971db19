"""Exact reading of single values: numbers, whole numbers, texts, times.

Every function takes the column it reads for, so that a refusal can name it. Numbers stay the text they came as; nothing
is guessed: what is not plainly a number or a time is refused.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Literal

DateOrder = Literal["dmy", "mdy"]

NULLS = frozenset({"", "-", "n/a", "nan", "null", "none"})
MAX_DIGITS = 1000
"""Of a number, and the largest exponent: far within what NUMERIC holds."""
MAX_TEXT = 500
"""Bytes of an id, a symbol or a name; an index entry of PostgreSQL holds about 2,700."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")
_ZERO = re.compile(r"[+-]?[0.]+(?:[eE][+-]?[0-9]+)?")
_EPOCH = re.compile(r"([0-9]{9,14})(?:\.([0-9]+))?")
_DAY = re.compile(r"[0-9]{1,4}([-/.])[0-9]{1,2}\1[0-9]{1,4}")
_DATE = re.compile(r"([0-9]{1,4})([-/.])([0-9]{1,2})\2([0-9]{4}|[0-9]{2}|[0-9])(?:[T ]+(\S.*))?")
_CLOCK = re.compile(r"([0-9]{1,2})(?::([0-9]{2})(?::([0-9]{2})(?:\.[0-9]+)?)?)?(?:[ -]?([AP]M))?(?: ?(?:UTC|Z))?", re.I)
_EPOCH_MS = 100_000_000_000


class RefusedError(Exception):
    """A value, a record or a payload that cannot be taken: a code for machines and one sentence for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def is_null(value: str) -> bool:
    """Whether a source writes this for "not known": nothing, ``-``, ``N/A``, ``nan``, ``null`` or ``None``."""
    return value.strip().casefold() in NULLS


def is_zero(number: str) -> bool:
    """Whether the text of a number is some way to write 0."""
    return number[0] in "0.+-" and _ZERO.fullmatch(number) is not None


def number(column: str, value: str) -> str | None:
    """The number as the source wrote it, fit for PostgreSQL's NUMERIC; None for a null.

    Raises:
        RefusedError: ``bad_number`` or ``number_out_of_range``.
    """
    match = _NUMBER.fullmatch(value)
    if match is None:
        if is_null(value):
            return None
        if value != value.strip():
            return number(column, value.strip())
        raise RefusedError("bad_number", f"{column}: {shown(value)} is not a plain decimal number")
    exponent = match[1]
    if len(value) > MAX_DIGITS or (exponent and (len(exponent) > 5 or abs(int(exponent)) > MAX_DIGITS)):
        raise RefusedError(
            "number_out_of_range",
            f"{column}: {shown(value)} has over {MAX_DIGITS} digits or an exponent beyond ±{MAX_DIGITS}",
        )
    return value


def whole(column: str, value: str) -> int | None:
    """A whole number of 64 bits, also written as ``7.0``; None for a null.

    Raises:
        RefusedError: ``bad_number`` or ``number_out_of_range``.
    """
    if len(value) < 19 and value.isascii() and value.isdecimal():
        return int(value)
    digits = number(column, value)
    if digits is None:
        return None
    exact = Decimal(digits)
    if abs(exact) >= 2**63:
        raise RefusedError("number_out_of_range", f"{column}: {shown(value)} does not fit 64 bits")
    if exact != int(exact):
        raise RefusedError("bad_number", f"{column}: {shown(value)} is not a whole number")
    return int(exact)


def text(column: str, value: str | int) -> str | None:
    """The text (or an id that is a number) as it came, without blanks around it; None for an empty one.

    Raises:
        RefusedError: ``bad_text`` for characters that PostgreSQL cannot hold, or more than `MAX_TEXT` bytes.
    """
    value = str(value).strip()
    if "\0" in value:
        raise RefusedError("bad_text", f"{column}: {shown(value)} holds a NUL character")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise RefusedError("bad_text", f"{column}: {shown(value)} is not valid Unicode") from None
    if size > MAX_TEXT:
        raise RefusedError("bad_text", f"{column}: {shown(value)} is longer than {MAX_TEXT} bytes")
    return value or None


@lru_cache(maxsize=4096)
def moment(column: str, value: str, order: DateOrder | None = None) -> datetime:
    """The time `value` names, aware, in UTC; one without a zone is taken as UTC, a day as its first instant.

    Read are ISO 8601, seconds and milliseconds since 1970, ``2019-10-17 09-AM``, and, once `order` says whether the day
    or the month comes first, ``17/10/2019`` and ``17-10-19 23:59``.

    Raises:
        RefusedError: ``bad_time``.
    """
    try:
        return _iso(value) or _epoch(value) or _dated(value, order)
    except (ValueError, OverflowError):
        pass
    hint = ""
    if numeric_order(value) == "either" and order is None:
        hint = " (day and month are not told apart)"
    raise RefusedError("bad_time", f"{column}: {shown(value)} is no time that can be read{hint}")


def is_day(value: str) -> bool:
    """Whether a time names a day and nothing finer."""
    return _DAY.fullmatch(value) is not None


def numeric_order(value: str) -> DateOrder | Literal["either"] | None:
    """Which order a date like ``02-10-17`` has by itself; None where it is no such date."""
    match = _DATE.fullmatch(value)
    if match is None or len(match[1]) > 2 or len(match[4]) == 1:
        return None
    first, second = int(match[1]), int(match[3])
    day_first, month_first = (1 <= day <= 31 and 1 <= month <= 12 for day, month in ((first, second), (second, first)))
    if day_first and month_first:
        return "either"
    return "dmy" if day_first else "mdy" if month_first else None


def shown(value: str) -> str:
    """`value` quoted for a message, cut to a length that can be read."""
    return repr(value if len(value) <= 80 else value[:80] + "…")


def _iso(value: str) -> datetime | None:
    if value[4:5] != "-" or value[7:8] != "-":
        return None
    try:
        found = datetime.fromisoformat(value.removesuffix(" UTC"))
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _epoch(value: str) -> datetime | None:
    match = _EPOCH.fullmatch(value)
    if match is None:
        return None
    whole_part, microseconds = int(match[1]), int((match[2] or "0")[:6].ljust(6, "0"))
    if whole_part < _EPOCH_MS:
        return datetime.fromtimestamp(whole_part, UTC).replace(microsecond=microseconds)
    seconds, milliseconds = divmod(whole_part, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=milliseconds * 1000 + microseconds // 1000)


def _dated(value: str, order: DateOrder | None) -> datetime:
    match = _DATE.fullmatch(value)
    if match is None:
        raise ValueError(value)
    first, _, second, third, clock = match.groups()
    if len(first) == 4 and len(third) <= 2:
        year, month, day = int(first), int(second), int(third)
    elif order is not None and len(first) <= 2 and len(third) >= 2:
        year = int(third) if len(third) == 4 else 2000 + int(third)
        day, month = (int(first), int(second)) if order == "dmy" else (int(second), int(first))
    else:
        raise ValueError(value)
    return datetime(year, month, day, *_clock(clock), tzinfo=UTC)


def _clock(value: str | None) -> tuple[int, int, int]:
    if value is None:
        return 0, 0, 0
    match = _CLOCK.fullmatch(value.strip())
    if match is None or not (match[2] or match[4]):
        raise ValueError(value)
    hour = int(match[1])
    if match[4]:
        if not 1 <= hour <= 12:
            raise ValueError(value)
        hour = hour % 12 + (12 if match[4].upper() == "PM" else 0)
    return hour, int(match[2] or 0), int(match[3] or 0)

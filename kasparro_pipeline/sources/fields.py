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

DateOrder = Literal["dmy", "mdy", "ymd"]
"""Of the numbers in a date whose year is not plain to see."""

NULLS = frozenset({"", "-", "--", "n/a", "na", "#n/a", "nan", "null", "none", "\\n"})
MAX_DIGITS = 1000
"""Of a number, and the largest exponent: far within what NUMERIC holds."""
MAX_TEXT = 500
"""Bytes of an id, a symbol or a name; an index entry of PostgreSQL holds about 2,700."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE]([+-]?[0-9]+))?")
_ZERO = re.compile(r"[+-]?[0.]+(?:[eE][+-]?[0-9]+)?")
_EPOCH = re.compile(r"([0-9]{9,19})(?:\.([0-9]+))?")
_DATE = re.compile(r"([0-9]{1,4})([-/.])([0-9]{1,2})\2([0-9]{4}|[0-9]{2}|[0-9])(?:[T ]+(\S.*))?")
_MONTH_FIRST = re.compile(r"([A-Za-z]{3,9})\.? +([0-9]{1,2})(?:st|nd|rd|th)?,? +([0-9]{4})(?:,? +(\S.*))?")
_DAY_FIRST = re.compile(
    r"(?:[A-Za-z]{3}, +)?([0-9]{1,2})(?:st|nd|rd|th)?[ -]([A-Za-z]{3,9})\.?,?[ -]([0-9]{4}|[0-9]{2})(?:,? +(\S.*))?"
)
_CLOCK = re.compile(
    r"([0-9]{1,2})(?::([0-9]{2})(?::([0-9]{2})(?:\.([0-9]+))?)?)?(?:[ -]?([AP]M))?(?: ?(?:UTC|GMT|Z))?", re.I
)
_BEFORE_CLOCK = ("", " ", "T", "t")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTH_OF = {name[:size]: month for month, name in enumerate(_MONTHS, 1) for size in (3, len(name))} | {"sept": 9}
_EPOCH_UNITS = ((100_000_000_000, 0), (100_000_000_000_000, 3), (100_000_000_000_000_000, 6), (10**19, 9))
"""Below which number an epoch counts in seconds, and in which power of ten of their parts."""


class RefusedError(Exception):
    """A value, a record or a payload that cannot be taken: a code for machines and one sentence for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def is_null(value: str) -> bool:
    """Whether a source writes this for "not known": nothing, ``-``, ``N/A``, ``nan``, ``null``, ``None``, ``\\N``."""
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

    Read are ISO 8601, seconds, milliseconds, microseconds and nanoseconds since 1970, ``2019-10-17 09-AM``,
    ``Feb 20, 2018``, ``20 Feb 2018``, and, once `order` says which number is which, ``17/10/2019`` and
    ``17-10-19 23:59``. What is finer than a microsecond is cut off.

    Raises:
        RefusedError: ``bad_time``.
    """
    try:
        return _iso(value) or _epoch(value) or _named(value) or _dated(value, order)
    except (ValueError, OverflowError):
        pass
    hint = ""
    if order is None and len(date_orders(value)) > 1:
        hint = " (day and month are not told apart)"
    raise RefusedError("bad_time", f"{column}: {shown(value)} is no time that can be read{hint}")


def is_day(value: str) -> bool:
    """Whether a time names a day and nothing finer."""
    return any(
        match is not None and match[match.re.groups] is None
        for match in (form.fullmatch(value) for form in (_DATE, _MONTH_FIRST, _DAY_FIRST))
    )


def date_orders(value: str, latest_year: int = 2099) -> frozenset[DateOrder]:
    """The orders in which a date like ``02-10-17`` is one from 2009 to `latest_year`; none where it is no such date."""
    match = _DATE.fullmatch(value)
    if match is None or len(match[1]) > 2 or len(match[4]) == 1:
        return frozenset()
    first, second, third = int(match[1]), int(match[3]), int(match[4])
    ways: dict[DateOrder, tuple[int, int, int]] = {"dmy": (third, second, first), "mdy": (third, first, second)}
    if len(match[4]) == 2:
        ways["ymd"] = (first, second, third)
    return frozenset(order for order, way in ways.items() if _is_possible(*way, latest_year))


def _is_possible(year: int, month: int, day: int, latest_year: int) -> bool:
    year = year if year > 99 else 2000 + year
    return 1 <= month <= 12 and 1 <= day <= 31 and 2009 <= year <= latest_year


def shown(value: str) -> str:
    """`value` quoted for a message, cut to a length that can be read."""
    return repr(value if len(value) <= 80 else value[:80] + "…")


def _iso(value: str) -> datetime | None:
    if value[4:5] != "-" or value[7:8] != "-" or value[10:11] not in _BEFORE_CLOCK:
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
    whole_part = int(match[1])
    places = next(places for below, places in _EPOCH_UNITS if whole_part < below)
    seconds, rest = divmod(whole_part, 10**places)
    fraction = f"{rest:0{places}}" * bool(places) + (match[2] or "")
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=_microseconds(fraction))


def _microseconds(fraction: str) -> int:
    return int(fraction[:6].ljust(6, "0"))


def _named(value: str) -> datetime | None:
    if match := _MONTH_FIRST.fullmatch(value):
        month, day, year, clock = match.groups()
    elif match := _DAY_FIRST.fullmatch(value):
        day, month, year, clock = match.groups()
    else:
        return None
    number = _MONTH_OF.get(month.lower())
    if number is None:
        raise ValueError(value)
    return datetime(_full_year(year), number, int(day), *_clock(clock), tzinfo=UTC)


def _dated(value: str, order: DateOrder | None) -> datetime:
    match = _DATE.fullmatch(value)
    if match is None:
        raise ValueError(value)
    first, _, second, third, clock = match.groups()
    if len(first) == 4 and len(third) <= 2:
        year, month, day = first, second, third
    elif order is None or len(first) > 2 or len(third) == 1:
        raise ValueError(value)
    elif order == "ymd":
        year, month, day = first, second, third
        if len(third) == 4:
            raise ValueError(value)
    else:
        year = third
        day, month = (first, second) if order == "dmy" else (second, first)
    return datetime(_full_year(year), int(month), int(day), *_clock(clock), tzinfo=UTC)


def _full_year(year: str) -> int:
    return int(year) if len(year) == 4 else 2000 + int(year)


def _clock(value: str | None) -> tuple[int, int, int, int]:
    if value is None:
        return 0, 0, 0, 0
    match = _CLOCK.fullmatch(value.strip())
    if match is None or not (match[2] or match[5]):
        raise ValueError(value)
    hour = int(match[1])
    if match[5]:
        if not 1 <= hour <= 12:
            raise ValueError(value)
        hour = hour % 12 + (12 if match[5].upper() == "PM" else 0)
    return hour, int(match[2] or 0), int(match[3] or 0), _microseconds(match[4] or "")

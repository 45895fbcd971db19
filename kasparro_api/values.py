"""The words of a request and of a cursor, read one by one into values that can be bound to a query.

Each reader takes text and raises `ValueError` with what is wrong and what to write instead.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

from pydantic import BeforeValidator

MAX_NAMES = 500
MAX_DIGITS = 1000
_INTEGERS = (-(2**63), 2**63 - 1)


def day(text: str) -> date:
    """A day, YYYY-MM-DD."""
    try:
        if len(text) == len("YYYY-MM-DD"):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError("not a day: write YYYY-MM-DD")


def time(text: str) -> datetime:
    """A time in UTC; one without an offset is UTC already."""
    try:
        if re.match(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d", text):
            found = datetime.fromisoformat(text)
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("not a time: write YYYY-MM-DDTHH:MM:SSZ")


def moment(text: str) -> date | datetime:
    """A day or a time."""
    try:
        return day(text) if len(text) == len("YYYY-MM-DD") else time(text)
    except ValueError:
        raise ValueError("not a day or time: write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ") from None


def decimal(text: str) -> Decimal:
    """An exact number."""
    try:
        number = Decimal(text)
        if number.is_finite() and len(text) <= MAX_DIGITS and abs(number.adjusted()) <= MAX_DIGITS:
            return number
    except InvalidOperation:
        pass
    raise ValueError("not a decimal number such as 0.25 or 1e-9")


def sortable(text: str) -> Decimal:
    """An exact number, or the least of all, which stands for none."""
    return Decimal("-Infinity") if text == "-Infinity" else decimal(text)


def integer(text: str) -> int:
    """An integer of 64 bits."""
    if re.fullmatch(r"-?\d{1,19}", text, re.ASCII) and _INTEGERS[0] <= int(text) <= _INTEGERS[1]:
        return int(text)
    raise ValueError("not an integer")


def word(text: str) -> str:
    """Text that PostgreSQL can hold."""
    try:
        text.encode()  # half a surrogate pair cannot be
    except UnicodeEncodeError:
        raise ValueError("unreadable") from None
    if "\x00" in text:
        raise ValueError("unreadable")
    return text


def names(text: str) -> list[str]:
    """A comma list."""
    found = [name.strip() for name in text.split(",")]
    if any(not name or "\x00" in name for name in found):
        raise ValueError("a list with an empty or unreadable name: write a,b,c")
    if len(found) > MAX_NAMES:
        raise ValueError(f"a list of {len(found)} names: give {MAX_NAMES} at most")
    return found


def search(text: str) -> str:
    """Words to search for, as a `tsquery` that asks for all of them, each as the beginning of a word."""
    words = re.findall(r"[^\W_]+", text)
    if not words or len(text) > 200:
        raise ValueError("nothing to search for: give letters or digits, 200 characters at most")
    return " & ".join(f"'{found}':*" for found in words)


def first_instant(moment: date | datetime) -> datetime:
    """The moment itself, or the beginning of the day (UTC)."""
    return moment if isinstance(moment, datetime) else datetime.combine(moment, datetime.min.time(), UTC)


def last_instant(moment: date | datetime) -> datetime:
    """The moment itself, or the end of the day (UTC), to the microsecond, as PostgreSQL keeps times."""
    return moment if isinstance(moment, datetime) else datetime.combine(moment, datetime.max.time(), UTC)


Moment = Annotated[date | datetime, BeforeValidator(moment, json_schema_input_type=str)]
Time = Annotated[datetime, BeforeValidator(time, json_schema_input_type=str)]
ExactNumber = Annotated[Decimal, BeforeValidator(decimal, json_schema_input_type=str)]
Names = Annotated[list[str], BeforeValidator(names, json_schema_input_type=str)]
Words = Annotated[str, BeforeValidator(search, json_schema_input_type=str)]


def documented(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter as OpenAPI tells it, from its JSON schema."""
    (kind,) = [option for option in schema.pop("anyOf", [{}]) if option.get("type") != "null"]
    told = {"name": name, "in": "query", "required": False, "description": schema.pop("description")}
    del schema["title"]
    if schema.get("default", ...) is None:
        del schema["default"]
    return {**told, "schema": {**schema, **kind}}

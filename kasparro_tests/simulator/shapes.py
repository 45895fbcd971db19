"""JSON read without losing how its numbers were written, and compared with a shape field by field."""

import json
import re
from typing import Any


class Number(str):
    """A JSON number, as the digits that came."""

    __slots__ = ()


INTEGER = r"-?(0|[1-9]\d*)"
RUBY_FLOAT = r"-?\d+\.\d+(e[+-]\d{2,})?"
RUBY_NUMBER = rf"{INTEGER}|{RUBY_FLOAT}"
GO_FLOAT = r"-?\d+(\.\d*[1-9])?(e[+-]\d+)?"


def read(body: bytes) -> Any:
    return json.loads(body, parse_int=Number, parse_float=Number, parse_constant=None)


def mismatches(record: dict[str, Any], shape: dict[str, Any], nullable: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong with `record`: names, their order, and each value against the shape's pattern or nested shape."""
    if list(record) != list(shape):
        return [f"fields {list(record)}"]
    wrong = []
    for field, expected in shape.items():
        value = record[field]
        if value is None:
            wrong += [] if field in nullable else [f"{field}: null"]
        elif isinstance(expected, dict):
            wrong += [f"{field}.{inner}" for inner in mismatches(value, expected, nullable)]
        elif not _fits(value, expected):
            wrong.append(f"{field}: {value!r}")
    return wrong


def number(pattern: str) -> tuple[str, type]:
    return pattern, Number


def _fits(value: Any, expected: Any) -> bool:
    if isinstance(expected, tuple):
        pattern, kind = expected
        return type(value) is kind and bool(re.fullmatch(pattern, value))
    if isinstance(expected, str):
        return type(value) is str and bool(re.fullmatch(expected, value))
    return value is expected

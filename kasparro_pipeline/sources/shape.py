"""The shape of a source's records: which fields they have, of which types; and what changed in it.

Only a sample of a payload's records is looked at. A field that comes and goes from record to record is part of the
shape and no change in it: what counts is the share of records that have it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

import msgspec
from rapidfuzz import fuzz

from kasparro_pipeline.sources.fields import NULLS, RefusedError, number, shown
from kasparro_pipeline.sources.json_text import UNREADABLE

Kind = Literal["new", "missing", "retyped", "renamed"]

SAMPLE = 40
"""Records of a payload that are looked at, evenly spaced."""
STEADY = Decimal("0.5")
"""A field that at least so many records have is expected in every payload, and news where it was not known."""
GONE = Decimal("0.05")
"""A steady field that fewer records have than this is missing."""
MIN_CONFIDENCE = Decimal("0.5")
"""From here on, a missing field and a new one are taken for one that was renamed."""
MAX_FIELDS = 300
MAX_DEPTH = 5
MAX_EXAMPLE = 200

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class Field:
    """What is known of a field."""

    share: Decimal = Decimal(1)
    """Of the records that have it, 0 to 1; the least of all payloads that were learned from."""
    types: set[str] = field(default_factory=set)
    """``text``, ``number``, ``boolean``, ``list``, ``object``; of null nothing is learned."""
    example: str | None = None
    """A value, as text."""
    present: bool = True
    """False once it is known to be missing."""


Shape = dict[str, Field]
"""Dotted path in a record, or header name, to what is known of it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field whose standing changed."""

    kind: Kind
    path: str
    example: str | None
    detail: str
    renamed_to: str | None = None
    confidence: Decimal | None = None
    """Of `renamed_to`, 0 to 1."""


def json_shape(records: Sequence[msgspec.Raw | bytes], wanted: Iterable[str]) -> Shape:
    """The shape of these records. A field of `wanted` that no sampled record has is looked for in all of them."""
    read = frozenset(path[:end] for path in wanted for end in (*_dots(path), len(path)))
    found = _shape_of([dict(_flat(record, read)) for record in map(_object, sampled(records))])
    for path in set(wanted) - found.keys():
        value = next((value for record in records for key, value in _flat(_object(record), read) if key == path), None)
        if value is not None:
            found[path] = Field(Decimal(0), {value[0]} - {"null"}, value[1])
    return found


def table_shape(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Shape:
    """The shape of a file with this header; types and examples are those of `rows`."""
    shape = {name: Field() for name in header if name}
    for row in rows:
        for name, value in zip(header, row, strict=False):
            if name and value.strip().casefold() not in NULLS:
                known = shape[name]
                known.types.add(_type_of_text(value))
                known.example = known.example or value[:MAX_EXAMPLE]
    return shape


def changes(known: Shape, seen: Shape) -> list[Change]:
    """What is otherwise in `seen` than in `known`, of the fields that are part of it now."""
    missing = [
        path
        for path, before in known.items()
        if before.present and before.share >= STEADY and _share(seen, path) < GONE
    ]
    new = [path for path, now in seen.items() if path not in known and now.share >= STEADY]
    renamed = _renamed(known, seen, missing, new)
    found = [
        Change(
            "renamed",
            path,
            seen[to].example,
            f"the field {path!r} is gone and {to!r} is new; {confidence:.0%} sure that it became that",
            to,
            confidence,
        )
        for path, (to, confidence) in renamed.items()
    ]
    found += [
        Change("missing", path, known[path].example, f"the field {path!r} is in no record any more")
        for path in missing
        if path not in renamed
    ]
    taken = {to for to, _ in renamed.values()}
    found += [
        Change("new", path, seen[path].example, f"the field {path!r} was not known")
        for path in new
        if path not in taken
    ]
    return found + [
        Change("retyped", path, now.example, f"the field {path!r} was {_either(known[path])} and is {_either(now)}")
        for path, now in seen.items()
        if path in known and is_retyped(known[path], now)
    ]


def is_retyped(known: Field, seen: Field) -> bool:
    """Whether no value has a type that it had before."""
    return bool(known.types and seen.types and not known.types & seen.types)


def learn(known: Shape, seen: Shape, retyped: Iterable[str] = ()) -> None:
    """Take `seen` into `known`; the types of fields that are `retyped` are left as they were."""
    kept = set(retyped)
    for path, now in seen.items():
        before = known.get(path)
        if before is None:
            known[path] = Field(now.share, set(now.types), now.example)
            continue
        before.present = True
        before.share = min(before.share, now.share)
        before.example = before.example or now.example
        if path not in kept:
            before.types |= now.types


def sampled(records: Sequence[Any]) -> list[Any]:
    """At most `SAMPLE` of them, evenly spaced, the first and the last included."""
    if len(records) <= SAMPLE:
        return list(records)
    step = (len(records) - 1) / (SAMPLE - 1)
    return [records[round(place * step)] for place in range(SAMPLE)]


def _object(record: msgspec.Raw | bytes) -> Any:  # noqa: ANN401 - whatever the JSON is
    try:
        return _decode(record)
    except UNREADABLE:
        return None


def _dots(path: str) -> list[int]:
    return [place for place, char in enumerate(path) if char == "."]


def _flat(
    value: Any,  # noqa: ANN401
    read: frozenset[str],
    path: str = "",
    depth: int = 0,
) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """Each field below `value` with its type and its value as text; objects are there, and what is in them too.

    Of an array only those items are fields that something in `read` leads to.
    """
    if isinstance(value, list):
        places = {str(place): item for place, item in enumerate(value)}
        value = {key: item for key, item in places.items() if (f"{path}.{key}" if path else key) in read}
    if not isinstance(value, dict) or depth == MAX_DEPTH:
        return
    for key, inner in value.items():
        name = str(key)[:MAX_EXAMPLE].replace("\0", "\\x00")
        below = f"{path}.{name}" if path else name
        yield below, _typed(inner)
        if inner is None:  # and so is what would lie in it
            yield from ((leaf, _typed(None)) for leaf in read if leaf.startswith(f"{below}."))
        yield from _flat(inner, read, below, depth + 1)


def _typed(value: Any) -> tuple[str, str | None]:  # noqa: ANN401
    match value:
        case None:
            return "null", None
        case bool():
            return "boolean", str(value).lower()
        case int() | float():
            return "number", str(value)[:MAX_EXAMPLE]
        case str():
            return "text", value[:MAX_EXAMPLE].replace("\0", "\\x00")
        case list():
            return "list", None
        case _:
            return "object", None


def _shape_of(flat: Sequence[Mapping[str, tuple[str, str | None]]]) -> Shape:
    counts: dict[str, int] = {}
    shape: Shape = {}
    for record in flat:
        for path, (kind, example) in record.items():
            if path not in shape and len(shape) >= MAX_FIELDS:
                continue
            known = shape.setdefault(path, Field())
            counts[path] = counts.get(path, 0) + 1
            known.types |= {kind} - {"null"}
            known.example = known.example or example
    for path, known in shape.items():
        known.share = (Decimal(counts[path]) / len(flat)).quantize(Decimal("0.0001"))
    return shape


def _type_of_text(value: str) -> str:
    try:
        return "text" if number("", value) is None else "number"
    except RefusedError:
        return "text"


def _share(shape: Shape, path: str) -> Decimal:
    return shape[path].share if path in shape else Decimal(-1)


def _renamed(known: Shape, seen: Shape, missing: Sequence[str], new: Sequence[str]) -> dict[str, tuple[str, Decimal]]:
    """The likeliest pairs of a missing and a new field, each field once."""
    pairs = [(_likeness(old, known[old], to, seen[to]), old, to) for old in missing for to in new]
    found: dict[str, tuple[str, Decimal]] = {}
    taken: set[str] = set()
    for confidence, old, to in sorted(pairs, reverse=True):
        if confidence >= MIN_CONFIDENCE and old not in found and to not in taken:
            found[old] = (to, confidence)
            taken.add(to)
    return found


def _likeness(old: str, before: Field, to: str, now: Field) -> Decimal:
    """How likely it is, 0 to 1, that one field became the other: half by name, half by type and value."""
    names = [" ".join(word.lower() for word in _WORD.findall(path)) for path in (old, to)]
    by_name = max(fuzz.ratio(*names), 0.9 * fuzz.token_set_ratio(*names)) / 100
    if before.types and now.types and not before.types & now.types:
        return Decimal(str(round(by_name * 0.5, 3)))
    by_type = 1.0 if before.types and now.types else 0.5
    return Decimal(str(round(by_name * 0.5 + by_type * 0.2 + _alike(before.example, now.example) * 0.3, 3)))


def _alike(before: str | None, now: str | None) -> float:
    """How alike two values are: numbers by their magnitude, texts by their characters."""
    if before is None or now is None:
        return 0.5
    if before == now:
        return 1.0
    if _type_of_text(before) == _type_of_text(now) == "number":
        one, other = float(before), float(now)
        if not one or not other or (one < 0) != (other < 0):
            return 0.3
        return max(0.0, 1 - abs(math.log10(abs(one)) - math.log10(abs(other))) / 3)
    return fuzz.ratio(_pattern(before), _pattern(now)) / 100


def _pattern(text: str) -> str:
    return re.sub(r"[0-9]", "0", re.sub(r"[^\W\d_]", "a", text))


def _either(known: Field) -> str:
    return " or ".join(sorted(known.types)) + (f" ({shown(known.example)})" if known.example is not None else "")

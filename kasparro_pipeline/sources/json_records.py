"""Records of a JSON answer to observations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import numpy as np

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.collect import FIRST_DAY, ROW_COLUMNS, Collector, Row, unreadable
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.json_columns import JsonColumns
from kasparro_pipeline.sources.json_text import UNREADABLE, Path, records_at, value_at
from kasparro_pipeline.sources.plain import together
from kasparro_pipeline.sources.records import NUMBER_COLUMNS, Delivery, ParsedPayload

AT_ONCE = 1000
"""Records from which on they are read column by column; that begins slower, and then goes twice as fast."""
_TEXT = str | int | None
_TEXT_COLUMNS = frozenset({"source_coin_id", "symbol", "name"})
_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
NUMBERS = (*NUMBER_COLUMNS, "rank")
RANK = ROW_COLUMNS.index("rank")
_PLAIN = r"(?:-?[0-9]{1,40}+(?:\.[0-9]{1,40}+)?+(?:[eE][-+]?[0-9]{1,2}+)?+|null)"
_ABSENT = msgspec.Raw(b"null")
"""A number column that the record does not have; told from a null by being this object."""
_NULL = msgspec.Raw(b"null")
"""A number column in an object that is null."""
MAX_PLACE = 100
"""From there on a number in a path is a name, such as CoinMarketCap's for a currency, and no place in an array."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_string = msgspec.json.Decoder(str).decode


@dataclass(frozen=True, slots=True)
class JsonMapping:
    """Where a source's records are in its answer, and where each column is in a record.

    Raises:
        KasparroError: a column is not known or needed and missing, or one path leads through another's value.
    """

    columns: Mapping[str, Path]
    """Column to path in the record; without ``observed_at`` the time of fetching counts."""
    record_path: Path = ()
    """Path to the array of records; empty: the answer itself."""
    time_path: Path = ()
    """Path in the answer to the time of all its records, where they have none of their own."""
    zero_is_null: frozenset[str] = frozenset()
    """Number columns in which the source writes 0 for "not known"."""
    one_coin: bool = False
    """All records are about the coin that was asked for, and do not name it."""

    def __post_init__(self) -> None:
        unknown = (set(self.columns) | self.zero_is_null) - set(ROW_COLUMNS)
        if unknown:
            raise KasparroError(f"mapping: no column {', '.join(sorted(unknown))}; there are {', '.join(ROW_COLUMNS)}")
        needed = {"price_usd", "observed_at"} if self.one_coin else {"price_usd", "source_coin_id"}
        missing = needed - set(self.columns)
        if missing:
            raise KasparroError(f"mapping: {', '.join(sorted(missing))} must be mapped")
        if self.time_path and "observed_at" in self.columns:
            raise KasparroError("mapping: the time is given twice, by time_path and by the column observed_at")
        paths = set(self.columns.values())
        for path in paths:
            if not path or any(path[:length] in paths for length in range(1, len(path))):
                raise KasparroError(
                    f"mapping: {'.'.join(path) or 'an empty path'} leads through another column's value"
                )

    @property
    def uses_fetched_at(self) -> bool:
        """Whether the source gives no time of its own, so that the same bytes are news each time they come."""
        return "observed_at" not in self.columns and not self.time_path


class Coin(NamedTuple):
    """What a source calls one coin."""

    source_coin_id: str
    symbol: str | None
    name: str | None


def parse_json(
    delivery: Delivery, mapping: JsonMapping, first_day: date = FIRST_DAY, coin: Coin | None = None
) -> ParsedPayload:
    """The observations of one JSON payload; what is no observation is quarantined with its reason.

    `coin` is whom the records are about, where they do not name it.
    """
    try:
        records = records_at(delivery.body, mapping.record_path)
        constants = _told_of_all(delivery, mapping)
    except RefusedError as refused:
        return unreadable(delivery, refused)
    reader = _reader(tuple(mapping.columns.items()), mapping.zero_is_null)
    if coin is not None:
        constants |= coin._asdict()
    blank = [constants.get(name) for name in ROW_COLUMNS]

    def one_by_one(positions: Iterable[int]) -> ParsedPayload:
        collector = Collector(delivery, lambda position: f"{delivery.request} record {position}", first_day)
        for position in positions:
            record = records[position - 1]
            try:
                collector.take(position, reader.row(record, blank), record)
            except RefusedError as refused:
                collector.refuse(position, refused, record)
        return collector.parsed()

    every = range(1, len(records) + 1)
    plain = reader.columns(records, constants) if len(records) >= AT_ONCE else None
    if plain is None:
        return one_by_one(every)
    return together(plain, delivery, first_day, lambda positions: one_by_one(np.setdiff1d(every, positions).tolist()))


def _told_of_all(delivery: Delivery, mapping: JsonMapping) -> dict[str, object]:
    """What all records of the delivery have in common: the time, where each has none of its own."""
    if mapping.uses_fetched_at:
        return {"observed_at": delivery.fetched_at}
    if not mapping.time_path:
        return {}
    found = value_at(delivery.body, mapping.time_path)
    moment = None if found is None else _moment_of("observed_at", bytes(found))
    if moment is None:
        raise RefusedError("bad_time", f"the answer has no time at {'.'.join(mapping.time_path)}")
    return {"observed_at": moment}


def coin_ids(records: Iterable[msgspec.Raw | bytes], path: Path) -> set[str]:
    """The coins that `records` are about; `path` leads to the id. Records that have none do not count."""
    read = _id_reader(path)
    return {coin for record in records if (coin := read(record)) is not None}


@lru_cache
def _id_reader(path: Path) -> Callable[[msgspec.Raw | bytes], str | None]:
    shape = _Shape({path: _TEXT})
    decode, value = msgspec.json.Decoder(shape.type).decode, shape.values([path])

    def read(record: msgspec.Raw | bytes) -> str | None:
        try:
            (found,) = value(decode(record))
            return None if found is None else fields.text("source_coin_id", found)
        except (RefusedError, *UNREADABLE):
            return None

    return read


class _Reader:
    """Reads the mapped values of one record, and only those, from its source text.

    The numbers of a record are looked at together: nearly always all are plain, and one match says so.
    """

    def __init__(self, columns: tuple[tuple[str, Path], ...], zero_is_null: frozenset[str]) -> None:
        paths = dict(columns)
        others = [name for name in paths if name not in NUMBERS]
        names = [name for name in NUMBERS if name in paths]
        shape = _Shape({path: _TEXT if name in _TEXT_COLUMNS else msgspec.Raw for name, path in columns})
        self._decode = msgspec.json.Decoder(shape.type).decode
        self._decode_all = msgspec.json.Decoder(list[shape.type]).decode  # type: ignore[name-defined]
        self._names = [*names, *others]
        self._zeros = zero_is_null
        self._values = shape.values([paths[name] for name in (*names, *others)])
        self._price = names.index("price_usd")
        self._price_path = paths["price_usd"]
        self._plan = [(ROW_COLUMNS.index(name), name, converter(name, name in zero_is_null)) for name in names]
        self._slots = [ROW_COLUMNS.index(name) for name in names]
        self._zero_is_null = [ROW_COLUMNS.index(name) for name in names if name in zero_is_null]
        self._others = [(ROW_COLUMNS.index(name), name, converter(name)) for name in others]
        self._are_plain = re.compile(",".join([_PLAIN] * len(names))).fullmatch
        self._has_rank = names[-1] == "rank"

    def columns(self, records: Sequence[msgspec.Raw | bytes], constants: Mapping[str, object]) -> JsonColumns | None:
        """What all records say at once; None where one of them is of another shape, or says what is given."""
        if not constants.keys().isdisjoint(self._names):
            return None
        try:
            decoded = self._decode_all(b"[%b]" % b",".join(records))
        except UNREADABLE:
            return None
        said = dict(zip(self._names, zip(*map(self._values, decoded), strict=True), strict=True))
        columns = JsonColumns(len(records), constants, said, self._zeros, lambda raw: _moment("observed_at", raw))
        columns.leave_out([price is _ABSENT for price in said["price_usd"]])
        return columns

    def row(self, record: msgspec.Raw | bytes, blank: list[Any]) -> Row:
        row = blank.copy()
        try:
            values = self._values(self._decode(record))
            numbers = values[: len(self._plan)]
            for (index, column, convert), value in zip(self._others, values[len(self._plan) :], strict=True):
                if value is not None:
                    row[index] = convert(column, value)
            self._put_numbers(row, numbers)
            if numbers[self._price] is _ABSENT and row[0] is not None:
                raise self._no_price(record)
        except msgspec.ValidationError as error:
            raise RefusedError("bad_type", str(error)) from None
        except RecursionError:
            raise RefusedError("bad_type", "the record is nested too deep") from None
        except UNREADABLE as error:
            if isinstance(error, UnicodeDecodeError) or _SURROGATE.search(bytes(record)):
                raise RefusedError("bad_text", "a text in the record is not valid Unicode") from None
            raise RefusedError("bad_json", str(error)) from None
        return tuple(row)

    def _put_numbers(self, row: list[Any], numbers: tuple[msgspec.Raw, ...]) -> None:
        together = str(b",".join(numbers), "utf-8")
        if self._are_plain(together) is None:
            for (index, column, convert), value in zip(self._plan, numbers, strict=True):
                row[index] = convert(column, value)
            return
        for index, number in zip(self._slots, together.split(","), strict=True):
            if number != "null":
                row[index] = number
        for index in self._zero_is_null:
            known = row[index]
            if known is not None and known[0] in "-0" and fields.is_zero(known):
                row[index] = None
        if self._has_rank and (rank := row[RANK]) is not None:
            row[RANK] = fields.whole("rank", rank)

    def _no_price(self, record: msgspec.Raw | bytes) -> RefusedError:
        *parents, last = self._price_path
        for depth, key in enumerate(parents):
            found = _named(record)
            if key not in found:
                others = f"; it has {fields.shown(', '.join(found))}" if found and depth else ""
                code = "no_usd_quote" if key == "USD" else "missing_price"
                return RefusedError(code, f"the record has no {'.'.join(parents[: depth + 1])}{others}")
            record = found[key]
        return RefusedError("missing_price", f"the record has no field {last!r}")


def _named(record: msgspec.Raw | bytes) -> Mapping[str, msgspec.Raw]:
    """The values in an object by name, or in an array by place."""
    try:
        return _keys(record)
    except msgspec.ValidationError:
        return {str(place): item for place, item in enumerate(_items(record))}


@lru_cache
def _reader(columns: tuple[tuple[str, Path], ...], zero_is_null: frozenset[str]) -> _Reader:
    return _Reader(columns, zero_is_null)


class _Shape:
    """A type that decodes just `leaves` (path to type), and where in it each is.

    What leads to them may be null, and then so are they. Where all keys are numbers it is an array.
    """

    def __init__(self, leaves: Mapping[Path, Any]) -> None:
        branches: dict[str, dict[Path, Any]] = {}
        for path, kind in leaves.items():
            branches.setdefault(path[0], {})[path[1:]] = kind
        self._attributes: dict[Path, str] = {}
        self._below: dict[str, _Shape] = {}
        members: dict[str, tuple[str, Any, Any]] = {}
        for index, (key, below) in enumerate(branches.items()):
            name = f"f{index}"
            if () in below:
                members[key] = (name, below[()], _ABSENT if below[()] is msgspec.Raw else None)
                self._attributes[key,] = name
                continue
            inner = self._below[name] = _Shape(below)
            members[key] = (name, inner.type | None, msgspec.field(default_factory=inner.type))
            self._attributes |= {(key, *path): f"{name}.{told}" for path, told in inner._attributes.items()}
        if all(key.isdecimal() and int(key) < MAX_PLACE for key in members):
            self.type: Any = _array_of({int(key): member for key, member in members.items()})
        else:
            names = {name: key for key, (name, _, _) in members.items()}
            self.type = msgspec.defstruct("Record", members.values(), rename=names, gc=False)

    def values(self, paths: Sequence[Path]) -> Callable[[Any], tuple[Any, ...]]:
        """What tells the leaves at `paths` of a decoded record."""
        attributes = [self._attributes[path] for path in paths]
        get = attrgetter(*attributes) if len(attributes) > 1 else lambda record: (attrgetter(*attributes)(record),)
        if not self._below:
            return get

        def read(record: Any) -> tuple[Any, ...]:  # noqa: ANN401 - one of `type`
            try:
                return get(record)
            except AttributeError:
                self._fill(record)
                return get(record)

        return read

    def _fill(self, record: Any) -> None:  # noqa: ANN401
        """Put nulls where what leads to them is null."""
        for name, inner in self._below.items():
            if getattr(record, name) is None:
                setattr(record, name, inner._nulls())
            else:
                inner._fill(getattr(record, name))

    def _nulls(self) -> Any:  # noqa: ANN401
        nulls = self.type()
        for name in nulls.__struct_fields__:
            if name in self._below:
                setattr(nulls, name, self._below[name]._nulls())
            elif getattr(nulls, name) is _ABSENT:
                setattr(nulls, name, _NULL)
        return nulls


def _array_of(members: Mapping[int, tuple[str, Any, Any]]) -> type[msgspec.Struct]:
    """A type that decodes the items at these places of an array, of which there may be fewer."""
    places = [members.get(place, (f"other{place}", msgspec.Raw, None)) for place in range(max(members) + 1)]
    return msgspec.defstruct("Items", places, array_like=True, gc=False)


def converter(column: str, zero_is_null: bool = False) -> Callable[[str, Any], object]:
    """What reads the column's values: a function of its name and a value, as text or as source text of JSON."""
    if column in _TEXT_COLUMNS:
        return _text
    if column == "observed_at":
        return _moment
    if column == "rank":
        return _rank_but_zero if zero_is_null else _rank
    return _number_but_zero if zero_is_null else _number


def _text(column: str, value: str | int) -> str | None:
    if type(value) is str and value.isascii() and value.isprintable() and len(value) <= fields.MAX_TEXT:
        return value.strip() or None
    return fields.text(column, value)


def _number(column: str, raw: msgspec.Raw) -> str | None:
    return fields.number(column, _scalar(column, str(raw, "utf-8")))


def _number_but_zero(column: str, raw: msgspec.Raw) -> str | None:
    value = _number(column, raw)
    return None if value is None or fields.is_zero(value) else value


def _rank(column: str, raw: msgspec.Raw) -> int | None:
    return fields.whole(column, _scalar(column, str(raw, "utf-8")))


def _rank_but_zero(column: str, raw: msgspec.Raw) -> int | None:
    return _rank(column, raw) or None


def _moment(column: str, raw: msgspec.Raw) -> datetime | None:
    return _moment_of(column, bytes(raw))


@lru_cache(maxsize=4096)
def _moment_of(column: str, source: bytes) -> datetime | None:
    value = _scalar(column, str(source, "utf-8"), "bad_time")
    return fields.moment(column, value) if value else None


def _scalar(column: str, source: str, code: str = "bad_number") -> str:
    """The digits of a number or the content of a string; empty for null."""
    if source[0] in "-0123456789":
        return source
    if source[0] == '"':
        return _string(source)
    if source == "null":
        return ""
    raise RefusedError(code, f"{column}: {fields.shown(source)} is neither a number nor a text")

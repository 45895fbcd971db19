"""How one CSV file is to be read, decided for the file as a whole: encoding, delimiter, header, columns, date order."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import PurePosixPath
from typing import Literal

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.collect import ROW_COLUMNS
from kasparro_pipeline.sources.csv_text import DELIMITERS, records_of, split
from kasparro_pipeline.sources.fields import DateOrder, RefusedError

CoinRule = Literal["id", "slug", "pair", "symbol"]

HEADER_LINES = 20
"""The header is looked for among this many lines."""
RECORDS_WITHOUT_DATE = 1000
"""After so many records without a date like 02-10-17, none is expected."""

_EXTRA_COLUMNS = frozenset({"pair", "time_of_day"})
_BOM = "\ufeff"


@dataclass(frozen=True, slots=True)
class CsvMapping:
    """Which header names mean which column, best first; case, blanks, ``_`` and ``-`` do not count.

    Besides the columns of an observation there are ``pair`` (``BTC/USD``, ``BTCUSD``) and ``time_of_day``, which
    completes a time that is only a day. Of several times in a record the first that can be read counts.

    Raises:
        KasparroError: a column is not known.
    """

    columns: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        unknown = set(self.columns) - set(ROW_COLUMNS) - _EXTRA_COLUMNS
        if unknown:
            known = ", ".join((*ROW_COLUMNS, *sorted(_EXTRA_COLUMNS)))
            raise KasparroError(f"mapping: no column {', '.join(sorted(unknown))}; there are {known}")

    def indexes(self, header: Iterable[str]) -> dict[str, list[int]]:
        """Column to its places in `header`, best first; without the columns that are not there."""
        places: dict[str, int] = {}
        for index, name in enumerate(header):
            places.setdefault(_plain(name), index)
        found = {
            column: [places[_plain(name)] for name in names if _plain(name) in places]
            for column, names in self.columns.items()
        }
        return {column: indexes for column, indexes in found.items() if indexes}


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """The decision for one file. With a `problem`, none of it can be read."""

    delimiter: str = ","
    header: tuple[str, ...] = ()
    header_line: int = 0
    """Line of the file; records begin on the next."""
    coin: CoinRule = "id"
    """What ``source_coin_id`` is made of: an id column, symbol and name, a pair, or the symbol."""
    columns: tuple[tuple[str, int], ...] = ()
    """Column of an observation to index in a record; times apart."""
    times: tuple[int, ...] = ()
    time_of_day: int | None = None
    date_order: DateOrder | None = None
    pair_index: int | None = None
    pair_prefix: str = ""
    """Keeps the pairs of two files apart: the file's name without its ending."""
    problem: tuple[str, str] | None = None
    """Reason code and sentence."""

    @property
    def fingerprint(self) -> str:
        """Changes when equal bytes would be read differently. The same in every process."""
        decided = replace(self, header_line=0)
        return hashlib.sha256(repr(decided).encode("utf-8", "surrogateescape")).hexdigest()[:12]

    def time_texts(self, row: list[str]) -> Iterator[str]:
        """What `row` gives as its time, best first, a bare day completed by the time of day; nulls left out."""
        for index in self.times:
            value = row[index].strip()
            if fields.is_null(value):
                continue
            if self.time_of_day is not None and fields.is_day(value):
                value = f"{value} {row[self.time_of_day].strip()}".strip()
            yield value


def read_dialect(blocks: Iterable[bytes], mapping: CsvMapping, request: str) -> CsvDialect:
    """How to read the file whose `blocks` these are; no more of them are taken than it needs.

    `request` is the file's path below the drop folder. Nothing is raised for a file that cannot be read: see
    `CsvDialect.problem` (``empty_file``, ``binary_file``, ``encoding``, ``no_known_column``, ``ambiguous_dates``).
    """
    rest = iter(blocks)
    first = next(rest, b"")
    try:
        dialect = _find_header(_decode(first), mapping, request)
        return replace(dialect, date_order=_date_order(dialect, chain([first], rest)))
    except RefusedError as refused:
        return CsvDialect(problem=(refused.code, refused.reason))


def _decode(block: bytes) -> str:
    if block.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise RefusedError("encoding", "the file is UTF-16; save it as UTF-8")
    if b"\0" in block:
        raise RefusedError("binary_file", "the file holds NUL bytes: it is no text")
    try:
        text = block.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        raise RefusedError("encoding", f"byte {error.start + 1} of the file is not UTF-8; save it as UTF-8") from None
    if not text.strip():
        raise RefusedError("empty_file", "the file holds no record")
    return text


def _find_header(text: str, mapping: CsvMapping, request: str) -> CsvDialect:
    best: tuple[int, str] = (0, "")
    for line, record in islice(records_of(text), HEADER_LINES):
        for delimiter in DELIMITERS:
            header = _header_fields(record, delimiter)
            found = mapping.indexes(header)
            dialect = _assign(header, found, request)
            if dialect is not None:
                return replace(dialect, delimiter=delimiter, header_line=line)
            if len(found) > best[0] or not best[1]:
                best = (len(found), f"{fields.shown(record.strip())} (line {line})")
    raise RefusedError(
        "no_known_column",
        f"no header with a coin (id, name and symbol, or pair), a time and a price in the first {HEADER_LINES} lines; "
        f"the nearest is {best[1]}",
    )


def _header_fields(record: str, delimiter: str) -> tuple[str, ...]:
    try:
        return tuple(name.strip() for name in split(record, delimiter))
    except RefusedError:
        return ()


def _assign(header: tuple[str, ...], found: Mapping[str, list[int]], request: str) -> CsvDialect | None:
    """The dialect of a file with this header; None where a coin, a time or a price is missing."""
    coin = _coin_rule(found)
    if coin is None or "observed_at" not in found or "price_usd" not in found:
        return None
    left_out = {"observed_at", *_EXTRA_COLUMNS} | ({"symbol"} if coin == "pair" else set())
    times = tuple(found["observed_at"])
    time_of_day = found.get("time_of_day", [None])[0]
    return CsvDialect(
        header=header,
        coin=coin,
        columns=tuple((column, indexes[0]) for column, indexes in found.items() if column not in left_out),
        times=times,
        time_of_day=None if time_of_day == times[0] else time_of_day,
        pair_index=found["pair"][0] if coin == "pair" else None,
        pair_prefix=f"{PurePosixPath(request).stem}:" if coin == "pair" else "",
    )


def _coin_rule(found: Mapping[str, list[int]]) -> CoinRule | None:
    if "source_coin_id" in found:
        return "id"
    if "symbol" in found and "name" in found:
        return "slug"
    if "pair" in found:
        return "pair"
    return "symbol" if "symbol" in found else None


def _date_order(dialect: CsvDialect, blocks: Iterable[bytes]) -> DateOrder | None:
    """The order that the first decisive date gives; None where no date like 02-10-17 is needed.

    Raises:
        RefusedError: ``ambiguous_dates``.
    """
    undecided: str | None = None
    for seen, row in enumerate(_rows(dialect, blocks)):
        if undecided is None and seen >= RECORDS_WITHOUT_DATE:
            return None
        order, value = _order_needed(dialect, row)
        if order in ("dmy", "mdy"):
            return order
        undecided = undecided or value
    if undecided is None:
        return None
    raise RefusedError(
        "ambiguous_dates",
        f"dates like {fields.shown(undecided)} are day first or month first, and no date in the file tells which; "
        "write them as YYYY-MM-DD",
    )


def _order_needed(dialect: CsvDialect, row: list[str]) -> tuple[DateOrder | Literal["either"] | None, str | None]:
    """The order of the time that would be read from `row`, and that time; nothing where it needs no order."""
    for value in dialect.time_texts(row):
        order = fields.numeric_order(value)
        if order is not None:
            return order, value
        try:
            fields.moment("observed_at", value)
        except RefusedError:
            continue
        break
    return None, None


def _rows(dialect: CsvDialect, blocks: Iterable[bytes]) -> Iterator[list[str]]:
    """The records of the file that have all fields; what else there is will be refused later."""
    skip = dialect.header_line
    for block in blocks:
        for line, record in records_of(block.decode("utf-8", "surrogateescape"), dialect.delimiter):
            if line <= skip:
                continue
            try:
                row = split(record, dialect.delimiter)
            except RefusedError:
                continue
            if len(row) == len(dialect.header):
                yield row
        skip = 0


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()

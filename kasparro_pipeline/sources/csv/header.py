"""Which line is the header of a CSV file, and which of its columns means what."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, NamedTuple

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.collect import ROW_COLUMNS
from kasparro_pipeline.sources.csv.coins import NOT_IN_USD, NamedCoin, are_currencies, check_dollars, coin_of_file
from kasparro_pipeline.sources.csv.text import DELIMITERS, records_of, split
from kasparro_pipeline.sources.drops import stem_of
from kasparro_pipeline.sources.fields import RefusedError

CoinRule = Literal["id", "slug", "pair", "symbol", "file", "name"]

HEADER_LINES = 20
"""The header is looked for among this many lines."""
SAMPLE_RECORDS = 1000
"""So many records are looked at; more only while something is in doubt."""
MISSING_ROW_NUMBERS = 20
"""One in so many row numbers may be missing, as rows that cannot be read are."""

EXTRA_COLUMNS = frozenset({"pair", "time_of_day", "quote"})
CSV_COLUMNS = (*ROW_COLUMNS, *sorted(EXTRA_COLUMNS))
"""What header names can mean."""


@dataclass(frozen=True, slots=True)
class CsvMapping:
    """Which header names mean which column, best first; case, blanks, ``_`` and ``-`` do not count.

    Besides the columns of an observation there are ``pair`` (``BTC/USD``, ``BTCUSD``), ``quote``, the currency of the
    price, and ``time_of_day``, which completes a time that is only a day. Of several times in a record the first that
    can be read counts.

    Raises:
        KasparroError: a column is not known.
    """

    columns: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        unknown = set(self.columns) - set(CSV_COLUMNS)
        if unknown:
            raise KasparroError(f"mapping: no column {', '.join(sorted(unknown))}; there are {', '.join(CSV_COLUMNS)}")

    def with_columns(self, columns: Mapping[str, tuple[str, ...]]) -> CsvMapping:
        """This mapping, with other names for some columns."""
        return CsvMapping({**self.columns, **columns})

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
class Layout:
    """Where in a record everything stands."""

    delimiter: str = ","
    header: tuple[str, ...] = ()
    header_line: int = 0
    """Line of the file; records begin on the next. 0: the file has no header."""
    coin: CoinRule = "id"
    """What ``source_coin_id`` is made of: an id column, symbol and name, a pair, the symbol, the file's name, the
    name."""
    columns: tuple[tuple[str, int], ...] = ()
    """Column of an observation to index in a record; times apart."""
    times: tuple[int, ...] = ()
    time_of_day: int | None = None
    pair_index: int | None = None
    pair_prefix: str = ""
    """Keeps the pairs of two files apart: the file's name without its ending."""
    quote_index: int | None = None
    """The column that says what the price is in."""
    named: NamedCoin | None = None
    """The coin that the file is about; with pairs only where its price is in another currency, as theirs may be."""

    @property
    def used(self) -> list[int]:
        """The columns of the file that are read, in their order."""
        others = (self.time_of_day, self.pair_index, self.quote_index)
        return sorted({index for _, index in self.columns} | {*self.times} | {i for i in others if i is not None})


@dataclass(frozen=True, slots=True)
class Given:
    """What is not to be found out, because it is said for the file."""

    delimiter: str | None = None
    header_line: int | None = None
    header: tuple[str, ...] | None = None
    """Names for the columns of a file that has no header."""
    named: NamedCoin | None = None


def find_layout(text: str, mapping: CsvMapping, request: str, given: Given) -> Layout:
    """The layout of the file that begins with `text`: the first line that has a coin, a time and a price.

    Raises:
        RefusedError: ``no_known_column``, ``not_usd``, ``ambiguous_header``, ``ambiguous_pair``.
    """
    if given.header is not None:
        delimiter = given.delimiter or _likely_delimiter(text, len(given.header))
        layout = _checked_layout(text, _Place(0, delimiter, given.header), mapping, request, given)
        if layout is None:
            raise _not_found(" / ".join(given.header))
        return layout
    best: tuple[int, str] = (0, "")
    lines = records_of(text)
    if given.header_line is None:
        lines = islice(lines, HEADER_LINES)
    for line, record in lines:
        if given.header_line not in (None, line):
            continue
        for delimiter in given.delimiter or DELIMITERS:
            header = _header_fields(record, delimiter)
            layout = _checked_layout(text, _Place(line, delimiter, header), mapping, request, given)
            if layout is not None:
                return layout
            found = len(mapping.indexes(header))
            if found > best[0] or not best[1]:
                best = (found, f"{fields.shown(record.strip())} (line {line})")
    raise _not_found(best[1])


def _not_found(nearest: str) -> RefusedError:
    return RefusedError(
        "no_known_column",
        "no header with a coin (id, symbol, name or pair; or a file name like BTC-USD.csv), a time and a price in USD "
        f"in the first {HEADER_LINES} lines; the nearest is {nearest}; name its columns in defs.yaml",
    )


class _Place(NamedTuple):
    """What may be the header."""

    line: int
    delimiter: str
    header: tuple[str, ...]


def _checked_layout(text: str, place: _Place, mapping: CsvMapping, request: str, given: Given) -> Layout | None:
    """The layout of a file with this header, as far as the records bear out what its names say."""
    found = mapping.indexes(place.header)
    layout = _layout(place.header, found, request, given)
    if layout is not None and _doubtful(found, layout):
        rows = _sample(text, place)
        misnamed = {column for column in _doubtful(found, layout) if _is_misnamed(column, found, rows)}
        found = {column: indexes for column, indexes in found.items() if column not in misnamed}
        layout = _layout(place.header, found, request, given)
    if layout is None:
        return None
    _check_names(layout)
    return replace(layout, delimiter=place.delimiter, header_line=place.line)


def _doubtful(found: Mapping[str, list[int]], layout: Layout) -> list[str]:
    """The columns that may be something else than their names say."""
    doubtful = [column for column in ("source_coin_id",) if column in found]
    if "symbol" in found and found["symbol"][0] in found.get("quote", []):
        doubtful.append("symbol")
    if layout.time_of_day is not None:
        doubtful.append("time_of_day")
    return doubtful


def _sample(text: str, place: _Place) -> list[tuple[str, ...]]:
    """The first whole records."""
    rows = (_header_fields(record, place.delimiter) for line, record in records_of(text) if line > place.line)
    return list(islice((row for row in rows if len(row) == len(place.header)), SAMPLE_RECORDS))


def _is_misnamed(column: str, found: Mapping[str, list[int]], rows: Sequence[tuple[str, ...]]) -> bool:
    """Whether row numbers are called ids, the price's currency a symbol, or what is empty a time."""
    values = [row[found[column][0]] for row in rows]
    if column == "time_of_day":
        return all(fields.is_null(value) for value in values)
    if column == "symbol":
        return are_currencies(values)
    others = [found[name][0] for name in ("symbol", "name", "pair") if name in found]
    coins = {tuple(row[other] for other in others) for row in rows}
    return len(coins) < len(rows) and _are_row_numbers(values)


def _are_row_numbers(ids: Sequence[str]) -> bool:
    """Whether they count records: whole numbers, each once, with hardly any missing."""
    if not all(value.isascii() and value.isdecimal() and len(value) < 19 for value in ids):
        return False
    numbers = {int(value) for value in ids}
    if len(numbers) < len(ids) or not numbers:
        return False
    return max(numbers) - min(numbers) < len(ids) + len(ids) // MISSING_ROW_NUMBERS


def _check_names(layout: Layout) -> None:
    """Refuse a header in which another column has the name of one that is read.

    Raises:
        RefusedError: ``ambiguous_header``.
    """
    names = Counter(_plain(name) for name in layout.header)
    for index in layout.used:
        name = layout.header[index]
        if names[_plain(name)] > 1:
            raise RefusedError(
                "ambiguous_header",
                f"{names[_plain(name)]} columns are called {fields.shown(name)}, and nothing tells which counts; "
                "rename all but one of them",
            )


def _likely_delimiter(text: str, width: int) -> str:
    """The one by which most of the first records have `width` fields."""
    records = [record for _, record in islice(records_of(text), HEADER_LINES)]
    return max(DELIMITERS, key=lambda delimiter: sum(len(_header_fields(r, delimiter)) == width for r in records))


def _header_fields(record: str, delimiter: str) -> tuple[str, ...]:
    try:
        return tuple(name.strip() for name in split(record, delimiter))
    except RefusedError:
        return ()


def _layout(header: tuple[str, ...], found: Mapping[str, list[int]], request: str, given: Given) -> Layout | None:
    """The layout of a file with these columns; None where a coin, a time or a price is missing."""
    if "observed_at" not in found or "price_usd" not in found:
        return None
    stem = stem_of(request)
    coin, named = _coin(found, stem, header, given)
    if coin is None:
        return None
    left_out = {"observed_at", *EXTRA_COLUMNS} | ({"symbol"} if coin == "pair" else set())
    times = tuple(found["observed_at"])
    time_of_day = found.get("time_of_day", [None])[0]
    columns = tuple((column, indexes[0]) for column, indexes in found.items() if column not in left_out)
    pair_index = found["pair"][0] if coin == "pair" else None
    taken = {index for _, index in columns} | {pair_index}
    return Layout(
        header=header,
        coin=coin,
        columns=columns,
        times=times,
        time_of_day=None if time_of_day == times[0] else time_of_day,
        pair_index=pair_index,
        pair_prefix=f"{stem}:" if coin == "pair" else "",
        quote_index=next((index for index in found.get("quote", []) if index not in taken), None),
        named=named,
    )


def _coin(
    found: Mapping[str, list[int]], stem: str, header: tuple[str, ...], given: Given
) -> tuple[CoinRule | None, NamedCoin | None]:
    """What the coin is known by; and the coin that the file is about, where that counts."""
    coin = _coin_rule(found)
    of_file: NamedCoin | None
    if given.named:
        coin, of_file = "file", given.named
    elif coin in (None, "name"):
        of_file = coin_of_file(stem, header)
        coin = coin if of_file is None else "file"
    else:
        of_file = _in_another_currency(stem, header)
    if of_file is not None and coin != "pair":
        check_dollars(stem, of_file.quote)
    return coin, of_file


def _in_another_currency(stem: str, header: tuple[str, ...]) -> NamedCoin | None:
    """The coin that the file's name says it is about, where it says its price in another currency."""
    try:
        of_file = coin_of_file(stem, header)
    except RefusedError:
        return None
    return of_file if of_file is not None and of_file.quote in NOT_IN_USD else None


def _coin_rule(found: Mapping[str, list[int]]) -> CoinRule | None:
    if "source_coin_id" in found:
        return "id"
    if "symbol" in found and "name" in found:
        return "slug"
    rules: tuple[CoinRule, ...] = ("pair", "symbol", "name")
    return next((rule for rule in rules if rule in found), None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).casefold()

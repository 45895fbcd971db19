"""What defs.yaml says of some files: their dialect, where it should not or cannot be found out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.csv.coins import NamedCoin, slug
from kasparro_pipeline.sources.csv.encoding import known_encoding, utf16
from kasparro_pipeline.sources.csv.header import CsvMapping, Given


class CoinFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The one coin that a file is about."""

    symbol: str | None = None
    name: str | None = None
    id: str | None = None
    quote: str = "USD"

    @property
    def named(self) -> NamedCoin | None:
        """None where nothing names it."""
        coin_id = self.id or slug(*filter(None, (self.symbol, self.name)))
        return NamedCoin(coin_id, self.symbol, self.name, self.quote) if coin_id else None


class CsvFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How files whose path below the drop folder matches a pattern are to be read; what is left out is found out."""

    match: str
    """``*`` stands for anything, ``/`` included."""
    delimiter: Literal[",", ";", "\t", "|"] | None = None
    encoding: str | None = None
    decimal: Literal[".", ","] | None = None
    date_order: Literal["dmy", "mdy", "ymd"] | None = None
    header_line: int | None = None
    header: list[str] | None = None
    """Names for the columns of a file that has no header."""
    columns: dict[str, str | list[str]] = {}
    coin: CoinFormat | None = None

    @property
    def header_names(self) -> Mapping[str, tuple[str, ...]]:
        """Columns to header names, over those that all files have."""
        return {column: (names,) if isinstance(names, str) else tuple(names) for column, names in self.columns.items()}

    @property
    def given(self) -> Given:
        """What it says of the layout."""
        header = None if self.header is None else tuple(self.header)
        return Given(self.delimiter, self.header_line, header, self.coin.named if self.coin else None)

    def encoding_of(self, head: bytes) -> str | None:
        """The encoding it says the file that begins with `head` is in."""
        if self.encoding is not None and self.encoding.lower().replace("_", "-") in ("utf-16", "utf16"):
            return utf16(head) or "utf-16-le"
        return self.encoding and known_encoding(self.encoding)


def read_formats(entries: Sequence[Mapping[str, Any]]) -> tuple[CsvFormat, ...]:
    """The formats in the order in which they are tried.

    Raises:
        KasparroError: a key is not known or a value is none that it can have.
    """
    return tuple(_read(number, entry) for number, entry in enumerate(entries))


def format_of(request: str, formats: Iterable[CsvFormat]) -> CsvFormat:
    """The first format whose pattern the path matches; else one that says nothing."""
    return next((told for told in formats if fnmatchcase(request, told.match)), CsvFormat(match="*"))


def _read(number: int, entry: Mapping[str, Any]) -> CsvFormat:
    place = f"formats[{number}] ({entry.get('match', 'without match')})"
    try:
        told = msgspec.convert(dict(entry), CsvFormat)
        told.encoding_of(b"")
        CsvMapping(told.header_names)
    except (msgspec.ValidationError, LookupError, KasparroError) as error:
        known = ", ".join(CsvFormat.__struct_fields__)
        raise KasparroError(f"{place}: {error}; the keys are {known}") from None
    if told.header_line is not None and told.header_line < 1:
        raise KasparroError(f"{place}: header_line is {told.header_line}; lines are counted from 1")
    if told.header is not None and told.header_line is not None:
        raise KasparroError(f"{place}: header names the columns of a file without a header; leave out header_line")
    if told.coin is not None and told.coin.named is None:
        raise KasparroError(f"{place}: coin needs a symbol, a name or an id")
    return told

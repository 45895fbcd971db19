"""Single records of a CSV file to observations: the exact path, which every other has to agree with."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime

from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.collect import FIRST_DAY, ROW_COLUMNS, Collector, Row
from kasparro_pipeline.sources.csv import numbers
from kasparro_pipeline.sources.csv.coins import check_dollars, slug, split_pair
from kasparro_pipeline.sources.csv.dialect import CsvDialect, with_all_digits
from kasparro_pipeline.sources.csv.text import split
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.records import NUMBER_COLUMNS, Delivery, ParsedPayload

_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
"""What is left of a mark where files were joined, and of a copy from a page; nobody sees it in a coin's name."""

Identity = tuple[str | None, str | None, str | None]
"""Id, symbol and name."""


def parse_records(
    delivery: Delivery, dialect: CsvDialect, records: Iterable[tuple[int, str]], first_day: date = FIRST_DAY
) -> ParsedPayload:
    """The observations of some records of a block, each with its line in the block; the others are quarantined."""
    line_before = delivery.first_record - 1
    collector = Collector(delivery, lambda position: f"{delivery.request}:{line_before + position}", first_day)
    reader = Reader(dialect)
    for position, record in records:
        try:
            collector.take(position, reader.row(record), record)
        except RefusedError as refused:
            collector.refuse(position, refused, record)
    return collector.parsed()


class Reader:
    """Reads the records of one file."""

    def __init__(self, dialect: CsvDialect) -> None:
        self._dialect = dialect
        self._layout = layout = dialect.layout
        places = dict(layout.columns)
        self._coin, self._symbol, self._name, self._rank = (
            places.get(column) for column in ("source_coin_id", "symbol", "name", "rank")
        )
        self._decimals = dict(dialect.decimals)
        self._numbers = [(ROW_COLUMNS.index(name), name, places[name]) for name in NUMBER_COLUMNS if name in places]

    def row(self, record: str) -> Row:
        """What a record says.

        Raises:
            RefusedError: it is no observation.
        """
        layout = self._layout
        check_text(record, self._dialect.encoding)
        values = split(record, layout.delimiter)
        if len(values) != len(layout.header):
            raise RefusedError("ragged_row", f"{len(values)} fields where the header has {len(layout.header)}")
        row: list[object] = [None] * len(ROW_COLUMNS)
        row[1] = self.moment(values)
        row[0], row[2], row[3] = self.identity(values)
        if layout.quote_index is not None:
            check_quote(values[layout.quote_index], record)
        for index, column, place in self._numbers:
            row[index] = numbers.number(column, values[place], self._decimals[column])
        if self._rank is not None:
            row[-1] = numbers.whole("rank", values[self._rank], self._decimals["rank"])
        return tuple(row)

    def moment(self, values: list[str]) -> datetime | None:
        """The first time that can be read; a bare day does not stand in for a finer time that cannot."""
        refused: RefusedError | None = None
        for value in self._dialect.time_texts(values):
            if refused is not None and fields.is_day(value):
                continue
            try:
                return fields.moment("observed_at", with_all_digits(value, self._dialect), self._dialect.date_order)
            except RefusedError as error:
                refused = refused or error
        if refused is not None:
            raise refused
        return None

    def identity(self, values: list[str]) -> Identity:
        """The coin that a record with these fields is about; of them only those that say so are looked at."""
        layout = self._layout
        if layout.pair_index is not None:
            return self._pair(values[layout.pair_index])
        symbol = _optional("symbol", values, self._symbol)
        name = _optional("name", values, self._name)
        if layout.named is not None:
            named = layout.named
            return named.source_coin_id, named.symbol or symbol, named.name
        if layout.coin == "id":
            return _optional("source_coin_id", values, self._coin), symbol, name
        if layout.coin == "symbol":
            return symbol, symbol, name
        if layout.coin == "name":
            return (slug(name) if name else None), symbol, name
        return (slug(symbol, name) if symbol and name else None), symbol, name

    def _pair(self, value: str) -> Identity:
        if fields.is_null(value):
            return None, None, None
        pair = split_pair(value.strip(_INVISIBLE), self._layout.header)
        if pair is None:
            if self._layout.named is not None:
                check_dollars(f"{value} in this file", self._layout.named.quote)
            symbol = _text("symbol", value)
            return symbol, symbol, None
        base, quote = pair
        check_dollars(value, quote)
        return fields.text("source_coin_id", f"{self._layout.pair_prefix}{base}/{quote}"), base, None


def _optional(column: str, values: list[str], place: int | None) -> str | None:
    return None if place is None else _text(column, values[place])


def _text(column: str, value: str) -> str | None:
    return fields.text(column, value if value.isascii() else value.strip().strip(_INVISIBLE))


def check_quote(quote: str, record: str) -> None:
    """Refuse a record whose price is said to be in another currency.

    Raises:
        RefusedError: ``not_usd``.
    """
    if not fields.is_null(quote):
        check_dollars(record.rstrip("\r\n"), quote.strip())


def check_text(record: str, encoding: str) -> None:
    """Refuse what PostgreSQL cannot hold.

    Raises:
        RefusedError: ``bad_text``.
    """
    if record.isascii() and "\0" not in record:
        return
    if "\0" in record:
        raise RefusedError("bad_text", "the record holds a NUL character")
    try:
        record.encode()
    except UnicodeEncodeError:
        raise RefusedError("bad_text", f"the record is not {encoding.upper()}") from None

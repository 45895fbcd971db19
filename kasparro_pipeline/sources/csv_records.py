"""Records of one CSV block to observations."""

from __future__ import annotations

import re
from datetime import date, datetime

from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.collect import FIRST_DAY, ROW_COLUMNS, Collector, Row, nothing, unreadable
from kasparro_pipeline.sources.csv_dialect import CsvDialect
from kasparro_pipeline.sources.csv_text import records_of, split
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.records import NUMBER_COLUMNS, Delivery, ParsedPayload

QUOTES = ("USD", "USDT", "USDC", "BUSD", "TUSD", "FDUSD", "DAI", "EUR", "GBP", "JPY", "KRW", "TRY", "BTC", "ETH", "BNB")
"""Currencies that the end of a pair written without a separator is recognised by."""

_PAIR = re.compile(r"([A-Z0-9.$]{1,20})[/_:-]([A-Z0-9]{2,10})")
_NOT_IN_SLUG = re.compile(r"[\W_]+")


def parse_csv(delivery: Delivery, dialect: CsvDialect, first_day: date = FIRST_DAY) -> ParsedPayload:
    """The observations of one block; what is no observation is quarantined with its reason.

    Of a file that cannot be read, the first block is one quarantined record that names the file; the others are none.
    """
    if dialect.problem is not None:
        return unreadable(delivery, RefusedError(*dialect.problem)) if delivery.position == 0 else nothing()
    text, clean = _decode(delivery.body)
    line_before = delivery.first_record - 1
    collector = Collector(delivery, lambda position: f"{delivery.request}:{line_before + position}", first_day)
    reader = _Reader(dialect)
    for position, record in records_of(text, dialect.delimiter):
        if line_before + position <= dialect.header_line or record.isspace():
            continue
        try:
            if not clean:
                _check_text(record)
            collector.take(position, reader.row(record), record)
        except RefusedError as refused:
            collector.refuse(position, refused, record)
    return collector.parsed()


def split_pair(pair: str, header: tuple[str, ...] = ()) -> tuple[str, str] | None:
    """Base and quote of ``BTC/USD``, ``BTC-USD`` or ``BTCUSD``; None where `pair` is one currency.

    ``BNBUSD`` may be BNB/USD or BN/BUSD; a header like ``Volume BNB`` tells.

    Raises:
        RefusedError: ``ambiguous_pair``; nothing tells.
    """
    pair = pair.strip().upper()
    match = _PAIR.fullmatch(pair)
    if match is not None:
        return match[1], match[2]
    found = [
        (pair.removesuffix(quote), quote) for quote in QUOTES if pair.endswith(quote) and len(pair) > len(quote) + 1
    ]
    if len(found) > 1:
        named = {word for name in header for word in re.split(r"[\s_]+", name.upper())}
        found = [(base, quote) for base, quote in found if base in named] or found
    if len(found) > 1:
        ways = " or ".join("/".join(way) for way in found)
        raise RefusedError("ambiguous_pair", f"pair {fields.shown(pair)} may be {ways}; write it with a slash")
    return found[0] if found else None


class _Reader:
    """Reads the records of one file."""

    def __init__(self, dialect: CsvDialect) -> None:
        places = dict(dialect.columns)
        self._dialect = dialect
        self._fields = len(dialect.header)
        self._coin, self._symbol, self._name, self._rank = (
            places.get(column) for column in ("source_coin_id", "symbol", "name", "rank")
        )
        self._numbers = [(ROW_COLUMNS.index(name), name, places[name]) for name in NUMBER_COLUMNS if name in places]

    def row(self, record: str) -> Row:
        values = split(record, self._dialect.delimiter)
        if len(values) != self._fields:
            raise RefusedError("ragged_row", f"{len(values)} fields where the header has {self._fields}")
        row: list[object] = [None] * len(ROW_COLUMNS)
        row[1] = self._moment(values)
        row[0], row[2], row[3] = self._identity(values)
        for index, column, place in self._numbers:
            row[index] = fields.number(column, values[place])
        if self._rank is not None:
            row[-1] = fields.whole("rank", values[self._rank])
        return tuple(row)

    def _moment(self, values: list[str]) -> datetime | None:
        """The first time that can be read; a bare day does not stand in for a finer time that cannot."""
        refused: RefusedError | None = None
        for value in self._dialect.time_texts(values):
            if refused is not None and fields.is_day(value):
                continue
            try:
                return fields.moment("observed_at", value, self._dialect.date_order)
            except RefusedError as error:
                refused = refused or error
        if refused is not None:
            raise refused
        return None

    def _identity(self, values: list[str]) -> tuple[str | None, str | None, str | None]:
        """Id, symbol and name."""
        if self._dialect.pair_index is not None:
            return self._pair(values[self._dialect.pair_index])
        symbol = _optional("symbol", values, self._symbol)
        name = _optional("name", values, self._name)
        if self._dialect.coin == "id":
            return _optional("source_coin_id", values, self._coin), symbol, name
        if self._dialect.coin == "symbol":
            return symbol, symbol, name
        return (_slug(symbol, name) if symbol and name else None), symbol, name

    def _pair(self, value: str) -> tuple[str | None, str | None, None]:
        if fields.is_null(value):
            return None, None, None
        pair = split_pair(value, self._dialect.header)
        if pair is None:
            symbol = fields.text("symbol", value)
            return symbol, symbol, None
        base, quote = pair
        if quote != "USD":
            raise RefusedError("not_usd", f"{fields.shown(value)} is a price in {quote}, not in USD")
        return fields.text("source_coin_id", f"{self._dialect.pair_prefix}{base}/{quote}"), base, None


def _optional(column: str, values: list[str], place: int | None) -> str | None:
    return None if place is None else fields.text(column, values[place])


def _slug(symbol: str, name: str) -> str | None:
    """``btc-bitcoin``."""
    return _NOT_IN_SLUG.sub("-", f"{symbol}-{name}".lower()).strip("-") or None


def _decode(body: bytes) -> tuple[str, bool]:
    """The block as text, and whether all of it is text that PostgreSQL can hold."""
    try:
        text, clean = body.decode("utf-8"), b"\0" not in body
    except UnicodeDecodeError:
        text, clean = body.decode("utf-8", "surrogateescape"), False
    return text.removeprefix("\ufeff"), clean


def _check_text(record: str) -> None:
    if "\0" in record:
        raise RefusedError("bad_text", "the record holds a NUL character")
    try:
        record.encode()
    except UnicodeEncodeError:
        raise RefusedError("bad_text", "the record is not UTF-8") from None

"""How one CSV file is to be read, decided for the file as a whole and never record by record.

What a format in defs.yaml says of the file is not found out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.csv.encoding import check_text, decode, find_encoding
from kasparro_pipeline.sources.csv.formats import CsvFormat, format_of
from kasparro_pipeline.sources.csv.header import SAMPLE_RECORDS, CsvMapping, Layout, find_layout
from kasparro_pipeline.sources.csv.lines import fields_of, lines_of
from kasparro_pipeline.sources.csv.numbers import DecimalSign, NumberForms, shifted
from kasparro_pipeline.sources.csv.text import records_of, split
from kasparro_pipeline.sources.fields import DateOrder, RefusedError, shown
from kasparro_pipeline.sources.records import NUMBER_COLUMNS

SPREADSHEET_DIGITS = 6
"""A spreadsheet shows a long number in so many, and writes into the file what it shows."""

SECONDS_DIGITS = 10
"""Of the seconds since 1970, from 2001 to 2286."""

_EXPONENT_TIME = re.compile(r"([0-9](?:\.[0-9]+)?)[eE]\+?([0-9]{1,2})")

Blocks = Callable[[], Iterable[bytes]]
"""Gives a file's blocks from the first on, as often as it is called."""


@dataclass(frozen=True, slots=True)
class CsvDialect:
    """The decision for one file. With a `problem`, none of it can be read."""

    encoding: str = "utf-8"
    layout: Layout = field(default_factory=Layout)
    date_order: DateOrder | None = None
    """None: no date like 02-10-17 can be read."""
    decimals: tuple[tuple[str, DecimalSign | None], ...] = ()
    """Column to its decimal sign; None: it has shown none, and a comma in it is refused."""
    exact_exponents: bool = False
    """Times like 1.6387488E+12 have kept all their digits."""
    problem: tuple[str, str] | None = None
    """Reason code and sentence."""

    @property
    def fingerprint(self) -> str:
        """Changes when equal bytes would be read differently. The same in every process."""
        decided = replace(self, layout=replace(self.layout, header_line=0))
        return hashlib.sha256(repr(decided).encode("utf-8", "surrogateescape")).hexdigest()[:12]

    def time_texts(self, row: list[str]) -> Iterator[str]:
        """What `row` gives as its time, best first, a bare day completed by the time of day; nulls left out.

        Where that is missing there is none that can be read: a day is not its first instant.
        """
        layout = self.layout
        for index in layout.times:
            value = row[index].strip()
            if fields.is_null(value):
                continue
            if layout.time_of_day is not None and fields.is_day(value):
                value = f"{value} {row[layout.time_of_day].strip() or '(no time)'}"
            yield value

    def described(self) -> dict[str, object]:
        """What was decided, for people."""
        if self.problem is not None:
            return {"refused": self.problem[0], "reason": self.problem[1]}
        layout = self.layout
        mapping = {column: layout.header[index] for column, index in layout.columns}
        mapping |= {"observed_at": ", else ".join(layout.header[index] for index in layout.times)}
        for name, index in (
            ("pair", layout.pair_index),
            ("time_of_day", layout.time_of_day),
            ("quote", layout.quote_index),
        ):
            if index is not None:
                mapping[name] = layout.header[index]
        if layout.named and layout.coin == "file":
            mapping["coin"] = f"{layout.named.source_coin_id} (of the file)"
        return {
            "encoding": self.encoding,
            "delimiter": {"\t": "tab"}.get(layout.delimiter, layout.delimiter),
            "header line": layout.header_line,
            "mapping": mapping,
            "decimal sign": {column: sign or "not shown" for column, sign in self.decimals},
            "date order": self.date_order or "no date needs one",
        }


def read_dialect(  # noqa: PLR0913
    blocks: Blocks,
    mapping: CsvMapping,
    request: str,
    formats: Iterable[CsvFormat] = (),
    latest_year: int = 2099,
    *,
    beyond_ascii: Blocks | None = None,
) -> CsvDialect:
    """How to read the file whose `blocks` these are.

    `request` is the file's path below the drop folder; `latest_year` the one it was fetched in, after which no date in
    it can lie; `beyond_ascii` are those of the blocks that may hold more than ASCII, where that is known. Nothing is
    raised for a file that cannot be read: see `CsvDialect.problem` (``empty_file``, ``binary_file``, ``encoding``,
    ``no_known_column``, ``not_usd``, ``ambiguous_header``, ``ambiguous_pair``, ``ambiguous_dates``,
    ``ambiguous_numbers``).
    """
    told = format_of(request, formats)
    first = next(iter(blocks()), b"")
    try:
        encoding = told.encoding_of(first) or find_encoding(first, (beyond_ascii or blocks)())
        check_text(first, encoding)
        layout = find_layout(decode(first, encoding)[0], mapping.with_columns(told.header_names), request, told.given)
        dialect = CsvDialect(encoding, layout, told.date_order)
        return _with_forms(dialect, blocks, told, latest_year)
    except RefusedError as refused:
        return CsvDialect(problem=(refused.code, refused.reason))


def refused_file(problem: str) -> CsvDialect:
    """The dialect of a file that could not be unpacked, by its `Payload.problem`."""
    code, _, reason = problem.partition(": ")
    return CsvDialect(problem=(code, reason))


def _with_forms(dialect: CsvDialect, blocks: Blocks, told: CsvFormat, latest_year: int) -> CsvDialect:
    """`dialect` with what a sample of the records shows of their numbers and times, and all dates of their order."""
    columns = [(column, index) for column, index in dialect.layout.columns if column in (*NUMBER_COLUMNS, "rank")]
    numbers = NumberForms(dots_are_doubtful=dialect.layout.delimiter == ";")
    times = _TimeForms(latest_year)
    for seen, row in enumerate(_rows(dialect, blocks())):
        if seen >= SAMPLE_RECORDS and (told.decimal or numbers.is_settled) and (told.date_order or times.is_settled):
            if times.has_orders and not told.date_order:
                _add_all_dates(dialect, blocks(), times)
            break
        if told.decimal is None:
            for column, index in columns:
                numbers.add(column, row[index])
        times.add(dialect, row)
    if told.decimal:
        signs: Mapping[str, DecimalSign | None] = {"": told.decimal}
    else:
        signs = numbers.decimals()
    return replace(
        dialect,
        date_order=told.date_order or times.order(),
        decimals=tuple((column, signs.get(column, signs[""])) for column, _ in columns),
        exact_exponents=times.digits > SPREADSHEET_DIGITS and not times.have_lost,
    )


def _add_all_dates(dialect: CsvDialect, blocks: Iterable[bytes], times: _TimeForms) -> None:
    """Look at each different day once, so that no date is read in an order that a later one contradicts."""
    layout = dialect.layout
    below = layout.header_line
    for block in blocks:
        text, clean = decode(block, dialect.encoding)
        if clean:
            found = fields_of(lines_of(text).below(below), layout.delimiter, len(layout.header), layout.times)
            rows = pa.table([found.column(index) for index in layout.times], [str(index) for index in layout.times])
            for index in layout.times:
                days = pc.replace_substring_regex(pc.utf8_trim_whitespace(rows[str(index)]), "[T ].*", "")
                for day in days.unique().to_pylist():
                    times.add_date(day)
                rows = rows.filter(pc.equal(days, ""))
        below = 0


class _TimeForms:
    """What the times of a file show."""

    def __init__(self, latest_year: int) -> None:
        self._latest_year = latest_year
        self._orders: frozenset[DateOrder] | None = None
        self._first: str = ""
        self.digits = 0
        """The most that a time like 1.6387488E+12 has."""
        self.have_lost = False
        """Such a time has lost some."""

    def add(self, dialect: CsvDialect, row: list[str]) -> None:
        """Look at the time that would be read from `row`."""
        for value in dialect.time_texts(row):
            if match := _EXPONENT_TIME.fullmatch(value):
                self.digits = max(self.digits, len(match[1].replace(".", "")))
                self.have_lost = self.have_lost or not _is_whole(match)
                continue
            if self.add_date(value):
                return
            try:
                fields.moment("observed_at", value)
            except RefusedError:
                continue
            return

    def add_date(self, value: str) -> bool:
        """Look at what may be a date like 02-10-17; whether it is one.

        Raises:
            RefusedError: ``ambiguous_dates``; it contradicts one before.
        """
        orders = fields.date_orders(value, self._latest_year)
        if not orders:
            return False
        if self._orders is None:
            self._orders, self._first = orders, value
        elif self._orders and not self._orders & orders:
            raise RefusedError(
                "ambiguous_dates",
                f"no order of day and month fits both {shown(self._first)} and {shown(value)}; write dates as "
                "YYYY-MM-DD, or set `date_order` for this file in defs.yaml",
            )
        else:
            if len(self._orders & orders) < len(self._orders):
                self._first = value
            self._orders &= orders
        return True

    @property
    def has_orders(self) -> bool:
        """Whether a date needs one."""
        return self._orders is not None

    @property
    def is_settled(self) -> bool:
        """Whether no date is in doubt."""
        return self._orders is None or len(self._orders) == 1

    def order(self) -> DateOrder | None:
        """The order of the dates; None where no date needs one.

        Raises:
            RefusedError: ``ambiguous_dates``.
        """
        if self._orders is None:
            return None
        if len(self._orders) == 1:
            return next(iter(self._orders))
        raise RefusedError(
            "ambiguous_dates",
            f"dates like {shown(self._first)} can be read in several ways ({', '.join(sorted(self._orders))}), and no "
            "date in the file tells which; write them as YYYY-MM-DD, or set `date_order` for this file in defs.yaml",
        )


def with_all_digits(value: str, dialect: CsvDialect) -> str:
    """A time in exponent notation as plain digits; any other as it is.

    Raises:
        RefusedError: ``bad_time``; a spreadsheet has cut its digits.
    """
    match = _EXPONENT_TIME.fullmatch(value)
    if match is None:
        return value
    if not dialect.exact_exponents or not _is_whole(match):
        raise RefusedError(
            "bad_time", f"observed_at: {shown(value)} has lost its last digits, as spreadsheets do; export it again"
        )
    return shifted(match[1], int(match[2]))


def _is_whole(match: re.Match[str]) -> bool:
    """Whether a time in exponent notation has its seconds: in its digits, or as the zeros of a whole minute."""
    digits = match[1].replace(".", "")
    try:
        found = fields.moment("observed_at", shifted(match[1], int(match[2])))
    except RefusedError:
        return False
    return len(digits) >= SECONDS_DIGITS or not (found.second or found.microsecond)


def _rows(dialect: CsvDialect, blocks: Iterable[bytes]) -> Iterator[list[str]]:
    """The records of the file that have all fields; what else there is will be refused later."""
    skip, width = dialect.layout.header_line, len(dialect.layout.header)
    for block in blocks:
        for line, record in records_of(decode(block, dialect.encoding)[0]):
            if line <= skip:
                continue
            try:
                row = split(record, dialect.layout.delimiter)
            except RefusedError:
                continue
            if len(row) == width:
                yield row
        skip = 0

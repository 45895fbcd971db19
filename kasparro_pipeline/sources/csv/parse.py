"""One CSV block to observations: whole columns at once where that is safe, the other records one by one.

Everything decided here is decided by `Reader` too: ids and times by asking it once for each different text, numbers by
patterns that leave no way to read them but one. So both ways give the same rows; a record that is not plain to see, or
shares its key with another, is left to `parse_records`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kasparro_pipeline.sources.collect import FIRST_DAY, nothing, unreadable
from kasparro_pipeline.sources.csv import numbers
from kasparro_pipeline.sources.csv.dialect import CsvDialect
from kasparro_pipeline.sources.csv.encoding import decode
from kasparro_pipeline.sources.csv.lines import Fields, fields_of, lines_of
from kasparro_pipeline.sources.csv.numbers import DecimalSign
from kasparro_pipeline.sources.csv.records import Reader, check_quote, parse_records
from kasparro_pipeline.sources.csv.text import records_of
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.plain import UTC_TIME, PlainColumns, plain_times, together
from kasparro_pipeline.sources.records import NUMBER_COLUMNS, Delivery, ParsedPayload

_NULLS = pa.array(["", "-", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "none"])
_PLAIN = r"^[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?$"
_IN_NUMBER = np.isin(np.arange(256), list(b".0123456789"))
_SHORT_WHOLE = r"^[0-9]{1,18}$"
_COMMA_GROUPS = r"^-?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?$"
_COMMA_DECIMAL = r"^-?(?:[0-9]+|[1-9][0-9]{0,2}(?:\.[0-9]{3}){1,2})(?:,[0-9]+)?$"
MAX_ANSWERS = 100_000
"""Remembered for one file and group of columns."""

_Answer = tuple[object, ...]


def parse_csv(delivery: Delivery, dialect: CsvDialect, first_day: date = FIRST_DAY) -> ParsedPayload:
    """The observations of one block; what is no observation is quarantined with its reason.

    Of a file that cannot be read, the first block is one quarantined record that names the file; the others are none.
    """
    if dialect.problem is not None:
        return unreadable(delivery, RefusedError(*dialect.problem)) if delivery.position == 0 else nothing()
    layout = dialect.layout
    text, clean = decode(delivery.body, dialect.encoding)
    header_ends = layout.header_line - (delivery.first_record - 1)
    if not clean:
        whole = (entry for entry in records_of(text) if entry[0] > header_ends and not entry[1].isspace())
        return parse_records(delivery, dialect, whole, first_day)
    lines = lines_of(text).below(header_ends)
    plain = _Plain(fields_of(lines, layout.delimiter, len(layout.header), layout.used), dialect)
    return together(
        *(plain, delivery, first_day),
        lambda positions: parse_records(delivery, dialect, lines.but(positions), first_day),
    )


class _Plain(PlainColumns):
    """The records of a block that are read column by column; those that turn out not to be plain are left out."""

    def __init__(self, fields: Fields, dialect: CsvDialect) -> None:
        super().__init__(fields.positions)
        self._fields = fields
        self._dialect = dialect
        self._reader = Reader(dialect)
        self._width = len(dialect.layout.header)
        self._columns["observed_at"] = self._times()
        self._coins()
        self._quotes()
        places = dict(dialect.layout.columns)
        decimals = dict(dialect.decimals)
        for name in NUMBER_COLUMNS:
            if name in places:
                self._columns[name] = self._numbers(fields.column(places[name]), decimals[name])
        if "rank" in places:
            self._columns["rank"] = self._ranks(places["rank"], decimals["rank"])

    def _times(self) -> pa.Array:
        layout = self._dialect.layout
        found = plain_times(self._fields.column(layout.times[0]))
        if found is not None:
            return found
        indexes = [*layout.times, *([] if layout.time_of_day is None else [layout.time_of_day])]
        (times,) = self._asked("times", indexes, lambda row: (self._reader.moment(row),), [UTC_TIME])
        self._keep(times.is_valid())
        return times

    def _coins(self) -> None:
        layout = self._dialect.layout
        places = dict(layout.columns)
        indexes = [places[name] for name in ("source_coin_id", "symbol", "name") if name in places]
        if layout.pair_index is not None:
            indexes = [layout.pair_index]
        ids, symbols, names = self._asked("coins", indexes, self._reader.identity, [pa.string()] * 3)
        self._keep(ids.is_valid())
        self._columns |= {"source_coin_id": ids, "symbol": symbols, "name": names}

    def _quotes(self) -> None:
        index = self._dialect.layout.quote_index
        if index is not None:

            def checked(row: list[str]) -> tuple[bool]:
                check_quote(row[index], "")
                return (True,)

            self._asked("quotes", [index], checked, [pa.bool_()])

    def _ranks(self, index: int, decimal: DecimalSign | None) -> pa.Array:
        texts = self._fields.column(index)
        if pc.all(pc.match_substring_regex(texts, _SHORT_WHOLE)).as_py():
            return texts.cast(pa.int64())
        (ranks,) = self._asked("rank", [index], lambda row: (numbers.whole("rank", row[index], decimal),), [pa.int64()])
        return ranks

    def _numbers(self, texts: pa.Array, decimal: DecimalSign | None) -> pa.Array:
        """Texts as plain digits, as `numbers.number` gives them."""
        digits = _digits(texts) if decimal != "," else None
        if digits is not None:
            return digits
        unknown = pc.is_in(texts, _NULLS)
        if decimal == ",":
            good = pc.match_substring_regex(texts, _COMMA_DECIMAL)
            texts = pc.replace_substring(pc.replace_substring(texts, ".", ""), ",", ".")
        else:
            good = pc.match_substring_regex(texts, _PLAIN)
            if decimal == "." and not pc.all(pc.or_(good, unknown)).as_py():
                grouped = pc.match_substring_regex(texts, _COMMA_GROUPS)
                texts = pc.if_else(grouped, pc.replace_substring(texts, ",", ""), texts)
                good = pc.or_(good, grouped)
        self._keep(pc.or_(good, unknown))
        return pc.if_else(unknown, pa.scalar(None, pa.string()), texts)

    def _asked(
        self,
        what: str,
        indexes: Sequence[int],
        ask: Callable[[list[str]], Sequence[object]],
        types: Sequence[pa.DataType],
    ) -> list[pa.Array]:
        """What `ask` says of each record, asked once for all of the file that look alike at `indexes`.

        Records that it refuses are left out.
        """
        count = len(self._kept)
        if not indexes:
            answer = ask([""] * self._width)
            return [pa.repeat(pa.scalar(value, kind), count) for value, kind in zip(answer, types, strict=True)]
        columns = [self._fields.column(index) for index in indexes]
        encoded = pc.binary_join_element_wise(*columns, "\0").dictionary_encode()
        known = _answers(self._dialect, what, (*types, pa.bool_()))
        told, places = known.of(encoded.dictionary, lambda key: self._answer(key, indexes, ask))
        places = places.take(encoded.indices)
        *found, is_taken = (column.take(places) for column in told)
        self._keep(is_taken)
        return found

    def _answer(self, key: str, indexes: Sequence[int], ask: Callable[[list[str]], Sequence[object]]) -> _Answer | None:
        """What `ask` says and that it says something; None where it refuses."""
        row = [""] * self._width
        for index, value in zip(indexes, key.split("\0"), strict=True):
            row[index] = value
        try:
            return (*ask(row), True)
        except RefusedError:
            return None


class _Answers:
    """What was said of the texts in earlier blocks of a file; of one that was refused, nulls."""

    def __init__(self, types: Sequence[pa.DataType]) -> None:
        self._empty = (pa.array([], pa.string()), [pa.array([], kind) for kind in types])
        self._known: tuple[pa.Array, list[pa.Array]] = self._empty
        """Texts and answers; always replaced as one, for several threads parse blocks of one file."""

    def of(self, texts: pa.Array, ask: Callable[[str], _Answer | None]) -> tuple[list[pa.Array], pa.Array]:
        """A column for each type, and where in them the answers to `texts` are, all different."""
        known, columns = self._known
        places = pc.index_in(texts, known)
        if places.null_count:
            if len(known) > MAX_ANSWERS:
                known, columns = self._empty
                places = pc.index_in(texts, known)
            new = texts.filter(places.is_null())
            answers = [ask(text) or (None,) * len(columns) for text in new.to_pylist()]
            told = zip(columns, zip(*answers, strict=True), strict=True)
            columns = [pa.concat_arrays([column, pa.array(values, column.type)]) for column, values in told]
            known = pa.concat_arrays([known, new])
            self._known = (known, columns)
            places = pc.index_in(texts, known)
        return columns, places


@lru_cache(maxsize=16)
def _answers(dialect: CsvDialect, what: str, types: tuple[pa.DataType, ...]) -> _Answers:  # noqa: ARG001 - it is the key
    return _Answers(types)


def _digits(texts: pa.Array) -> pa.Array | None:
    """`texts`, the empty ones as nulls, where all are of digits and at most a point: as `_PLAIN` says, and sooner."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[offsets[0] : offsets[-1]]
    sizes = np.diff(offsets)
    points = np.diff(np.searchsorted(np.flatnonzero(data == ord(".")), offsets - offsets[0]))
    empty = sizes == 0
    if not (_IN_NUMBER[data].all() and (points <= 1).all() and ((sizes > points) | empty).all()):
        return None
    return pc.if_else(pa.array(empty), pa.scalar(None, pa.string()), texts) if empty.any() else texts

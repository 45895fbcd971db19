"""What the records of a JSON answer say, column by column, where it is plain to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kasparro_pipeline.sources import fields
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.plain import UTC_TIME, PlainColumns, plain_times
from kasparro_pipeline.sources.records import NUMBER_COLUMNS

_NUMBER = r"^-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9][0-9]?)?$"  # no counts: they take longer to compile than to match
_LONGEST = 80
_ZERO = r"^-?[0.]+(?:[eE][-+]?[0-9]+)?$"
_WHOLE = "^[0-9]+$"
_LONGEST_WHOLE = 18
_NO_TEXT = pa.scalar(None, pa.string())


class JsonColumns(PlainColumns):
    """The records of which every mapped value is plain.

    Args:
        count: of records.
        constants: what all records are given, by column.
        said: texts as they came, and the source texts (bytes) of numbers and times, by column.
        zero_is_null: number columns in which 0 means "not known".
        moment: reads the source text of a time that is in no plain form; raises `RefusedError`.
    """

    def __init__(
        self,
        count: int,
        constants: Mapping[str, object],
        said: Mapping[str, Sequence[Any]],
        zero_is_null: frozenset[str],
        moment: Callable[[Any], object],
    ) -> None:
        super().__init__(np.arange(1, count + 1))
        for name, value in constants.items():
            kind = UTC_TIME if name == "observed_at" else pa.string()
            self._columns[name] = pa.repeat(pa.scalar(value, kind), count)
        for name, values in said.items():
            if name in NUMBER_COLUMNS:
                self._columns[name] = self._numbers(_sources(values), zero_is_null=name in zero_is_null)
            elif name == "rank":
                self._columns[name] = self._ranks(_sources(values), zero_is_null=name in zero_is_null)
            elif name == "observed_at":
                self._columns[name] = self._times(values, moment)
            else:
                self._columns[name] = self._texts(values)
        self._keep(self._columns["source_coin_id"].is_valid())

    def leave_out(self, absent: Sequence[bool]) -> None:
        """Leave out the records for which it says so."""
        self._keep(pc.invert(pa.array(absent, pa.bool_())))

    def _numbers(self, sources: pa.Array, *, zero_is_null: bool) -> pa.Array:
        plain = _matching(sources, _NUMBER, _LONGEST)
        self._keep(pc.or_(plain, pc.equal(sources, "null")))
        numbers = pc.if_else(plain, sources, _NO_TEXT)
        if zero_is_null:
            return pc.if_else(pc.match_substring_regex(numbers, _ZERO), _NO_TEXT, numbers)
        return numbers

    def _ranks(self, sources: pa.Array, *, zero_is_null: bool) -> pa.Array:
        numbers = self._numbers(sources, zero_is_null=zero_is_null)
        short = _matching(numbers, _WHOLE, _LONGEST_WHOLE)
        self._keep(pc.or_kleene(short, numbers.is_null()))
        return pc.if_else(short, numbers, _NO_TEXT).cast(pa.int64())

    def _texts(self, values: Sequence[Any]) -> pa.Array:
        try:
            texts = pa.array(values, pa.string())
        except pa.ArrowTypeError:  # ids that are numbers
            texts = pa.array([None if value is None else str(value) for value in values], pa.string())
        short = pc.less_equal(pc.binary_length(texts), fields.MAX_TEXT)
        plain = pc.and_(pc.and_(pc.string_is_ascii(texts), pc.ascii_is_printable(texts)), short)
        self._keep(pc.or_kleene(plain, texts.is_null()))
        trimmed = pc.ascii_trim(texts, " ")
        return pc.if_else(pc.equal(trimmed, ""), _NO_TEXT, trimmed)

    def _times(self, values: Sequence[Any], moment: Callable[[Any], object]) -> pa.Array:
        sources = _sources(values)
        is_text = pc.and_(pc.starts_with(sources, '"'), pc.ends_with(sources, '"'))
        texts = pc.utf8_slice_codeunits(sources, 1, -1) if pc.all(is_text).as_py() else sources
        times = plain_times(texts)
        if times is None:
            times = pa.array([_or_none(moment, value) for value in values], UTC_TIME)
        self._keep(times.is_valid())
        return times


def _matching(texts: pa.Array, pattern: str, longest: int) -> pa.BooleanArray:
    return pc.and_(pc.match_substring_regex(texts, pattern), pc.less_equal(pc.binary_length(texts), longest))


def _sources(values: Sequence[Any]) -> pa.Array:
    """Source texts of JSON values as Arrow texts."""
    joined = b",".join(values).decode("utf-8", "replace")
    texts = pc.split_pattern(pa.array([joined]), ",").values
    if len(texts) == len(values):
        return texts
    return pa.array([bytes(value).decode("utf-8", "replace") for value in values], pa.string())


def _or_none(read: Callable[[Any], object], value: object) -> object:
    try:
        return read(value)
    except RefusedError:
        return None

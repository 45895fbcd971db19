"""The records of a CSV block, and as Arrow arrays the fields of those that are plain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import csv as pa_csv

from kasparro_pipeline.sources.csv.text import Positions, plain_ends, records_of

MAX_LINE = 1000
"""Bytes of a plain record; what is refused for its length is longer."""

Mask = npt.NDArray[np.bool_]

_LF, _CR, _QUOTE = b"\n"[0], b"\r"[0], b'"'[0]
_MARK = "\ufeff".encode()


@dataclass(frozen=True, slots=True)
class Lines:
    """Records within a block's UTF-8, and the line of the block on which each begins, from 1."""

    data: bytes
    starts: Positions
    stops: Positions
    """Where their line ends begin."""
    ends: Positions
    positions: Positions

    def below(self, line: int) -> Lines:
        """Those after a line."""
        first = int(np.searchsorted(self.positions, line, "right"))
        if not first:
            return self
        skipped = int(self.ends[first - 1])
        starts, stops, ends = (places[first:] - skipped for places in (self.starts, self.stops, self.ends))
        return Lines(self.data[skipped:], starts, stops, ends, self.positions[first:])

    def but(self, positions: Positions) -> Iterator[tuple[int, str]]:
        """The records at other positions, in their order, without their line ends and without blank ones."""
        if len(positions) == len(self.positions):
            return
        for place in np.flatnonzero(~np.isin(self.positions, positions, assume_unique=True)):
            text = self.data[self.starts[place] : self.stops[place]].decode()
            if text and not text.isspace():
                yield int(self.positions[place]), text

    def count(self, places: Positions) -> Positions:
        """How many of `places` in the data, in their order, are within each record."""
        counts: Positions = np.searchsorted(places, self.stops) - np.searchsorted(places, self.starts)
        return counts


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of plain records, column by column."""

    columns: dict[int, pa.Array]
    positions: Positions

    def column(self, index: int) -> pa.Array:
        """One field of each record."""
        return self.columns[index]


def lines_of(text: str) -> Lines:
    """All records of a block."""
    data = text.encode()
    units = np.frombuffer(data, np.uint8)
    ends = plain_ends(data)
    if ends is None:
        records = list(records_of(text))
        ends = np.cumsum([len(record.encode()) for _, record in records])
        positions = np.array([line for line, _ in records])
        starts = np.append(0, ends)[:-1]
    else:
        starts = np.append(0, ends)[:-1]
        positions = np.searchsorted(np.flatnonzero(units == _LF), starts) + 1
    stops = ends - (units[ends - 1] == _LF)
    stops -= (stops > starts) & (units[stops - 1] == _CR)
    return Lines(data, starts, stops, ends, positions)


def fields_of(lines: Lines, delimiter: str, width: int, wanted: Sequence[int]) -> Fields:
    """The `wanted` fields of the records that are plain: of `width` fields, on one line, with well-formed quotes."""
    plain = np.flatnonzero(_are_plain(lines, delimiter, width))
    if not len(plain):
        return Fields({index: pa.array([], pa.string()) for index in wanted}, plain)
    breaks = np.flatnonzero(np.diff(plain) > 1)
    runs = zip(lines.starts[plain[np.append(0, breaks + 1)]], lines.ends[plain[np.append(breaks, -1)]], strict=True)
    content = b"".join(lines.data[start:end] for start, end in runs)
    table = _read(content, delimiter, width, wanted)
    return Fields({index: table[str(index)].combine_chunks() for index in wanted}, lines.positions[plain])


def _read(content: bytes, delimiter: str, width: int, wanted: Sequence[int]) -> pa.Table:
    names = [str(index) for index in range(width)]
    return pa_csv.read_csv(
        pa.BufferReader(content),
        pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(content) + 1),
        pa_csv.ParseOptions(
            delimiter=delimiter, quote_char='"' if b'"' in content else False, ignore_empty_lines=False
        ),
        pa_csv.ConvertOptions(
            check_utf8=False,
            include_columns=[str(index) for index in wanted],
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=False,
        ),
    )


def _are_plain(lines: Lines, delimiter: str, width: int) -> Mask:
    units = np.frombuffer(lines.data, np.uint8)
    is_between = units == ord(delimiter)
    plain = lines.stops - lines.starts <= MAX_LINE
    if _MARK in lines.data:
        marked = np.array([match.start() for match in re.finditer(_MARK, lines.data)])
        plain &= lines.count(marked) == 0
    if b'"' in lines.data:
        quoted, quoted_well = _quoted(lines, units, delimiter)
        is_between &= ~quoted
        plain &= quoted_well
        for line_end in (_LF, _CR):
            plain &= lines.count(np.flatnonzero(units == line_end)) == 0
    plain &= lines.count(np.flatnonzero(is_between)) == width - 1
    return plain


def _quoted(lines: Lines, units: npt.NDArray[np.uint8], delimiter: str) -> tuple[Mask, Mask]:
    """Which bytes are between two quotes of their record, and in which records quotes enclose whole fields only.

    A quote within those is doubled: the first one closes the field, the second one opens it again.
    """
    turns = units == _QUOTE
    quotes = np.flatnonzero(turns)
    well = lines.count(quotes) % 2 == 0
    turns[lines.ends[~well] - 1] ^= True
    quoted = np.logical_xor.accumulate(turns)
    opens = quoted[quotes]
    beside = units[np.minimum(quotes + np.where(opens, -1, 1), len(units) - 1)]
    odd = quotes[~np.isin(beside, list(f'{delimiter}"\r\n'.encode()))]
    well[np.searchsorted(lines.starts, odd, "right") - 1] = False
    return quoted, well

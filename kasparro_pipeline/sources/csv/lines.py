"""The records of a CSV block as Arrow arrays: the lines, and the fields of those lines that are plain records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as pa_csv

from kasparro_pipeline.sources.csv.text import records_of

MAX_LINE = 1000
"""Bytes of a plain record; what is refused for its length is longer."""
MAX_QUOTED_FIELDS = 200
"""Of a record with quotes, whose pattern grows with their number."""

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lines:
    """Records without their line ends, and the line of the block on which each begins, from 1."""

    texts: pa.Array
    positions: Positions

    def below(self, line: int) -> Lines:
        """Those after a line."""
        first = int(np.searchsorted(self.positions, line, "right"))
        return Lines(self.texts.slice(first), self.positions[first:]) if first else self

    def but(self, positions: Positions | Sequence[int]) -> Iterator[tuple[int, str]]:
        """The records at other positions, in their order, without blank ones."""
        others = np.flatnonzero(~np.isin(self.positions, positions, assume_unique=True))
        for place, text in zip(others, self.texts.take(pa.array(others)).to_pylist(), strict=True):
            if text and not text.isspace():
                yield int(self.positions[place]), text


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of plain records, column by column."""

    columns: dict[int, pa.Array]
    positions: Positions

    def column(self, index: int) -> pa.Array:
        """One field of each record."""
        return self.columns[index]


def lines_of(text: str, delimiter: str) -> Lines:
    """All records of a block.

    Where every quote is as a writer writes it, and within its line, each line is a record; else `records_of` says.
    """
    joined = text.replace("\r\n", "\n") if "\r" in text else text
    if "\r" not in joined:
        lines = pc.split_pattern(pa.array([joined.removesuffix("\n")]), "\n").values
        if '"' not in joined or pc.all(pc.match_substring_regex(lines, _strict(delimiter, None))).as_py():
            return Lines(lines, np.arange(1, len(lines) + 1))
    records = list(records_of(text))
    return Lines(
        pa.array([record.rstrip("\r\n") for _, record in records], pa.string()),
        np.array([line for line, _ in records], np.int64),
    )


def fields_of(lines: Lines, delimiter: str, width: int, wanted: Sequence[int]) -> Fields:
    """The `wanted` fields of the records that are plain: of `width` fields, on one line, with well-formed quotes."""
    short = pc.less_equal(pc.binary_length(lines.texts), MAX_LINE)
    quoted = pc.match_substring(lines.texts, '"')
    bare = pc.and_(short, pc.and_not(pc.equal(pc.count_substring(lines.texts, delimiter), width - 1), quoted))
    if not pc.any(quoted).as_py() or width > MAX_QUOTED_FIELDS:
        return Fields(
            _bare(lines.texts.filter(bare), delimiter, width, wanted),
            lines.positions[bare.to_numpy(zero_copy_only=False)],
        )
    good = pc.and_(quoted, pc.and_(short, pc.match_substring_regex(lines.texts, _strict(delimiter, width))))
    parts = [
        _bare(lines.texts.filter(bare), delimiter, width, wanted),
        _quoted(lines.texts.filter(good), delimiter, width, wanted),
    ]
    positions = [lines.positions[mask.to_numpy(zero_copy_only=False)] for mask in (bare, good)]
    order = pa.array(np.argsort(np.concatenate(positions)))
    columns = {index: pa.concat_arrays([part[index] for part in parts]).take(order) for index in wanted}
    return Fields(columns, np.sort(np.concatenate(positions)))


def _bare(texts: pa.Array, delimiter: str, width: int, wanted: Sequence[int]) -> dict[int, pa.Array]:
    values = pc.split_pattern(texts, delimiter).values
    firsts = np.arange(len(texts)) * width
    return {index: values.take(pa.array(firsts + index)) for index in wanted}


def _quoted(texts: pa.Array, delimiter: str, width: int, wanted: Sequence[int]) -> dict[int, pa.Array]:
    names = [str(index) for index in range(width)]
    if not len(texts):
        return {index: pa.array([], pa.string()) for index in wanted}
    # The line above keeps the reader from taking the first record's mark for the file's.
    content = ("\n".join([delimiter * (width - 1), *texts.to_pylist()]) + "\n").encode()
    table = pa_csv.read_csv(
        BytesIO(content),
        pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(content) + 1),
        pa_csv.ParseOptions(delimiter=delimiter),
        pa_csv.ConvertOptions(
            include_columns=[str(index) for index in wanted],
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=False,
        ),
    )
    return {index: table[str(index)].slice(1).combine_chunks() for index in wanted}


@cache
def _strict(delimiter: str, width: int | None) -> str:
    """A pattern of a record of `width` fields (any: None) on one line, each without a quote or quoted as a whole."""
    field = rf'(?:"(?:[^"\r\n]|"")*"|[^"\r\n{re.escape(delimiter)}]*)'
    return rf"^{field}(?:{re.escape(delimiter)}{field}){'*' if width is None else f'{{{width - 1}}}'}$"

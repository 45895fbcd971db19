"""CSV as text: where a record begins and ends, and its fields.

Where a record ends is the same for every delimiter, so that a file can be cut before its delimiter is known, and
cutting and parsing agree whatever the text is. They agree on a quote that is never closed, too: quoted fields end
within `MAX_RECORD` characters, and a line that would begin a longer record is a (broken) record by itself.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from kasparro_pipeline.sources.fields import RefusedError, shown

DELIMITERS = ",;\t|"
MAX_RECORD = 128 * 1024

Positions = npt.NDArray[np.int64]

_CLOSING = re.compile(r'(?:[^"]++|"")*+"')
_OPENING = re.compile(rf'(?:^|[{re.escape(DELIMITERS)}])"')
_BEFORE_OPENING = np.isin(np.arange(256), list(f'{DELIMITERS}\n"'.encode()))
"""By byte whether a quote after it may open a field, or open it again: the second quote of a doubled one."""


def records_of(text: str) -> Iterator[tuple[int, str]]:
    """Each record with its line ends, and the line of `text` it begins on, from 1.

    A line end within a quoted field does not end the record; a quote opens a field only after one of `DELIMITERS` or at
    the beginning of a line. The records joined are `text`.
    """
    lines = list(io.StringIO(text, newline=""))
    start = 0
    while start < len(lines):
        end = _end(lines, start) if '"' in lines[start] else start + 1
        yield start + 1, lines[start] if end == start + 1 else "".join(lines[start:end])
        start = end


def plain_ends(data: bytes, start: int = 0, stop: int | None = None) -> Positions | None:
    """Where each record of ``data[start:stop]`` ends, all at once; None where only `records_of` can tell.

    `start` begins a record. One that is not ended at `stop` is left out, unless the data ends there. To be told so,
    lines end with LF or CRLF, records with quotes are no longer than `MAX_RECORD`, and of their quotes every other one
    closes what the one before has opened.
    """
    stop = len(data) if stop is None else stop
    if start == stop:
        return np.empty(0, np.int64)
    if data.find(b"\r", start, stop) >= 0 and data.count(b"\r", start, stop) != data.count(b"\r\n", start, stop + 1):
        return None
    part = np.frombuffer(data, np.uint8, stop - start, start)
    ends = np.flatnonzero(part == ord("\n")) + 1
    if stop == len(data) and (not len(ends) or ends[-1] < len(part)):
        ends = np.append(ends, len(part))
    if data.find(b'"', start, stop) >= 0:
        quotes = np.flatnonzero(part == ord('"'))
        opening = quotes[int(quotes[0] == 0) * 2 :: 2]
        ends = ends[np.searchsorted(quotes, ends) % 2 == 0]
        is_whole = stop < len(data) or len(quotes) % 2 == 0
        if (
            not is_whole
            or not _BEFORE_OPENING[part[opening - 1]].all()
            or (np.diff(ends, prepend=0) > MAX_RECORD).any()
        ):
            return None
    return ends + start


def split(record: str, delimiter: str) -> list[str]:
    """The fields of one record; blanks before a quote, and the mark of a file that was joined on, are passed over.

    Raises:
        RefusedError: ``bad_quoting``.
    """
    record = record.rstrip("\r\n").removeprefix("\ufeff")
    if '"' not in record:
        return record.split(delimiter)
    try:
        lines = io.StringIO(record, newline="")
        return next(csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise RefusedError("bad_quoting", f"the quotes in {shown(record)} do not add up ({error})") from None


def _end(lines: list[str], start: int) -> int:
    """Index after the last line of the record that begins with line `start`."""
    size, end, quoted = 0, start, False
    while end < len(lines) and size <= MAX_RECORD:
        size += len(lines[end])
        quoted = _ends_quoted(lines[end], quoted)
        end += 1
        if not quoted:
            return end
    return start + 1


def _ends_quoted(line: str, quoted: bool) -> bool:
    """Whether the end of `line` is inside a quoted field, when its beginning is (`quoted`) or is not."""
    position = 0
    while True:
        match = (_CLOSING.match if quoted else _OPENING.search)(line, position)
        if match is None:
            return quoted
        position, quoted = match.end(), not quoted

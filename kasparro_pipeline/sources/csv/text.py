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

from kasparro_pipeline.sources.fields import RefusedError, shown

DELIMITERS = ",;\t|"
MAX_RECORD = 128 * 1024

_CLOSING = re.compile(r'(?:[^"]++|"")*+"')
_OPENING = re.compile(rf'(?:^|[{re.escape(DELIMITERS)}])"')


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


def split(record: str, delimiter: str) -> list[str]:
    """The fields of one record.

    Raises:
        RefusedError: ``bad_quoting``.
    """
    record = record.rstrip("\r\n")
    if '"' not in record:
        return record.split(delimiter)
    try:
        return next(csv.reader(io.StringIO(record, newline=""), delimiter=delimiter, strict=True))
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

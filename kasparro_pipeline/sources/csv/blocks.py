"""A CSV file as payloads: blocks of whole records, cut where the content says.

A cut depends on the record before it and not on its place in the file. So a file that grew differs from the one before
in its last blocks only, and one restated in the middle only in the blocks around that place. The blocks of a packed
file are cut from what it unpacks to.
"""

from __future__ import annotations

import hashlib
import os
from binascii import crc32
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import numpy as np

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.csv.encoding import Utf16, one_byte_units, utf16
from kasparro_pipeline.sources.csv.files import unpacked
from kasparro_pipeline.sources.csv.text import MAX_RECORD, plain_ends, records_of
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.records import Checkpoint, Payload

MIN_BLOCK = 256 * 1024
MAX_BLOCK = 2 * 1024 * 1024
MEAN_BEYOND_MIN = 512 * 1024
KEPT_OF_REFUSED = 64 * 1024
"""Bytes that are kept of a file which cannot be unpacked."""
_CUTS_PER_BYTE = 2**32 // MEAN_BEYOND_MIN
_STRETCH = 64 * 1024
"""Bytes whose records are told apart at once."""
_WINDOW = MAX_BLOCK + 4 * MAX_RECORD


def file_digest(path: Path) -> str:
    """The SHA-256 of the file's bytes, in hex.

    Raises:
        KasparroError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def read_blocks(path: Path, *, source: str, partition: str, request: str, fetched_at: datetime) -> Iterator[Payload]:
    """The file's blocks in their order, one in memory at a time; of an empty file, one empty block.

    The last one carries the checkpoint: the file's ``sha256``, ``size`` and ``mtime_ns``. Of a file that cannot be
    unpacked the only block is its beginning, with the `Payload.problem`.

    Raises:
        KasparroError: the file cannot be read, or it changed meanwhile; then the last block is not handed out.
    """
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            first_record = 1
            for position, block in enumerate(_blocks(file)):
                checkpoint = None
                if block.is_last:
                    _check_unchanged(path, before, os.fstat(file.fileno()))
                    cursor = {"sha256": digest, "size": before.st_size, "mtime_ns": before.st_mtime_ns}
                    checkpoint = Checkpoint(cursor, complete=True)
                yield Payload(
                    *(source, partition, position, fetched_at, block.body, request, first_record, checkpoint),
                    is_ascii=block.body.isascii(),
                    problem=block.problem,
                )
                first_record += block.lines
    except OSError as error:
        raise _unreadable(path, error) from None


@dataclass(frozen=True, slots=True)
class _Block:
    body: bytes
    is_last: bool
    lines: int = 0
    problem: str | None = None


def _unreadable(path: Path, error: OSError) -> KasparroError:
    return KasparroError(f"{path} cannot be read: {error.strerror or error}; check the file and its permissions")


def _check_unchanged(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise KasparroError(f"{path} changed while it was read; load it again once it is written completely")


def _blocks(file: BinaryIO) -> Iterator[_Block]:
    try:
        stream = unpacked(file)
    except RefusedError as refused:
        file.seek(0)
        yield _Block(file.read(KEPT_OF_REFUSED), is_last=True, problem=f"{refused.code}: {refused.reason}")
        return
    window = stream.read(_WINDOW)
    kind = utf16(window)
    while True:
        at_end = len(window) < _WINDOW
        cut = _cut(window, kind)
        is_last = at_end and cut == len(window)
        yield _Block(window[:cut], is_last, _lines(window[:cut], kind))
        if is_last:
            return
        window = window[cut:] + stream.read(cut)


def _lines(body: bytes, kind: Utf16 | None) -> int:
    if kind is None:
        return body.count(b"\n") + (body.count(b"\r") - body.count(b"\r\n") if b"\r" in body else 0)
    text = one_byte_units(body, kind)
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _cut(window: bytes, kind: Utf16 | None) -> int:
    """Length of the block at the beginning of `window`, which holds a whole longest block or the rest of the file.

    A record longer than a block is none of ours and is cut through.
    """
    if kind is None:
        cut = _plain_cut(window)
        if cut is not None:
            return cut
    return _cut_after(_record_ends(window, kind), window)


def _plain_cut(window: bytes) -> int | None:
    """The same where the ends of many records can be told at once, as of nearly every file; None where they cannot."""
    view = memoryview(window)
    start, size = 0, MIN_BLOCK
    while start < len(window):
        ends = plain_ends(window, start, min(start + size, len(window)))
        if ends is None:
            return None
        if not len(ends):
            size *= 2
            continue
        first = int(np.searchsorted(ends, MIN_BLOCK))
        start = int(ends[first - 1]) if first else start
        for end in ends[first:].tolist():
            if end > MAX_BLOCK:
                return start or MAX_BLOCK
            if crc32(view[start:end]) < (end - start) * _CUTS_PER_BYTE:
                return int(end)
            start = end
        size = _STRETCH
    return len(window)


def _cut_after(ends: Iterator[tuple[int, int]], window: bytes) -> int:
    end = 0
    for start, end in ends:
        if end > MAX_BLOCK:
            return start or MAX_BLOCK
        if end >= MIN_BLOCK and crc32(window[start:end]) < (end - start) * _CUTS_PER_BYTE:
            return end
    return len(window)


def _record_ends(window: bytes, kind: Utf16 | None) -> Iterator[tuple[int, int]]:
    """Start and end of each record."""
    width = 1 if kind is None else 2
    end = 0
    for _, record in records_of(one_byte_units(window, kind)):
        start, end = end, end + len(record) * width
        yield start, end

"""A CSV file as payloads: blocks of whole records, cut where the content says.

A cut depends on the record before it and not on its place in the file. So a file that grew differs from the one before
in its last blocks only, and one restated in the middle only in the blocks around that place.
"""

from __future__ import annotations

import hashlib
import os
from binascii import crc32
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.csv_text import MAX_RECORD, records_of
from kasparro_pipeline.sources.records import Checkpoint, Payload

MIN_BLOCK = 256 * 1024
MAX_BLOCK = 2 * 1024 * 1024
MEAN_BEYOND_MIN = 512 * 1024
_CUTS_PER_BYTE = 2**32 // MEAN_BEYOND_MIN
_WINDOW = MAX_BLOCK + 2 * MAX_RECORD


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

    The last one carries the checkpoint: the file's ``sha256``, ``size`` and ``mtime_ns``.

    Raises:
        KasparroError: the file cannot be read, or it changed meanwhile; then the last block is not handed out.
    """
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.sha256()
            first_record = 1
            for position, (body, last) in enumerate(_blocks(file)):
                digest.update(body)
                checkpoint = None
                if last:
                    _check_unchanged(path, before, os.fstat(file.fileno()))
                    cursor = {"sha256": digest.hexdigest(), "size": before.st_size, "mtime_ns": before.st_mtime_ns}
                    checkpoint = Checkpoint(cursor, complete=True)
                yield Payload(source, partition, position, fetched_at, body, request, first_record, checkpoint)
                first_record += body.count(b"\n") + body.count(b"\r") - body.count(b"\r\n")
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> KasparroError:
    return KasparroError(f"{path} cannot be read: {error.strerror or error}; check the file and its permissions")


def _check_unchanged(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise KasparroError(f"{path} changed while it was read; load it again once it is written completely")


def _blocks(file: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Each block, and whether it is the last."""
    window = file.read(_WINDOW)
    while True:
        at_end = len(window) < _WINDOW
        cut = _cut(window)
        last = at_end and cut == len(window)
        yield window[:cut], last
        if last:
            return
        window = window[cut:] + file.read(cut)


def _cut(window: bytes) -> int:
    """Length of the block at the beginning of `window`, which holds a whole longest block or the rest of the file.

    A record longer than a block is none of ours and is cut through.
    """
    end = 0
    for _, record in records_of(window.decode("latin-1")):
        start, end = end, end + len(record)
        if end > MAX_BLOCK:
            return start or MAX_BLOCK
        if end >= MIN_BLOCK and crc32(window[start:end]) < len(record) * _CUTS_PER_BYTE:
            return end
    return end

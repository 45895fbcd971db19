"""Drop files as the CSV bytes in them: as they are, or unpacked from gzip or from a ZIP that holds one CSV.

What a file is, its first bytes say, not its name. Packed ones are read through once before anything is taken from them,
so that a broken one or a bomb is refused as a whole; nothing is ever unpacked onto a disk or into memory at once.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import zipfile
import zlib
from typing import BinaryIO, cast

from kasparro_pipeline.sources.fields import RefusedError

MAX_UNPACKED = 16 * 1024**3
"""Bytes that a packed file may unpack to."""
MAX_RATIO = 200
"""Unpacked to packed bytes; no table packs better."""
RATIO_COUNTS_FROM = 64 * 1024**2
MAX_DIRECTORY = 1024**2
"""Bytes of the table of contents of a ZIP, which is read into memory."""

_CHUNK = 1024**2
_GZIP, _ZIP = b"\x1f\x8b", (b"PK\x03\x04", b"PK\x05\x06")
_FOREIGN = {
    b"BZh": "bzip2 file",
    b"\xfd7zXZ\0": "xz file",
    b"\x28\xb5\x2f\xfd": "zstd file",
    b"7z\xbc\xaf\x27\x1c": "7z archive",
    b"Rar!": "RAR archive",
    b"\xd0\xcf\x11\xe0": "spreadsheet (xls)",
    b"PAR1": "Parquet file",
    b"%PDF-": "PDF file",
}
_END_OF_DIRECTORY = struct.Struct("<4s4H2LH")
_BROKEN = (
    *(EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, OverflowError, IndexError),
)
"""What Python's unpackers raise of bytes that are not as they should be."""


def unpacked(file: BinaryIO) -> BinaryIO:
    """The CSV bytes in `file`, from their beginning: itself, or a stream over what it unpacks to.

    Raises:
        RefusedError: ``archive`` or ``binary_file``; with what is to be done.
        OSError: the file cannot be read.
    """
    file.seek(0)
    head = file.read(8)
    file.seek(0)
    foreign = next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)
    if foreign:
        raise RefusedError("binary_file", f"the file is a {foreign}; save it as CSV, or as .csv.gz or .zip")
    if not head.startswith((_GZIP, *_ZIP)):
        return file
    try:
        _read_through(_opened(file, head), file)
        return _opened(file, head)
    except _BROKEN as error:
        why = str(error) or type(error).__name__
        raise RefusedError("archive", f"the file cannot be unpacked ({why}); pack it again") from None


def _opened(file: BinaryIO, head: bytes) -> BinaryIO:
    file.seek(0)
    if head.startswith(_GZIP):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))
    return _member(file)


def _member(file: BinaryIO) -> BinaryIO:
    """The one CSV in a ZIP."""
    _check_directory(file)
    archive = zipfile.ZipFile(file)
    members = [info for info in archive.infolist() if not info.is_dir() and not _is_hidden(info.filename)]
    tables = [info for info in members if info.filename.lower().endswith((".csv", ".tsv", ".txt"))]
    if len(members) != 1 or len(tables) != 1:
        if any(info.filename == "[Content_Types].xml" for info in members):
            raise RefusedError("binary_file", "the file is a spreadsheet (xlsx); save it as CSV")
        names = ", ".join(info.filename for info in members[:5]) + (", …" if len(members) > 5 else "")
        raise RefusedError(
            "archive", f"the ZIP holds {len(members)} files ({names}) and not one CSV; drop each CSV on its own"
        )
    if members[0].flag_bits & 1:
        raise RefusedError("archive", "the ZIP needs a password; drop the CSV itself")
    return cast(BinaryIO, archive.open(members[0]))


def _is_hidden(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith(".")


def _check_directory(file: BinaryIO) -> None:
    """Refuse a ZIP whose table of contents is too large to be read."""
    size = file.seek(0, 2)
    file.seek(max(0, size - 65_536 - _END_OF_DIRECTORY.size))
    tail = file.read()
    file.seek(0)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END_OF_DIRECTORY.size:
        raise zipfile.BadZipFile("its end is missing")
    if _END_OF_DIRECTORY.unpack_from(tail, place)[5] > MAX_DIRECTORY:
        raise RefusedError("archive", "the ZIP holds too many files; drop each CSV on its own")


def _read_through(stream: BinaryIO, file: BinaryIO) -> None:
    packed = file.seek(0, 2)
    file.seek(0)
    size = 0
    while chunk := stream.read(_CHUNK):
        size += len(chunk)
        if size > MAX_UNPACKED or (size > RATIO_COUNTS_FROM and size > packed * MAX_RATIO):
            raise RefusedError(
                "archive",
                f"the file unpacks to over {size // 1024**2:,} MB from {packed:,} bytes; drop the CSV itself, in parts",
            )

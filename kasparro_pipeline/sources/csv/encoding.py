"""Which encoding a CSV file is in: UTF-8, UTF-16, or Windows-1252, which contains Latin-1's letters.

Exact where a guess by letter frequency is not: that takes the é of a Windows-1252 price list for Windows-1250.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from kasparro_pipeline.sources.fields import RefusedError

Utf16 = Literal["utf-16-le", "utf-16-be"]

_LOOKED_AT = 4096
_UTF32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")


def utf16(head: bytes) -> Utf16 | None:
    """The kind of UTF-16 that a file beginning with `head` is in: by its mark, or by the zero bytes of its letters."""
    if head.startswith(_UTF32):
        return None
    if head.startswith(b"\xff\xfe"):
        return "utf-16-le"
    if head.startswith(b"\xfe\xff"):
        return "utf-16-be"
    sample = np.frombuffer(head[: min(len(head), _LOOKED_AT) // 2 * 2], np.uint8).reshape(-1, 2) == 0
    if len(sample) < 4:
        return None
    first, second = sample.mean(axis=0)
    if max(first, second) < 0.5 or min(first, second) > 0.05:
        return None
    return "utf-16-le" if second > first else "utf-16-be"


def find_encoding(head: bytes, blocks: Iterable[bytes]) -> str:
    """The encoding of a file that begins with `head`, by those `blocks` of it that may not be ASCII alone.

    UTF-8 unless most of the lines beyond ASCII are none, and then Windows-1252.
    """
    if kind := utf16(head):
        return kind
    valid = invalid = 0
    for block in blocks:
        if block.isascii():
            continue
        for line in block.split(b"\n"):
            if not line.isascii():
                is_valid = _is_utf8(line)
                valid += is_valid
                invalid += not is_valid
    return "utf-8" if valid >= invalid else "cp1252"


def one_byte_units(data: bytes, kind: Utf16 | None) -> str:
    """`data` as text with one character a unit of the encoding, in which quotes, delimiters and line ends are right."""
    if kind is None:
        return data.decode("latin-1")
    units = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if kind == "utf-16-le" else ">u2")
    return str(np.minimum(units, 255).astype(np.uint8).tobytes(), "latin-1")


def decode(body: bytes, encoding: str) -> tuple[str, bool]:
    """A block as text without its mark, and whether all of it is text that PostgreSQL can hold.

    What is no text in `encoding` becomes surrogates.
    """
    is_wide = encoding.startswith("utf-16")
    try:
        text, clean = body.decode(encoding), True
    except UnicodeDecodeError:
        clean = False
        whole = len(body) // 2 * 2 if is_wide else len(body)
        text = body[:whole].decode(encoding, "surrogatepass" if is_wide else "surrogateescape")
        text += body[whole:].decode("ascii", "surrogateescape")
    return text.removeprefix("\ufeff"), clean and "\0" not in text


def known_encoding(name: str) -> str:
    """`name` as Python calls it.

    Raises:
        LookupError: there is no such encoding, or a file in it cannot be cut into lines.
    """
    if name.lower().replace("_", "-") in ("utf-16-le", "utf-16-be", "utf-8"):
        return name.lower().replace("_", "-")
    every = bytes(range(256))
    if len(every.decode(name, "replace")) != 256 or every[:128].decode(name, "replace") != every[:128].decode("ascii"):
        raise LookupError(f"unknown encoding: {name}")
    return name


def check_text(head: bytes, encoding: str) -> None:
    """Look at a file's first block.

    Raises:
        RefusedError: ``empty_file``, ``binary_file`` or ``encoding``.
    """
    if head.startswith(_UTF32):
        raise RefusedError("encoding", "the file is UTF-32; save it as UTF-8")
    text, _ = decode(head, encoding)
    if "\0" in text[:_LOOKED_AT]:
        raise RefusedError("binary_file", "the file holds NUL characters: it is no text")
    if not text.strip():
        raise RefusedError("empty_file", "the file holds no record")


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True

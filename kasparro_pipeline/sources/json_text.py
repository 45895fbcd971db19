"""JSON as text: whether a body is whole, and its records as they came, each with its own digits.

msgspec is fast and keeps the source text, but a lone surrogate (``"\\ud800"``) or a ``NaN`` anywhere makes it refuse
the whole body. Then the standard library, which reads both, finds the records, so that one bad record stays one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.fields import RefusedError, shown

Path = tuple[str, ...]
"""Keys from the outside in, such as ``("quotes", "USD", "price")``. In a record a small number is a place in an
array, from 0."""
MEMBERS = "*"
"""At the end of the path to records: they are the members of an object, each as the pair of its name and value."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for JSON that it cannot read."""

_BOM = b"\xef\xbb\xbf"
_BLANKS = " \t\r\n"
_whole = msgspec.json.Decoder(msgspec.Raw).decode
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_lenient = json.JSONDecoder(parse_int=str, parse_float=str)


def path_of(dotted: str | int) -> Path:
    """The path that a defs.yaml writes with dots, or as the number of a place; empty for an empty text.

    Raises:
        KasparroError: it is none.
    """
    path = tuple(str(dotted).split(".")) if dotted != "" else ()
    if not all(path) or any(key == "$" or "[" in key for key in path):
        raise KasparroError(f"{shown(str(dotted))} is no path; write names, or places in an array, with dots between")
    return path


def is_json(body: bytes) -> bool:
    """Whether `body` is one complete JSON value."""
    body = body.removeprefix(_BOM)
    try:
        _whole(body)
    except UNREADABLE:
        try:
            _lenient.decode(_text(body))
        except (ValueError, RecursionError):
            return False
    return True


def records_at(body: bytes, path: Path) -> Sequence[msgspec.Raw | bytes]:
    """The items of the array at `path` (the whole body when empty), each as its own source text.

    Of an object at a path that ends in `MEMBERS` each member is one, as the array of its name and value.

    Raises:
        RefusedError: ``unreadable_payload``; there is no array, or no object.
    """
    if path and path[-1] == MEMBERS:
        return _members_at(body, path[:-1])
    try:
        found: msgspec.Raw | bytes = body.removeprefix(_BOM)
        for key in path:
            found = _objects(found)[key]
        return _items(found)
    except KeyError as error:
        raise RefusedError("unreadable_payload", f"the answer has no {error.args[0]!r}") from None
    except msgspec.ValidationError as error:
        raise RefusedError(
            "unreadable_payload", f"no array of records at {'.'.join(path) or 'the top'}: {error}"
        ) from None
    except UNREADABLE as error:
        try:
            text = _text(body.removeprefix(_BOM))
            for key in path:
                text = dict(_split_object(text))[key]
            return [_bytes(item) for item in _split_array(text)]
        except KeyError as missing:
            raise RefusedError("unreadable_payload", f"the answer has no {missing.args[0]!r}") from None
        except (ValueError, RecursionError):
            raise RefusedError("unreadable_payload", f"the payload is no complete JSON array: {error}") from None


def value_at(body: bytes, path: Path) -> msgspec.Raw | bytes | None:
    """The source text of the value at `path`; None where there is none, or something on the way is null.

    Raises:
        RefusedError: ``unreadable_payload``; something on the way is no object.
    """
    found: msgspec.Raw | bytes | None = body.removeprefix(_BOM)
    for key in path:
        if found is None or bytes(found) == b"null":
            return None
        found = _members(found, path).get(key)
    return found


def _members_at(body: bytes, path: Path) -> list[bytes]:
    found = value_at(body, path)
    if found is None:
        raise RefusedError("unreadable_payload", f"the answer has no {'.'.join(path)!r}")
    return [b"[%b,%b]" % (json.dumps(name).encode(), value) for name, value in _members(found, path).items()]


def _members(found: msgspec.Raw | bytes, path: Path) -> Mapping[str, msgspec.Raw | bytes]:
    try:
        return _objects(found)
    except UNREADABLE as error:
        try:
            return {name: _bytes(value) for name, value in _split_object(_text(bytes(found)))}
        except (ValueError, RecursionError):
            where = ".".join(path) or "the top"
            raise RefusedError("unreadable_payload", f"nothing to read at {where}: {error}") from None


def _text(body: bytes) -> str:
    return body.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _split_array(text: str) -> Iterator[str]:
    """The source text of each item. Raises `ValueError` where `text` is not one array."""
    text = text.strip(_BLANKS)
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError("no array")
    position, end = _skip(text, 1), len(text) - 1
    while position < end:
        start = position
        position = _lenient.raw_decode(text, start)[1]
        yield text[start:position]
        position = _next(text, position, end)


def _split_object(text: str) -> Iterator[tuple[str, str]]:
    """The name of each member and its value's source text. Raises `ValueError` where `text` is not one object."""
    text = text.strip(_BLANKS)
    if not (text.startswith("{") and text.endswith("}")):
        raise ValueError("no object")
    position, end = _skip(text, 1), len(text) - 1
    while position < end:
        name, position = _lenient.raw_decode(text, position)
        if not isinstance(name, str) or position > end or text[position := _skip(text, position)] != ":":
            raise ValueError("no name")
        start = _skip(text, position + 1)
        position = _lenient.raw_decode(text, start)[1]
        yield name, text[start:position]
        position = _next(text, position, end)


def _next(text: str, position: int, end: int) -> int:
    """Where the next item begins, or `end`."""
    if position > end:
        raise ValueError("the last item took the end")
    position = _skip(text, position)
    if position < end:
        if text[position] != ",":
            raise ValueError("no comma")
        position = _skip(text, position + 1)
        if position == end:
            raise ValueError("no item after a comma")
    return position


def _skip(text: str, position: int) -> int:
    while text[position] in _BLANKS:
        position += 1
    return position

"""The place in a listing where the next page begins."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence

NOT_A_CURSOR = "not a cursor: give `next_cursor` of the page before, unchanged"


def encode(order: str, place: Sequence[str]) -> str:
    """The place after one row, as clients carry it: the name of the order, and the row's values in it."""
    text = json.dumps([order, *place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode(text: str, order: str, readers: Sequence[Callable[[str], object]]) -> list[object]:
    """The values of the row after which the page begins, each read by its reader.

    Raises:
        ValueError: `encode` did not write this, or wrote it for another order.
    """
    try:
        found, *place = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not all(isinstance(part, str) for part in (found, *place)) or encode(found, place) != text:
            raise ValueError
    except (ValueError, TypeError, RecursionError):
        raise ValueError(NOT_A_CURSOR) from None
    if found != order:
        raise ValueError(f"made for sort={found}: give that, or begin again without a cursor")
    try:
        return [read(part) for read, part in zip(readers, place, strict=True)]
    except ValueError:
        raise ValueError(NOT_A_CURSOR) from None

"""The place in a listing where the next page begins."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import date
from typing import Self


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place after one row, in the order newest day first, then coin_id."""

    day: date
    coin_id: str

    def encode(self) -> str:
        """The cursor as clients carry it."""
        text = json.dumps([self.day.isoformat(), self.coin_id], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what `encode` wrote.

        Raises:
            ValueError: `encode` did not write this.
        """
        try:
            day, coin_id = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            cursor = cls(date.fromisoformat(day), coin_id)
            if isinstance(coin_id, str) and "\x00" not in coin_id and cursor.encode() == text:
                return cursor
        except (ValueError, TypeError, RecursionError):
            pass
        raise ValueError("not a cursor: give `next_cursor` of the page before, unchanged")

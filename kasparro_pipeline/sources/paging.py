"""How a vendor cuts a long answer into pages, and which page comes after which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.json_text import Path, value_at

Place = int | str | None
"""What names a page in the request: a number, an offset, a cursor; None: nothing, the first page of a cursor."""


@dataclass(frozen=True, slots=True)
class Paging:
    """By page number or offset, where a page with fewer than `size` records is the last; or by cursor.

    With a cursor each answer says at `next_path` what to ask for next, and nothing or null in the last.
    """

    by: Literal["page", "offset", "cursor"]
    size: int
    param: str
    """Parameter that names the page."""
    size_param: str
    first: int = 1
    """The first page's number."""
    next_path: Path = ()

    @property
    def start(self) -> Place:
        """The first page."""
        return {"page": self.first, "offset": 0, "cursor": None}[self.by]

    def params(self, place: Place) -> Mapping[str, str | int]:
        """What to ask for the page at `place`."""
        return {self.size_param: self.size} | ({} if place is None else {self.param: place})

    def after(self, place: Place, records: int, body: bytes) -> Place:
        """The page after the one at `place`, which held `records` in `body`; None: that was the last.

        Raises:
            RefusedError: the answer's cursor is none.
        """
        if self.by == "cursor":
            return self._cursor(body)
        if records < self.size:
            return None
        return int(place or 0) + (1 if self.by == "page" else records)

    def _cursor(self, body: bytes) -> Place:
        found = value_at(body, self.next_path)
        try:
            cursor = None if found is None else msgspec.json.decode(found, type=str | int | None)
        except msgspec.DecodeError:
            raise RefusedError("bad_cursor", f"{'.'.join(self.next_path)} is neither a text nor a number") from None
        return None if cursor == "" else cursor

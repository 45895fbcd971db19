"""How a vendor cuts a long answer into pages, and which page comes after which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec

from kasparro_pipeline.sources.fields import RefusedError, shown
from kasparro_pipeline.sources.json_text import Path, value_at

ROUND = 10
Place = int | str | None
"""What names a page in the request: a number, an offset, a cursor, a link's query; None: nothing, the first page of
a cursor or link."""


@dataclass(frozen=True, slots=True)
class Paging:
    """By page number or offset, where a page with fewer than `size` records is the last; or by cursor or link.

    By cursor or link each answer says at `next_path` what to ask for next, and nothing or null in the last.
    """

    by: Literal["page", "offset", "cursor", "link"]
    size: int | None
    """Records of a page to ask for, of which a vendor may give fewer; None: it is not asked for any number."""
    param: str
    """Parameter that names the page; a link names its own."""
    size_param: str
    first: int | None = None
    """The first page's number, or the first offset; None: 1 and 0."""
    next_path: Path = ()

    @property
    def start(self) -> Place:
        """The first page."""
        return {"page": 1, "offset": 0}.get(self.by) if self.first is None else self.first

    def params(self, place: Place) -> Mapping[str, str | int]:
        """What to ask for the page at `place`."""
        if place is not None and self.by == "link":
            return dict(parse_qsl(str(place), keep_blank_values=True))
        size = {} if self.size is None else {self.size_param: self.size}
        return size if place is None else size | {self.param: place}

    def after(self, place: Place, records: int, longest: int, body: bytes) -> Place:
        """The page after the one at `place`, which held `records` in `body`; None: that was the last.

        `longest` is how many records the first page held. A round number of them may be all that the vendor gives at
        once, whatever it was asked for, and by whatever name of the parameter; then a shorter page is the last.

        Raises:
            RefusedError: what the answer says of the next page cannot be asked for.
        """
        if self.next_path:
            following = self._following(body)
            return self._query(following) if following and self.by == "link" else following
        full = longest if self.size is None or longest % ROUND == 0 else self.size
        if not records or records < full:
            return None
        return int(place or 0) + (1 if self.by == "page" else records)

    def _following(self, body: bytes) -> Place:
        found = value_at(body, self.next_path)
        try:
            following = None if found is None else msgspec.json.decode(found, type=str | int | bool | None)
        except msgspec.DecodeError:
            following = True
        if following is True:
            raise RefusedError("bad_cursor", f"{'.'.join(self.next_path)} is neither a text nor a number")
        return following or None

    def _query(self, link: Place) -> str:
        """Of a link only what it asks for is taken: the key is not sent anywhere else, by whatever name a vendor goes.

        Raises:
            RefusedError: it has no parameters, or gives one twice.
        """
        query = urlsplit(str(link)).query
        names = [name for name, _ in parse_qsl(query, keep_blank_values=True)]
        if not names or len(names) != len(set(names)):
            where = ".".join(self.next_path)
            raise RefusedError("bad_cursor", f"{where} is no link that differs by its parameters: {shown(str(link))}")
        return query

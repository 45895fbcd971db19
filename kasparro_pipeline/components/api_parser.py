"""Parses what a vendor's API answered: snapshots of all coins, and the history of one."""

from __future__ import annotations

import hashlib
from datetime import date
from typing import Any

import sqlalchemy as sa

from kasparro_pipeline.components.drift import KEY_COLUMNS, Shaped
from kasparro_pipeline.io_managers.raw_payload import Deliveries, Kept
from kasparro_pipeline.sources.fields import RefusedError
from kasparro_pipeline.sources.history import HistoryMapping, parse_history
from kasparro_pipeline.sources.json_records import Coin, JsonMapping, parse_json
from kasparro_pipeline.sources.json_text import records_at
from kasparro_pipeline.sources.records import ParsedPayload
from kasparro_pipeline.sources.shape import json_shape
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import source_coin

PARSER = "json-6"
"""Raised by one whenever the code would make other observations of the same bytes."""


class ApiParser:
    """Parses payloads that are JSON."""

    restates = False

    def __init__(
        self, snapshot: JsonMapping, history: HistoryMapping | None, first_day: date, deliveries: Deliveries | None
    ) -> None:
        paths = (sorted(snapshot.columns.items()), snapshot.record_path, snapshot.time_path)
        decides = (first_day, *paths, sorted(snapshot.zero_is_null))
        self.version = parser_version(PARSER, *decides, *([history.decides] if history else []))
        self.uses_fetched_at = snapshot.uses_fetched_at
        self._snapshot = snapshot
        self._history = history
        self._first_day = first_day
        self._deliveries = deliveries

    def version_of(self, kept: Kept) -> str:
        """The version; of a history answer also whom it is about, which its bytes do not say."""
        return self.version if kept.source_coin_id is None else f"{self.version}:{kept.source_coin_id}"

    def shaped(self, kept: Kept) -> Shaped | None:
        """The fields of a snapshot's records; None where it has no records, and for a history."""
        assert self._deliveries is not None  # noqa: S101 - see parse
        if kept.source_coin_id is not None:
            return None
        try:
            records = records_at(self._deliveries.body(kept), self._snapshot.record_path)
        except RefusedError:
            return None
        mapped = {".".join(path): column for column, path in self._snapshot.columns.items()}
        keys = {path: column for path, column in mapped.items() if column in KEY_COLUMNS}
        return Shaped("", json_shape(records, mapped), len(records), mapped.get, keys) if records else None

    def parse(self, kept: Kept) -> ParsedPayload:
        """The answer's records."""
        assert self._deliveries is not None  # noqa: S101 - made without deliveries only to ask for its version
        delivered = self._deliveries.read(kept)
        if kept.source_coin_id is None or self._history is None:
            return parse_json(delivered, self._snapshot, self._first_day)
        return parse_history(delivered, self._history, _coin(kept.source, kept.source_coin_id), self._first_day)


def parser_version(code: str, *decides: Any) -> str:  # noqa: ANN401 - whatever has a stable repr
    """`code` and a digest of all that decides what is made of the same bytes."""
    return f"{code}:{hashlib.sha256(repr(decides).encode()).hexdigest()[:12]}"


def _coin(source: str, source_coin_id: str) -> Coin:
    """The coin by the names that the source's snapshots give it: a history answer has none."""
    query = sa.select(source_coin.c.symbol, source_coin.c.name).where(
        source_coin.c.source == source, source_coin.c.source_coin_id == source_coin_id
    )
    with current_engine().connect() as connection:
        row = connection.execute(query).one_or_none()
    return Coin(source_coin_id, *(row or (None, None)))

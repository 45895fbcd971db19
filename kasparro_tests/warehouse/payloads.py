"""Payloads put into the tables by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from kasparro_pipeline.warehouse.months import make_partitions, month_of
from kasparro_pipeline.warehouse.tables import payload, raw_payload

KEY = ("source", "sha256", "first_fetched_at")


def keep_payloads(connection: sa.Connection, rows: Iterable[Mapping[str, Any]]) -> None:
    """Store rows of `raw_payload`, and that there are these payloads."""
    kept = [dict(row) for row in rows]
    make_partitions(connection, raw_payload, {month_of(row["first_fetched_at"]) for row in kept})
    connection.execute(sa.insert(payload), [{name: row[name] for name in KEY} for row in kept])
    connection.execute(sa.insert(raw_payload), kept)

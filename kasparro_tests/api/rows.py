"""Rows to read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any

import sqlalchemy as sa

from kasparro_pipeline.warehouse.tables import raw_payload, unified_assets
from kasparro_tests.warehouse.payloads import keep_payloads


def unified(coin_id: str, day: date, **columns: Any) -> dict[str, Any]:
    noon = datetime.combine(day, time(12), UTC)
    empty = dict.fromkeys(column.name for column in unified_assets.columns)
    return {
        **empty,
        "coin_id": coin_id,
        "day": day,
        "source_count": 1,
        "sources": ["coingecko"],
        "flags": [],
        "observed_at": noon,
        "updated_at": noon,
        **columns,
    }


def insert(engine: sa.Engine, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
    with engine.begin() as connection:
        if table is raw_payload:
            keep_payloads(connection, rows)
            return
        for row in rows:
            connection.execute(table.insert().values(row))

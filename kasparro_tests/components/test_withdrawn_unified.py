"""What a withdrawn observation means for the unified table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from kasparro_pipeline.warehouse.tables import coin, coin_identity, observation, source_coin
from kasparro_pipeline.warehouse.touched import Part
from kasparro_pipeline.warehouse.unify import unify
from kasparro_tests.components.world import World

DAY = datetime(2026, 10, 1, tzinfo=UTC)


def observed(source: str, hour: int, price: int | None, *, withdrawn: bool = False) -> dict[str, Any]:
    return {
        "source": source,
        "source_coin_id": "x",
        "observed_at": DAY + timedelta(hours=hour),
        "price_usd": price,
        "fetched_at": DAY,
        "payload_sha256": "",
        "position": 1,
        "withdrawn_at": DAY if withdrawn else None,
    }


def unified(world: World, *rows: dict[str, Any]) -> tuple[Decimal, str, list[str]]:
    world.clear()
    with world.engine.begin() as connection:
        connection.execute(sa.insert(coin).values(coin_id="x"))
        connection.execute(sa.insert(observation), list(rows))
        for source in sorted({row["source"] for row in rows}):
            key = {"source": source, "source_coin_id": "x"}
            connection.execute(sa.insert(source_coin).values(**key, first_seen=DAY, last_seen=DAY))
            values = {"coin_id": "x", "method": "m", "confidence": 1, "evidence": ""}
            connection.execute(sa.insert(coin_identity).values(**key, **values))
        query = unify(Part(DAY.date(), DAY.date() + timedelta(days=1)), {"csv_a": 10, "csv_b": 20})
        (row,) = connection.execute(query).mappings()
        return row["price_usd"], row["price_source"], row["flags"]


def test_a_withdrawn_observation_still_counts_and_is_marked(world: World) -> None:
    assert unified(world, observed("csv_a", 1, 7, withdrawn=True)) == (7, "csv_a", ["withdrawn"])
    both = (observed("csv_a", 1, 7, withdrawn=True), observed("csv_b", 1, 7))
    assert unified(world, *both) == (7, "csv_a", ["withdrawn"])


def test_one_still_delivered_is_preferred_to_a_later_withdrawn_one(world: World) -> None:
    rows = (observed("csv_a", 1, 5), observed("csv_a", 2, 6), observed("csv_a", 3, 7, withdrawn=True))
    assert unified(world, *rows) == (6, "csv_a", [])

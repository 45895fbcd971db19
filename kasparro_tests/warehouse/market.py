"""What sources said of coins, straight into the tables, and the rule over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.warehouse.merge import Merge, Merged, Window
from kasparro_pipeline.warehouse.tables import coin, coin_identity, observation, source_coin, unified_assets
from kasparro_pipeline.warehouse.unification import Unification
from kasparro_pipeline.warehouse.unify import RULE, rule_version

PRIORITIES = {"coingecko": 10, "coinpaprika": 20, "csv_desk": 90}
DAY = date(2026, 11, 10)
Said = Mapping[str, Any]


def at(clock: str = "23:50", day: date = DAY) -> datetime:
    return datetime.combine(day, time.fromisoformat(clock), UTC)


def said(source: str, price: object, clock: str = "23:50", day: date = DAY, **columns: Any) -> Said:
    """One observation; of the coin ``bitcoin`` unless `source_coin_id` says otherwise."""
    defaults = {"source_coin_id": "bitcoin", "symbol": "BTC", "name": "Bitcoin", "payload_sha256": "a", "position": 1}
    observed_at = at(clock, day)
    times = {"observed_at": observed_at, "fetched_at": observed_at}
    return {**defaults, "source": source, "price_usd": price, **times, **columns}


def on_the_days_before(source: str, *prices: object, **columns: Any) -> list[Said]:
    """Its prices of the days before `DAY`, the last one of the day just before."""
    return [said(source, price, day=DAY - timedelta(days=len(prices) - n), **columns) for n, price in enumerate(prices)]


def observe(engine: sa.Engine, observations: Iterable[Said]) -> None:
    """Store them; every source_coin_id is the coin of the same name."""
    rows = list(observations)
    coins = sorted({row["source_coin_id"] for row in rows})
    members = sorted({(row["source"], row["source_coin_id"]) for row in rows})
    moment = at()
    with engine.begin() as connection:
        connection.execute(insert(coin).on_conflict_do_nothing(), [{"coin_id": coin_id} for coin_id in coins])
        for table, more in (
            (source_coin, {"first_seen": moment, "last_seen": moment}),
            (coin_identity, {"method": "override", "confidence": 1, "evidence": "a test says so"}),
        ):
            named = [{"source": source, "source_coin_id": coin_id, **more} for source, coin_id in members]
            if table is coin_identity:
                named = [{**row, "coin_id": row["source_coin_id"]} for row in named]
            connection.execute(insert(table).on_conflict_do_nothing(), named)
        statement = insert(observation)
        changed = {c.name: statement.excluded[c.name] for c in observation.columns if not c.primary_key}
        for row in rows:
            key = ["source", "observed_at", "source_coin_id"]
            connection.execute(statement.on_conflict_do_update(index_elements=key, set_=changed), row)


def unify_days(engine: sa.Engine, first: date = DAY, last: date = DAY, *, only_touched: bool = False) -> Merged:
    """Make the rows of these days, as the asset does it."""
    end = last + timedelta(days=1)
    run = Unification(first, end, rule_version(PRIORITIES), PRIORITIES, "run-u", only_touched=only_touched)
    with engine.begin() as connection:
        merge = Merge(connection, unified_assets, window=Window("day", first, end), replace=True)
        for frame in run.frames(connection):
            merge.frame(frame)
        merged = merge.finish(run.windows())
        run.commit(connection, merged)
        return merged


def rows(engine: sa.Engine) -> list[dict[str, Any]]:
    """The unified rows, numbers as their digits."""
    query = sa.select(unified_assets).order_by(unified_assets.c.day, unified_assets.c.coin_id)
    with engine.connect() as connection:
        found = connection.execute(query).mappings().all()
    return [
        {name: _digits(unified_assets.c[name], value) for name, value in row.items() if name != "updated_at"}
        for row in found
    ]


def _digits(column: sa.Column[Any], value: Any) -> Any:
    return format(value, "f") if isinstance(column.type, sa.Numeric) and value is not None else value


def row(engine: sa.Engine, *observations: Said) -> dict[str, Any]:
    """The one row of `DAY` that these observations become."""
    observe(engine, observations)
    unify_days(engine)
    (only,) = rows(engine)
    return only


def why(engine: sa.Engine, day: date = DAY) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The rule's own words on every coin's every field of a day, by coin, field and source."""
    values = {
        "since": at("00:00", day - timedelta(days=3)),
        "start": at("00:00", day),
        "end": at("00:00", day) + timedelta(days=1),
        "coin_ids": None,
        "sources": list(PRIORITIES),
        "priorities": list(PRIORITIES.values()),
    }
    query = sa.text(f"SELECT coin_id, why FROM (\n{RULE}) AS rule")
    with engine.connect() as connection:
        found = connection.execute(query, values).all()
    return {(coin_id, entry["field"], entry["source"]): entry for coin_id, told in found for entry in told}

"""What two vendors said within one evening, recorded: one row a coin, and how far they were apart."""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from kasparro_pipeline.components.coin_names import _newest, _write_coins
from kasparro_pipeline.identity.coins import SourceCoin, curated_rulings
from kasparro_pipeline.identity.match import identify
from kasparro_pipeline.sources.json_records import JsonMapping, parse_json
from kasparro_pipeline.sources.records import Payload
from kasparro_pipeline.warehouse.merge import Merge
from kasparro_pipeline.warehouse.tables import coin, coin_identity, observation, source_coin
from kasparro_tests.sources.samples import COINPAPRIKA, delivered
from kasparro_tests.warehouse.market import PRIORITIES, rows, unify_days

REALDATA = Path(os.environ.get("KASPARRO_REALDATA") or "/nonexistent")
DAY = date(2021, 8, 12)
FETCHED = datetime(2021, 8, 12, 23, 30, tzinfo=UTC)
COINGECKO_COINS = JsonMapping(
    {
        "source_coin_id": ("id",),
        "observed_at": ("last_updated",),
        "symbol": ("symbol",),
        "name": ("name",),
        "price_usd": ("market_data", "current_price", "usd"),
        "market_cap_usd": ("market_data", "market_cap", "usd"),
        "volume_24h_usd": ("market_data", "total_volume", "usd"),
        "rank": ("market_data", "market_cap_rank"),
    }
)
"""The records of ``/coins``, which hold every currency; only USD is mapped."""
NOT_AT_COINPAPRIKA = {"compound-usd-coin", "compound-ether", "cdai"}
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not REALDATA.is_dir(), reason="KASPARRO_REALDATA names no folder"),
]


def load(connection: sa.Connection, source: str, path: str, mapping: JsonMapping) -> None:
    body = (REALDATA / path).read_bytes()
    parsed = parse_json(delivered(Payload(source, str(DAY), 0, FETCHED, body, "http://x/")), mapping)
    assert not parsed.quarantined
    Merge(connection, observation).frame(parsed.observations)
    _write_coins(connection, _newest(parsed.observations, "observed_at", "observed_at"))


def test_the_fifty_largest_are_one_row_each_of_both_vendors(tables: sa.Engine) -> None:
    with tables.begin() as connection:
        load(connection, "coingecko", "coingecko/coins_2021-08-12_top50.json", COINGECKO_COINS)
        load(connection, "coinpaprika", "coinpaprika/tickers_2021-08-12_3795.json", COINPAPRIKA)
        named = [SourceCoin(*one[:4]) for one in connection.execute(sa.select(source_coin))]
        identities = identify(named, curated_rulings(), PRIORITIES, {}).identities
        connection.execute(sa.insert(coin), [{"coin_id": c} for c in sorted({i.coin_id for i in identities})])
        columns = list(identities[0].__dataclass_fields__)
        values = [{name: getattr(identity, name) for name in columns} for identity in identities]
        connection.execute(sa.insert(coin_identity), values)
        gecko = {i.source_coin_id: i.coin_id for i in identities if i.source == "coingecko"}
        own = {
            (source, source_coin_id): str(price)
            for source, source_coin_id, price in connection.execute(
                sa.select(observation.c.source, observation.c.source_coin_id, observation.c.price_usd)
            )
        }
    unify_days(tables, DAY, DAY)
    found = {row["coin_id"]: row for row in rows(tables) if row["day"] == DAY}
    both = {name: found[coin_id] for name, coin_id in gecko.items() if found[coin_id]["source_count"] == 2}
    alone = set(gecko) - set(both)
    assert alone == NOT_AT_COINPAPRIKA
    for name, row in both.items():
        assert row["price_source"] == "coingecko"
        assert Decimal(row["price_usd"]) == Decimal(own["coingecko", name])
        assert (Decimal(row["price_spread_pct"]) > 5) == ("wide_spread" in row["flags"])
    wide = {name: row["price_spread_pct"] for name, row in both.items() if "wide_spread" in row["flags"]}
    assert len(wide) <= 3, wide

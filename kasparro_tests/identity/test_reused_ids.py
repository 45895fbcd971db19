"""An id that its source gives to another coin: the past stays with the coin that it was, unless a person says no."""

from __future__ import annotations

from dataclasses import asdict
from datetime import date, timedelta

import pandas as pd
import pytest
import sqlalchemy as sa

from kasparro_pipeline.components.partitions import day_ranges
from kasparro_pipeline.defs.coins import store
from kasparro_pipeline.identity.coins import DIFFERENT, SAME, Ruling
from kasparro_pipeline.identity.match import identify
from kasparro_pipeline.warehouse.merge import Merge
from kasparro_pipeline.warehouse.tables import coin, coin_identity, observation, reused_id, source_coin, unified_assets
from kasparro_pipeline.warehouse.touched import Touched, due_days
from kasparro_tests.warehouse.market import DAY, PRIORITIES, rows, said, unify_days

DAYS = [DAY - timedelta(days=age) for age in range(4, -1, -1)]
GECKO = ("coingecko", "terra-luna")
DESK = ("csv_desk", "luna")
TERRA = {"symbol": "LUNA", "name": "Terra"}
MOON = {"symbol": "LUNA", "name": "Cosmic Moon"}


def observe(engine: sa.Engine, key: tuple[str, str], price: str, day: date, clock: str = "23:50", **words: str) -> None:
    """Store an observation and what the source calls the coin, as a load does."""
    source, source_coin_id = key
    one = dict(said(source, price, clock, day, source_coin_id=source_coin_id, **words))
    named = {"source": source, "source_coin_id": source_coin_id, **words, "first_seen": one["observed_at"]}
    touched = Touched()
    touched.add(source, {day: {source_coin_id}})
    with engine.begin() as connection:
        Merge(connection, observation).frame(pd.DataFrame([one], dtype=object))
        row = {**named, "last_seen": one["observed_at"]}
        later = source_coin.c.last_seen <= one["observed_at"]
        if not connection.scalar(sa.select(sa.func.count()).where(source_coin.c.source_coin_id == source_coin_id)):
            connection.execute(sa.insert(source_coin).values(row))
        connection.execute(
            sa.update(source_coin).where(source_coin.c.source_coin_id == source_coin_id, later).values(row)
        )
        touched.write(connection)


def decide(engine: sa.Engine, *rulings: Ruling) -> dict[str, str]:
    """Identity as the asset makes it, and unify; each source's coin."""
    with engine.begin() as connection:
        before = store.read_identities(connection)
        found = identify(store.read_coins(connection), rulings, PRIORITIES, before)
        ids = sorted({identity.coin_id for identity in found.identities})
        Merge(connection, coin).frame(pd.DataFrame({"coin_id": ids}))
        Merge(connection, coin_identity).frame(pd.DataFrame([asdict(one) for one in found.identities], dtype=object))
        store.after_identity(connection, before, found.identities, found.reused)
        store.write_history(connection)
    with engine.connect() as connection:
        ranges = day_ranges(due_days(connection))
    for first, last in ranges:
        unify_days(engine, first, last, only_touched=True)
    return {identity.source: identity.coin_id for identity in found.identities}


def contributed(engine: sa.Engine, source: str = "csv_desk") -> list[tuple[str, int]]:
    """Coins and days (their place in `DAYS`) to whose rows the source contributed."""
    found = [(row["coin_id"], DAYS.index(row["day"])) for row in rows(engine) if source in row["sources"]]
    assert_same_from_scratch(engine)
    return found


def assert_same_from_scratch(engine: sa.Engine) -> None:
    bit_by_bit = rows(engine)
    with engine.begin() as connection:
        connection.execute(sa.delete(unified_assets))
    unify_days(engine, DAYS[0], DAYS[-1])
    assert rows(engine) == bit_by_bit


def ruled(ruling: str) -> Ruling:
    return Ruling(ruling, *GECKO, *DESK, "ann", "she knows")


@pytest.fixture
def reused(engine: sa.Engine) -> sa.Engine:
    """The desk has used its ``luna`` for another coin since the noon of the fourth day."""
    for day in DAYS:
        observe(engine, GECKO, "80", day, **TERRA)
    for day in DAYS[:3]:
        observe(engine, DESK, "81", day, **TERRA)
    observe(engine, DESK, "82", DAYS[3], "09:00", **TERRA)
    assert set(decide(engine).values()) == {"terra-luna"}
    observe(engine, DESK, "7", DAYS[3], **MOON)
    observe(engine, DESK, "8", DAYS[4], **MOON)
    assert decide(engine) == {"coingecko": "terra-luna", "csv_desk": "luna"}
    return engine


def test_the_past_stays_and_what_comes_is_the_other_coins(reused: sa.Engine) -> None:
    terra = [("terra-luna", n) for n in range(4)]
    assert sorted(contributed(reused)) == [("luna", 3), ("luna", 4), *terra]
    observe(reused, DESK, "90", DAYS[1], **TERRA)  # the past restated
    decide(reused)
    assert next(row for row in rows(reused) if row["day"] == DAYS[1])["price_spread_pct"] == "12.500000"
    assert sorted(contributed(reused)) == [("luna", 3), ("luna", 4), *terra]


def test_a_person_who_says_that_it_is_the_same_makes_it_so_for_all_time(reused: sa.Engine) -> None:
    assert set(decide(reused, ruled(SAME)).values()) == {"terra-luna"}
    assert contributed(reused) == [("terra-luna", n) for n in range(5)]
    with reused.connect() as connection:
        assert connection.execute(sa.select(reused_id)).all() == []


def test_a_person_who_says_that_it_is_another_confirms_it(reused: sa.Engine) -> None:
    before = contributed(reused)
    decide(reused, ruled(DIFFERENT))
    assert contributed(reused) == before


def test_the_past_goes_where_the_coin_goes_that_it_was(reused: sa.Engine) -> None:
    """CoinPaprika's coin is said to be CoinGecko's: the past of the desk's follows whatever id that coin gets."""
    with reused.begin() as connection:
        store_before = store.read_identities(connection)
        connection.execute(sa.insert(coin).values(coin_id="terra-classic"))
        moved = sa.update(coin_identity).where(coin_identity.c.source_coin_id == GECKO[1])
        connection.execute(moved.values(coin_id="terra-classic"))
        store.after_identity(connection, store_before, store.read_identities(connection).values())
        store.write_history(connection)
    for day in DAYS:
        unify_days(reused, day, day, only_touched=True)
    assert sorted(contributed(reused)) == [("luna", 3), ("luna", 4), *(("terra-classic", n) for n in range(4))]


def test_a_wrong_join_is_corrected_for_all_time(engine: sa.Engine) -> None:
    for day in DAYS[:3]:
        observe(engine, GECKO, "80", day, **TERRA)
        observe(engine, DESK, "81", day, **TERRA)
    decide(engine)
    decide(engine, ruled(DIFFERENT))
    assert contributed(engine) == [("luna", n) for n in range(3)]


def test_the_name_stays_with_the_coin_whoever_is_first(engine: sa.Engine) -> None:
    """A vendor that comes first and uses an id again does not take the coin_id along."""
    vendor, desk = ("coingecko", "luna"), ("csv_desk", "terra")
    observe(engine, vendor, "80", DAYS[0], **TERRA)
    observe(engine, desk, "81", DAYS[0], **TERRA)
    assert set(decide(engine).values()) == {"luna"}
    observe(engine, vendor, "7", DAYS[2], **MOON)
    found = decide(engine)
    assert found["csv_desk"] == "luna" != found["coingecko"]
    assert contributed(engine, "coingecko") == [("luna", 0), (found["coingecko"], 2)]

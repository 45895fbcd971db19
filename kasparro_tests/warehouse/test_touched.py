"""What was touched is made again and nothing else, and the rows are always those that all observations make."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa

from kasparro_pipeline.components.observations import COIN, WRITTEN_BY
from kasparro_pipeline.components.partitions import day_ranges
from kasparro_pipeline.defs.coins import store
from kasparro_pipeline.warehouse.merge import Merge, UtcDay
from kasparro_pipeline.warehouse.merge_sql import MAX_LISTED
from kasparro_pipeline.warehouse.tables import coin, coin_identity, observation, touched_day, unified_assets
from kasparro_pipeline.warehouse.touched import MAX_COINS, Part, Touched, due_days, parts
from kasparro_tests.warehouse.market import DAY, PRIORITIES, Said, observe, rows, said, unify_days

DAYS = [DAY - timedelta(days=age) for age in range(9)]
IDS = ("a", "b", "c", "d")


def load(engine: sa.Engine, *observations: Said) -> None:
    """Store them as a load does, with what it touches."""
    touched = Touched()
    with engine.begin() as connection:
        for source in {one["source"] for one in observations}:
            frame = pd.DataFrame([dict(one) for one in observations if one["source"] == source], dtype=object)
            merged = Merge(connection, observation, group_by=WRITTEN_BY, list_by=COIN).frame(frame)
            touched.add_written(merged.listed)
        touched.write(connection)


def withdraw(engine: sa.Engine, one: Said) -> None:
    """Mark what there is of this key as withdrawn."""
    key = ("source", "source_coin_id", "observed_at")
    touched = Touched()
    touched.add(one["source"], {one["observed_at"].date(): {one["source_coin_id"]}})
    with engine.begin() as connection:
        statement = sa.update(observation).where(*(observation.c[name] == one[name] for name in key))
        connection.execute(statement.values(withdrawn_at=sa.func.now()))
        touched.write(connection)


def become(engine: sa.Engine, source: str, source_coin_id: str, coin_id: str) -> None:
    """The source's coin is another one than was thought."""
    with engine.begin() as connection:
        before = store.read_identities(connection)
        if not connection.scalar(sa.select(coin.c.coin_id).where(coin.c.coin_id == coin_id)):
            connection.execute(sa.insert(coin).values(coin_id=coin_id))
        of_coin = (coin_identity.c.source == source) & (coin_identity.c.source_coin_id == source_coin_id)
        connection.execute(sa.update(coin_identity).where(of_coin).values(coin_id=coin_id))
        store.after_identity(connection, before, store.read_identities(connection).values())
        store.write_history(connection)


def unify_due(engine: sa.Engine, at_most: int = 100) -> None:
    """Make what is due, or only the first ranges of days of it."""
    with engine.connect() as connection:
        ranges = day_ranges(due_days(connection), apart=DAYS[3:4])
    for first, last in ranges[:at_most]:
        unify_days(engine, first, last, only_touched=True)


def unify_all_that_is_due(engine: sa.Engine) -> None:
    """Until nothing is due any more."""
    waiting = sa.select(sa.func.count()).select_from(touched_day)
    while True:
        unify_due(engine)
        with engine.connect() as connection:
            if not connection.scalar(waiting):
                return


def everything_anew(engine: sa.Engine) -> list[dict[str, Any]]:
    with engine.begin() as connection:
        connection.execute(sa.delete(unified_assets))
    unify_days(engine, DAYS[-1], DAYS[0])
    return rows(engine)


def known(engine: sa.Engine, ids: tuple[str, ...] = IDS) -> None:
    """Every source has these coins, each the coin of that name."""
    observe(engine, [said(source, "1", source_coin_id=name, day=DAYS[-1]) for source in PRIORITIES for name in ids])
    with engine.begin() as connection:
        connection.execute(sa.delete(observation))
        store.write_history(connection)


def some(dice: random.Random) -> Said:
    """Prices that jump now and then, on any day."""
    price = dice.choice(["1", "1.01", "50", "1000", "0", None])
    return said(
        dice.choice(["coingecko", "coinpaprika"]),
        price,
        dice.choice(["10:00", "23:50", "23:50"]),
        dice.choice(DAYS),
        source_coin_id=dice.choice(IDS),
        market_cap_usd=dice.choice(["5", "6", "900", None]),
    )


@pytest.mark.parametrize("seed", range(8))
def test_what_is_made_bit_by_bit_is_what_is_made_at_once(tables: sa.Engine, seed: int) -> None:
    dice = random.Random(seed)
    known(tables)
    market = [
        said(source, "1", day=day, source_coin_id=name)
        for source in ("coingecko", "coinpaprika")
        for day in DAYS[2:]
        for name in IDS
    ]
    load(tables, *market)
    for _ in range(40):
        match dice.choice([*["load"] * 5, "withdraw", "become", "unify", "one range"]):
            case "load":
                load(tables, some(dice))
            case "withdraw":
                withdraw(tables, dice.choice(market))
            case "become":
                become(tables, dice.choice(list(PRIORITIES)), dice.choice(IDS), dice.choice([*IDS, "e"]))
            case "unify":
                unify_all_that_is_due(tables)
                assert rows(tables) == everything_anew(tables)
            case "one range":
                unify_due(tables, 1)
    unify_all_that_is_due(tables)
    assert rows(tables) == everything_anew(tables)


def test_a_restated_coin_makes_its_own_rows_again_and_no_others(tables: sa.Engine) -> None:
    """The others are not even looked at: numbers that were put there by hand stay."""
    known(tables)
    load(tables, *(said("coingecko", "1", day=day, source_coin_id=name) for day in DAYS for name in IDS))
    unify_due(tables)
    with tables.begin() as connection:
        connection.execute(sa.update(unified_assets).values(rank=7))
    load(tables, said("coingecko", "2", day=DAYS[6], source_coin_id="b"))
    unify_due(tables)
    again = {(row["coin_id"], row["day"]) for row in rows(tables) if row["rank"] != 7}
    assert again == {("b", day) for day in DAYS[3:7]}


def test_days_that_rest_on_a_day_are_due_when_it_is_made_without_them(tables: sa.Engine) -> None:
    known(tables)
    market = [("coingecko", "1"), ("coinpaprika", "1.01")]
    load(tables, *(said(name, price, day=day, source_coin_id="a") for name, price in market for day in DAYS[1:]))
    load(tables, said("coingecko", "90", source_coin_id="a"), said("coinpaprika", "1", source_coin_id="a"))
    unify_due(tables)
    assert rows(tables)[-1]["price_source"] == "coinpaprika"
    load(tables, *(said("coingecko", "90", day=day, source_coin_id="a") for day in DAYS[2:4]))
    for day in DAYS[3:1:-1]:  # each in a run of its own
        unify_days(tables, day, day, only_touched=True)
    with tables.connect() as connection:
        assert due_days(connection) == [DAYS[1], DAYS[0]]
    unify_due(tables)
    assert rows(tables)[-1]["price_source"] == "coingecko"
    with tables.connect() as connection:
        assert due_days(connection) == []


def test_a_coin_that_became_another_leaves_no_row(tables: sa.Engine) -> None:
    known(tables)
    load(tables, *(said("csv_desk", "1", day=day, source_coin_id="a") for day in DAYS[:2]))
    unify_due(tables)
    become(tables, "csv_desk", "a", "b")
    unify_due(tables)
    assert [(row["coin_id"], row["day"]) for row in rows(tables)] == [("b", DAYS[1]), ("b", DAYS[0])]


def test_of_very_many_coins_all_of_the_day_are_made(tables: sa.Engine) -> None:
    touched = Touched()
    touched.add("coingecko", {DAYS[0]: {str(n) for n in range(MAX_COINS + 1)}, DAYS[1]: {"a"}, DAYS[2]: None})
    with tables.begin() as connection:
        touched.write(connection)
        told = dict(connection.execute(sa.select(touched_day.c.day, touched_day.c.source_coin_ids)).all())
    assert told == {DAYS[0]: None, DAYS[1]: ["a"], DAYS[2]: None}


def test_so_many_rows_of_a_day_are_not_told_one_by_one(tables: sa.Engine) -> None:
    frame = pd.DataFrame(
        [dict(said("csv_desk", "1", source_coin_id=f"{n}")) for n in range(MAX_LISTED + 1)]
        + [dict(said("csv_desk", "1", day=DAYS[1], source_coin_id="a"))],
        dtype=object,
    )
    with tables.begin() as connection:
        merged = Merge(connection, observation, group_by=[UtcDay("observed_at")], list_by=COIN).frame(frame)
    assert merged.listed == {(DAYS[0],): None, (DAYS[1],): {"a"}}


def test_a_day_of_another_rule_is_made_whole(tables: sa.Engine) -> None:
    known(tables)
    load(tables, *(said("coingecko", "1", day=DAY, source_coin_id=name) for name in IDS))
    unify_due(tables)
    with tables.begin() as connection:
        connection.exec_driver_sql("UPDATE kasparro.unified_day SET rule_version = 'other'")
        connection.execute(sa.update(unified_assets).values(rank=7))
    load(tables, said("coingecko", "2", source_coin_id="b"))
    unify_due(tables)
    assert {row["rank"] for row in rows(tables)} == {None}


def test_near_days_of_the_same_kind_are_one_part() -> None:
    few, many = frozenset("a"), frozenset(map(str, range(MAX_COINS)))
    first = DAYS[-1]

    def days(*coins: frozenset[str] | None) -> list[tuple[int, int, int | None]]:
        found = parts({first + timedelta(days=n): c for n, c in enumerate(coins) if c != frozenset()})
        spans = [((part.first - first).days, (part.end - first).days, part.coin_ids) for part in found]
        return [(start, end, None if coin_ids is None else len(coin_ids)) for start, end, coin_ids in spans]

    assert days(few, few, None, None, few) == [(0, 2, 1), (2, 4, None), (4, 5, 1)]
    assert days(few, frozenset("b"), many) == [(0, 2, 2), (2, 3, MAX_COINS)]
    assert days(few, frozenset(), few) == [(0, 1, 1), (2, 3, 1)]
    assert days(*[None] * 40) == [(0, 31, None), (31, 40, None)]
    assert list(parts({})) == []
    assert Part(first, first + timedelta(days=1)).coin_ids is None

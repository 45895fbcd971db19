import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise

import pytest

from kasparro_pipeline.simulator.coins import Coin, draw, listed, universe
from kasparro_pipeline.simulator.market import DAY, HOUR, first_minute, minute_of, price, quote, ranked, ticks

NOW = minute_of(datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC))
PRICED = [coin for coin in universe() if coin.price]


def coin(key: str) -> Coin:
    return next(coin for coin in universe() if coin.key == key)


def test_another_process_with_another_hash_seed_computes_the_same_market():
    program = (
        "from kasparro_pipeline.simulator.coins import universe, draw\n"
        "from kasparro_pipeline.simulator.market import quote\n"
        f"print(draw(universe(), [quote(c, 'coingecko', {NOW}) for c in universe()]))"
    )
    here = draw(universe(), [quote(coin, "coingecko", NOW) for coin in universe()])
    there = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(there.stdout) == here


def test_the_numbers_never_change_from_one_version_to_the_next():
    """Recorded once: committed drops and everything loaded from the simulator rest on it."""
    assert price(coin("bitcoin"), "coingecko", NOW) == Decimal("102793.59296243217")
    assert (
        draw(*(id for vendor in ("coingecko", "coinpaprika", "exchange") for id in listed(vendor)))
        == 8564400181240892037
    )


def test_prices_stay_within_their_swing_and_two_vendors_within_one_percent():
    for minute in range(NOW - 400 * DAY, NOW, 37 * DAY + 11):
        for one in PRICED:
            gecko, paprika = price(one, "coingecko", minute), price(one, "coinpaprika", minute)
            assert abs(gecko / one.price - 1) <= one.swing * Decimal("1.006")
            assert abs(gecko / paprika - 1) < Decimal("0.01"), one.key


def test_prices_move_smoothly_and_do_move():
    path = [price(coin("solana"), "coingecko", minute) for minute in range(NOW - DAY, NOW)]
    steps = [abs(after / before - 1) for before, after in pairwise(path)]
    assert max(steps) < Decimal("0.01")
    assert len(set(path)) > DAY * 0.99
    assert max(path) / min(path) > Decimal("1.01")


def test_a_coin_that_is_rarely_updated_says_the_same_until_then():
    sleeping = coin("sleeping-coin")
    month = sleeping.updated_every
    start = NOW - NOW % month
    assert quote(sleeping, "coingecko", start + month - 1) == quote(sleeping, "coingecko", start)
    assert quote(sleeping, "coingecko", start).minute == start
    assert quote(sleeping, "coingecko", start + month) != quote(sleeping, "coingecko", start)


def test_the_two_vendors_share_only_part_of_their_coins():
    gecko = {coin.key for coin in listed("coingecko").values()}
    paprika = {coin.key for coin in listed("coinpaprika").values()}
    assert (len(gecko), len(paprika), len(gecko & paprika)) == (432, 387, 304)
    assert len({coin.key for coin in universe()}) == len(universe())


@pytest.mark.parametrize(("vendor", "at_least"), [("coingecko", 25), ("coinpaprika", 20)])
def test_symbols_are_shared_by_coins_of_other_names(vendor, at_least):
    names = {}
    for one in listed(vendor).values():
        names.setdefault(one.listings[vendor].symbol, set()).add(one.listings[vendor].name)
    assert sum(len(shared) > 1 for shared in names.values()) >= at_least


def test_some_coins_have_symbol_and_name_twice_in_one_vendor():
    def twins(vendor):
        listings = (one.listings[vendor] for one in listed(vendor).values())
        return {name for name, count in Counter((said.symbol, said.name) for said in listings).items() if count > 1}

    assert twins("coingecko") == {("PEPEAI", "Pepe AI")}
    assert twins("coinpaprika") == {("GOLD", "GOLD"), ("OGLD", "Orbit Gold")}


def test_some_coins_are_named_differently_by_the_two_vendors():
    polygon = coin("matic-network").listings
    assert (polygon["coingecko"].name, polygon["coinpaprika"].name) == ("Polygon", "Polygon (MATIC)")
    both = [one.listings for one in universe() if {"coingecko", "coinpaprika"} <= one.listings.keys()]
    assert sum(said["coingecko"].name != said["coinpaprika"].name for said in both) >= 30
    assert sum(said["coingecko"].symbol != said["coinpaprika"].symbol for said in both) >= 5


def test_ranks_follow_market_cap_and_hold_for_an_hour():
    order = ranked("coingecko", NOW // HOUR)
    assert [rank for rank, _ in order] == list(range(1, 433))
    start_of_hour = NOW // HOUR * HOUR
    caps = [quote(one, "coingecko", start_of_hour).market_cap for _, one in order if one.circulating_supply]
    assert caps == sorted(caps, reverse=True)
    assert all(one.circulating_supply is None for _, one in order[len(caps) :])


def test_ticks_divide_by_the_step_and_start_with_the_coin():
    one = coin("bitcoin")
    assert list(ticks(one, NOW - 100, NOW, HOUR)) == [NOW // HOUR * HOUR - HOUR, NOW // HOUR * HOUR]
    assert list(ticks(one, 60, 120, HOUR)) == []
    assert next(ticks(one, 0, NOW, DAY)) == first_minute(one)
    assert one.since > date(2013, 1, 1)

"""Every rule finds what breaks it, on the days that are asked for, and nothing in tables that are as they must be."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa

from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.rules import RULES, ChecksFailedError, Rule, Violation, days_that_fail, look, remember
from kasparro_pipeline.warehouse.tables import failed_check, observation
from kasparro_tests.warehouse.market import DAY, at, observe, rows, said, unify_days

COINS = [f"coin-{n}" for n in range(12)]
OF_DAY = observation.c.observed_at >= at("00:00")
TOMORROW = datetime.now(UTC).date() + timedelta(days=1)


@pytest.fixture
def market(tables: sa.Engine) -> sa.Engine:
    """Two sources that agree on twelve coins, on three days."""
    days = [DAY - timedelta(days=age) for age in range(3)]
    for source, price in (("coingecko", "100"), ("coinpaprika", "101")):
        observe(tables, [said(source, price, day=day, source_coin_id=coin) for coin in COINS for day in days])
    unify_days(tables, days[-1], DAY)
    return tables


def found(engine: sa.Engine, days: tuple[date, date] | None = None) -> dict[tuple[str, str], list[Violation]]:
    """What breaks any rule."""
    with engine.connect() as connection:
        violations = {(rule.table.name, rule.name): look(connection, rule, days) for rule in RULES}
    return {rule: broken for rule, broken in violations.items() if broken}


def test_tables_as_they_must_be_break_no_rule(market: sa.Engine) -> None:
    assert found(market) == {}


PAYLOAD = (
    "INSERT INTO kasparro.payload VALUES ('coingecko', 'a', '2026-11-10');"
    "INSERT INTO kasparro.raw_payload VALUES ('coingecko', 'a', '', 0, '2026-11-10');"
)
DELIVERY = PAYLOAD + (
    "INSERT INTO kasparro.delivery VALUES ('coingecko', '2026-11-10', 0, '2026-11-10T12:00:00Z', 'a', 'http://x', 1, "
    "true, 'run', '1', now(), 'run', 5, 1, 1, 1, 1)"
)


def whole_lists(*days: date) -> str:
    """The vendor's whole list was fetched at noon of each day."""
    return PAYLOAD + "".join(
        "INSERT INTO kasparro.delivery (source, partition, position, fetched_at, sha256, request, first_record, "
        "is_last, parser_version, records, inserted, updated, unchanged, quarantined) VALUES "
        f"('coingecko', '{day}', 0, '{day}T12:00:00Z', 'a', 'http://x', 1, true, '1', 1, 1, 0, 0, 0);"
        for day in days
    )


LISTS = whole_lists(DAY, DAY - timedelta(days=1))
MANY = f"""
INSERT INTO kasparro.unified_assets (coin_id, day, source_count, sources, flags, observed_at, price_spread_pct)
SELECT 'many-' || n, '{DAY}', 2, '{{coingecko,coinpaprika}}', '{{}}', now(), 1 FROM generate_series(9, 99) n;
"""
BREACHES = {
    ("observation", "no_future_day"): (
        f"UPDATE kasparro.observation SET observed_at = '{TOMORROW}' WHERE source_coin_id = 'coin-3' "
        "AND source = 'coinpaprika' AND observed_at >= '2026-11-10'",
        TOMORROW,
        "1 observations, such as coinpaprika coin-3",
    ),
    ("observation", "accounted_for"): (DELIVERY, DAY, "1 deliveries, such as http://x"),
    ("coin_identity", "no_orphan"): (
        "DELETE FROM kasparro.source_coin WHERE source = 'coingecko' AND source_coin_id = 'coin-3'",
        None,
        "1 identities, such as coingecko coin-3",
    ),
    ("unified_assets", "no_future_day"): (
        f"UPDATE kasparro.unified_assets SET day = '{TOMORROW}' WHERE coin_id = 'coin-3' AND day = '{DAY}'",
        TOMORROW,
        "1 rows, such as coin-3",
    ),
    ("unified_assets", "price_positive_or_flagged"): (
        f"UPDATE kasparro.unified_assets SET price_usd = 0 WHERE coin_id = 'coin-3' AND day = '{DAY}'",
        DAY,
        "1 rows, such as coin-3",
    ),
    ("unified_assets", "no_orphan"): (
        "DELETE FROM kasparro.coin_identity WHERE coin_id = 'coin-3';"
        "DELETE FROM kasparro.coin WHERE coin_id = 'coin-3'",
        DAY,
        "1 rows, such as coin-3",
    ),
    ("unified_assets", "coin_count"): (
        f"{LISTS}DELETE FROM kasparro.unified_assets WHERE day = '{DAY}' AND coin_id > 'coin-2'",
        DAY,
        "5 coins of coingecko after 12 the day before",
    ),
    ("unified_assets", "sources_agree"): (
        f"{MANY}UPDATE kasparro.unified_assets SET price_spread_pct = 20.1 WHERE day = '{DAY}' AND coin_id < 'many-6'",
        DAY,
        "62 of 103 coins have prices more than 20 % apart",
    ),
    **{
        (name, "keys_unique"): (
            f"ALTER TABLE kasparro.{name} DROP CONSTRAINT {name}_pkey CASCADE",
            None,
            f"the primary key ({keys}) is missing or not valid",
        )
        for name, keys in {
            "observation": "source, observed_at, source_coin_id",
            "coin": "coin_id",
            "coin_identity": "source, source_coin_id",
            "unified_assets": "coin_id, day",
        }.items()
    },
}


def test_every_rule_has_a_breach_here() -> None:
    assert set(BREACHES) == {(rule.table.name, rule.name) for rule in RULES}


@pytest.mark.parametrize("broken", BREACHES, ids=":".join)
def test_a_breach_is_found(market: sa.Engine, broken: tuple[str, str]) -> None:
    breach, day, detail = BREACHES[broken]
    with market.connect() as connection, connection.begin() as transaction:  # taken back, for the tables are shared
        connection.exec_driver_sql(breach)
        rules = {(rule.table.name, rule.name): rule for rule in RULES}
        assert look(connection, rules[broken])[0] == Violation(day, detail)
        if rules[broken].by_days:
            assert look(connection, rules[broken], (DAY, DAY + timedelta(days=1))) == [Violation(DAY, detail)]
            assert look(connection, rules[broken], (DAY + timedelta(days=1), DAY + timedelta(days=9))) == []
        transaction.rollback()
    assert found(market) == {}


def test_days_that_break_a_rule_are_not_made(market: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(market)
    with market.begin() as connection:
        connection.exec_driver_sql(LISTS)
        connection.execute(sa.delete(observation).where(observation.c.source_coin_id > "coin-2", OF_DAY))
    with pytest.raises(
        ChecksFailedError, match=f"not unified, checks failed: coin_count on {DAY}: 5 coins of coingecko"
    ):
        unify_days(market, DAY - timedelta(days=2), DAY)
    assert rows(market) == before
    unify_days(market, DAY - timedelta(days=2), DAY - timedelta(days=1))
    monkeypatch.setenv("KASPARRO_CHECK_COIN_COUNT", "0.4")
    settings.cache_clear()
    unify_days(market)
    settings.cache_clear()
    assert len(rows(market)) == len(before) - 7


@pytest.mark.parametrize("lists", [(), (DAY,), (DAY - timedelta(days=1),)], ids=["none", "today", "yesterday"])
def test_fewer_coins_are_no_breach_unless_whole_lists_say_so(market: sa.Engine, lists: tuple[date, ...]) -> None:
    """A file of a few coins, or a history of some, after a day with a vendor's whole list."""
    with market.begin() as connection:
        connection.exec_driver_sql(whole_lists(*lists))
        connection.execute(sa.delete(observation).where(observation.c.source_coin_id > "coin-2", OF_DAY))
    unify_days(market, DAY - timedelta(days=2), DAY)


def test_more_coins_and_a_few_that_disagree_are_no_breach(market: sa.Engine) -> None:
    with market.begin() as connection:
        connection.exec_driver_sql(LISTS)
    observe(market, [said("csv_desk", "900", source_coin_id=f"new-{n}") for n in range(50)])
    observe(market, [said("coinpaprika", "900", source_coin_id=coin) for coin in COINS])
    unify_days(market, DAY - timedelta(days=2), DAY)


def test_what_was_found_is_remembered_until_it_is_gone(tables: sa.Engine) -> None:
    by_days, table = (next(r for r in RULES if r.by_days), next(r for r in RULES if not r.by_days))
    days = [DAY - timedelta(days=age) for age in range(3)]

    def check(rule: Rule, first: date, last: date, *violations: Violation) -> set[date]:
        with tables.begin() as connection:
            span = (first, last + timedelta(days=1))
            remember(connection, rule, violations, asset_key="a", days=span, run_id="r")
            return days_that_fail(connection)

    assert check(by_days, days[2], DAY, *(Violation(day, "x") for day in days)) == set(days)
    assert check(by_days, DAY, DAY) == set(days[1:])
    assert check(by_days, days[1], days[1], Violation(days[1], "y")) == set(days[1:])
    assert check(table, DAY, DAY, Violation(TOMORROW, "x")) == {*days[1:], TOMORROW}
    assert check(table, days[2], days[2]) == set(days[1:])
    assert check(by_days, days[2], DAY, Violation(None, "x")) == set()
    with tables.connect() as connection:
        (left,) = connection.execute(sa.select(failed_check.c.day, failed_check.c.detail)).all()
    assert tuple(left) == (None, "x")


def test_a_day_that_goes_on_has_as_many_coins_as_it_has(tables: sa.Engine) -> None:
    today = TOMORROW - timedelta(days=1)
    for day, coins in ((today - timedelta(days=1), COINS), (today, COINS[:5])):
        observe(tables, [said("coingecko", "100", day=day, source_coin_id=coin) for coin in coins])
    with tables.begin() as connection:
        connection.exec_driver_sql(whole_lists(today, today - timedelta(days=1)))
    unify_days(tables, today - timedelta(days=1), today)
    assert len(rows(tables)) == len(COINS) + 5

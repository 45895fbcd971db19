"""The rule: which of the sources' numbers becomes a row's, and what is said about it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from kasparro_pipeline.warehouse.tables import GUARDED, observation, unified_assets
from kasparro_pipeline.warehouse.touched import Part
from kasparro_pipeline.warehouse.unify import rule_version, unify
from kasparro_tests.warehouse.market import (
    DAY,
    PRIORITIES,
    observe,
    on_the_days_before,
    row,
    rows,
    said,
    unify_days,
    why,
)

TICOEX = {"source_coin_id": "ticoex-token", "symbol": "TICO", "name": "Ticoex"}


def price_of(found: dict[str, Any]) -> tuple[Any, ...]:
    return found["price_usd"], found["price_source"], found["flags"]


def test_each_column_is_the_first_sources_that_has_it(tables: sa.Engine) -> None:
    found = row(
        tables,
        said("coingecko", "99", "21:00", market_cap_usd="1980"),
        said("coingecko", "100.00", "23:50"),
        said("coinpaprika", "102", "23:40", market_cap_usd="2040", max_supply="21000000.0", symbol="BTCP"),
        said("csv_desk", "101", "22:00", market_cap_usd="2050", rank=7),
    )
    assert price_of(found) == ("100.00", "coingecko", [])
    assert (found["market_cap_usd"], found["max_supply"], found["rank"]) == ("2040", "21000000.0", 7)
    assert (found["symbol"], found["source_count"], found["sources"]) == ("BTC", 3, sorted(PRIORITIES))
    assert found["price_spread_pct"] == "1.980198"
    assert f"{found['observed_at']:%H:%M}" == "23:50"


def test_of_a_source_counts_its_last_word_with_a_price(tables: sa.Engine) -> None:
    found = row(tables, said("coingecko", "1", "20:00"), said("coingecko", "2", "22:00"), said("coingecko", None))
    assert (found["price_usd"], found["source_count"]) == ("2", 1)
    assert found["price_spread_pct"] is None


def test_a_day_without_a_price_is_a_row_that_says_so(tables: sa.Engine) -> None:
    found = row(tables, said("coingecko", None, rank=4), said("coinpaprika", None, "23:55"))
    assert price_of(found) == (None, None, ["no_price"])
    assert (found["rank"], found["source_count"], found["sources"]) == (4, 0, ["coingecko", "coinpaprika"])


def test_a_stale_word_gives_way_to_fresh_ones(tables: sa.Engine) -> None:
    found = row(
        tables,
        said("coingecko", "90", "09:00", market_cap_usd="1"),
        said("coinpaprika", "100", "23:30"),
        said("csv_desk", "101", "18:00"),
    )
    assert price_of(found) == ("100", "coinpaprika", [])
    assert found["market_cap_usd"] == "1"  # nobody fresh has one
    assert found["source_count"] == 3
    assert found["price_spread_pct"] == "1.000000"  # of the fresh ones: apart in time is not apart in price
    assert why(tables)["bitcoin", "price_usd", "coingecko"]["verdict"] == "stale"


def test_a_stale_price_that_is_the_only_one_is_flagged(tables: sa.Engine) -> None:
    found = row(tables, said("coingecko", "90", "09:00"), said("coinpaprika", None, "23:30"))
    assert price_of(found) == ("90", "coingecko", ["stale"])


def test_the_word_of_the_majority_counts(tables: sa.Engine) -> None:
    found = row(tables, said("coingecko", "150"), said("coinpaprika", "100"), said("csv_desk", "101"))
    assert price_of(found) == ("100", "coinpaprika", ["wide_spread", "outlier"])
    entry = why(tables)["bitcoin", "price_usd", "coingecko"]
    assert (entry["verdict"], entry["median"]) == ("outlier", "101")


def test_no_majority_is_none(tables: sa.Engine) -> None:
    found = row(tables, said("coingecko", "150"), said("coinpaprika", "100"), said("csv_desk", "50"))
    assert price_of(found) == ("150", "coingecko", ["wide_spread"])


def test_of_two_the_one_that_jumps_loses(tables: sa.Engine) -> None:
    found = row(
        tables,
        *on_the_days_before("coingecko", "100", "101", "99"),
        *on_the_days_before("coinpaprika", "100", "101", "99"),
        said("coingecko", "40000"),
        said("coinpaprika", "98"),
    )
    assert price_of(found) == ("98", "coinpaprika", ["wide_spread", "outlier"])
    assert why(tables)["bitcoin", "price_usd", "coingecko"]["usual"] == "100"


def test_of_two_that_jump_together_the_first_counts(tables: sa.Engine) -> None:
    found = row(
        tables,
        *on_the_days_before("coingecko", "100", "101", "99"),
        *on_the_days_before("coinpaprika", "100", "101", "99"),
        said("coingecko", "1000"),
        said("coinpaprika", "998"),
    )
    assert price_of(found) == ("1000", "coingecko", [])


@pytest.mark.parametrize("before", [(), ("400",), ("9",)], ids=["no history", "both as ever", "both jump"])
def test_of_two_that_nothing_tells_apart_the_first_counts_and_is_flagged(tables: sa.Engine, before: Any) -> None:
    history = [*on_the_days_before("coingecko", *before)]
    history += on_the_days_before("coinpaprika", *("100" if price == "400" else price for price in before))
    found = row(tables, *history, said("coingecko", "400"), said("coinpaprika", "100"))
    flags = ["wide_spread", "jump"] if before == ("9",) else ["wide_spread"]
    assert price_of(found) == ("400", "coingecko", flags)


def test_a_source_without_a_past_is_held_against_what_the_others_said(tables: sa.Engine) -> None:
    found = row(
        tables,
        *on_the_days_before("coinpaprika", "100", "101", "99"),
        said("coingecko", "9000"),
        said("coinpaprika", "98"),
    )
    assert price_of(found) == ("98", "coinpaprika", ["wide_spread", "outlier"])


def test_an_error_of_two_days_does_not_become_the_usual(tables: sa.Engine) -> None:
    found = row(
        tables,
        *on_the_days_before("coingecko", "100", "101", "40000"),
        *on_the_days_before("coinpaprika", "100", "101", "99"),
        said("coingecko", "40000"),
        said("coinpaprika", "98"),
    )
    assert price_of(found) == ("98", "coinpaprika", ["wide_spread", "outlier"])


def test_a_stale_word_is_no_witness_against_a_jump(tables: sa.Engine) -> None:
    history = [*on_the_days_before("coingecko", "1", "1"), *on_the_days_before("coinpaprika", "1", "1")]
    found = row(tables, *history, said("coingecko", "50"), said("coinpaprika", "1", "10:00"))
    assert price_of(found) == ("50", "coingecko", ["jump"])


def test_a_price_of_nothing_loses_to_any(tables: sa.Engine) -> None:
    found = row(tables, said("coingecko", "0"), said("coinpaprika", "0.0000000000384"))
    assert price_of(found) == ("0.0000000000384", "coinpaprika", ["outlier"])


def test_a_price_of_nothing_that_is_the_only_one_is_flagged(tables: sa.Engine) -> None:
    assert price_of(row(tables, said("coingecko", "0.0"))) == ("0.0", "coingecko", ["price_not_positive"])


def test_a_cap_of_trillions_overnight_loses_to_the_other_source(tables: sa.Engine) -> None:
    """CoinGecko listed ticoex-token as rank 1 with a cap of 3.33 trillion dollars, up 223,976,811 percent in a day."""
    sane = {"market_cap_usd": "1488000", "rank": 2210, **TICOEX}
    found = row(
        tables,
        *on_the_days_before("coingecko", "0.0012", "0.0012", "0.0012", **sane),
        *on_the_days_before("coinpaprika", "0.0012", "0.0012", "0.0012", **sane),
        said("coingecko", "2687.7", **{**sane, "market_cap_usd": "3330000000000", "rank": 1}),
        said("coinpaprika", "0.0012", **sane),
    )
    assert price_of(found)[:2] == ("0.0012", "coinpaprika")
    assert (found["market_cap_usd"], found["rank"]) == ("1488000", 2210)
    assert found["flags"] == ["wide_spread", "market_cap_usd.outlier", "outlier", "rank.outlier"]


def test_a_jump_of_the_only_source_is_kept_and_flagged(tables: sa.Engine) -> None:
    sane = {"market_cap_usd": "1488000", "rank": 2210, **TICOEX}
    found = row(
        tables,
        *on_the_days_before("coingecko", "0.0012", "0.0012", "0.0012", **sane),
        said("coingecko", "2687.7", **{**sane, "market_cap_usd": "3330000000000", "rank": 1}),
    )
    assert (found["market_cap_usd"], found["rank"]) == ("3330000000000", 1)
    assert price_of(found) == ("2687.7", "coingecko", ["jump", "market_cap_usd.jump", "rank.jump"])


def random_market(seed: int, days: int = 12, coins: int = 12) -> list[dict[str, Any]]:
    """Sources that mostly agree, are silent or late now and then, and sometimes say absurd things."""
    dice = random.Random(seed)
    observations = []
    for n in range(coins):
        level = 10 ** dice.uniform(-9, 4)
        for age in range(days):
            level *= dice.uniform(0.8, 1.25)
            for source in PRIORITIES:
                if dice.random() < 0.2:
                    continue
                error = dice.choice([1, 1, 1, 1, 1, 1.3, 5, 100_000, 0])
                numbers: dict[str, Any] = {
                    name: f"{level * 1000 * dice.uniform(0.9, 1.1) * dice.choice([1, 1, 1, 1000]):.6f}"
                    for name in GUARDED[1:6]
                    if dice.random() < 0.7
                }
                clock = dice.choice(["23:50", "23:10", "22:00", "08:00", "00:00"])
                price = None if dice.random() < 0.1 else f"{level * error * dice.uniform(0.99, 1.01):.12f}"
                names = {"source_coin_id": f"coin-{n}", "rank": dice.choice([None, n + 1, 999])}
                observations.append(dict(said(source, price, clock, DAY - timedelta(days=age), **numbers, **names)))
    return observations


def test_every_number_is_one_of_the_sources_own_and_the_reasons_agree(tables: sa.Engine) -> None:
    observe(tables, random_market(1))
    first = DAY - timedelta(days=11)
    unify_days(tables, first, DAY)
    seen_verdicts = set()
    for age in range(12):
        day = DAY - timedelta(days=age)
        told = why(tables, day)
        for found in (found for found in rows(tables) if found["day"] == day):
            for field in (*GUARDED, "symbol", "name"):
                entries = [e for (coin_id, name, _), e in told.items() if (coin_id, name) == (found["coin_id"], field)]
                chosen = [entry for entry in entries if entry["verdict"] == "chosen"]
                seen_verdicts |= {entry["verdict"] for entry in entries}
                value = found[field]
                assert [entry["value"] for entry in chosen] == ([] if value is None else [str(value)])
                if field == "price_usd":
                    assert [entry["source"] for entry in chosen] == ([found["price_source"]] if chosen else [])
                    assert found["source_count"] == sum(entry["value"] is not None for entry in entries)
    assert seen_verdicts == {"chosen", "later_priority", "stale", "outlier", "no_value"}


def test_days_made_one_by_one_in_any_order_are_those_made_at_once(tables: sa.Engine) -> None:
    observe(tables, random_market(2))
    days = [DAY - timedelta(days=age) for age in range(12)]
    unify_days(tables, days[-1], DAY)
    at_once = rows(tables)
    with tables.begin() as connection:
        connection.execute(sa.delete(unified_assets))
    random.Random(3).shuffle(days)
    for day in days:
        unify_days(tables, day, day)
    assert rows(tables) == at_once
    assert any("outlier" in found["flags"] for found in at_once)
    merged = unify_days(tables, min(days), DAY)
    assert (merged.inserted, merged.updated, merged.deleted) == (0, 0, 0)


def test_the_columns_that_a_row_is_made_of_are_those_declared(tables: sa.Engine) -> None:
    """Change one column of all observations after the other, and see which columns of the rows change with it."""
    changes = {
        "source": "'z' || source",
        "observed_at": "observed_at - interval '8 days'",
        "symbol": "'z' || symbol",
        "name": "'z' || name",
        **{name: f"{name} * (1 + position) * 40" for name in GUARDED},
    }
    market = [dict(one, position=n % 7, observed_at=one["observed_at"]) for n, one in enumerate(random_market(4, 5, 6))]
    observe(tables, market)
    unify_days(tables, DAY - timedelta(days=12), DAY)
    before = rows(tables)
    for changed, expression in changes.items():
        statement = sa.update(observation).values({changed: sa.literal_column(expression)})
        with tables.begin() as connection:
            connection.execute(statement)
            if changed == "source":
                for table in ("source_coin", "coin_identity"):
                    connection.exec_driver_sql(f"UPDATE kasparro.{table} SET source = 'z' || source")
            connection.execute(sa.delete(unified_assets))
        unify_days(tables, DAY - timedelta(days=12), DAY)
        after = rows(tables)
        touched = {name for name in before[0] if [r[name] for r in before] != [r[name] for r in after]}
        declared = {c.name for c in unified_assets.columns if changed in c.info.get("from", (c.name,))}
        may_follow = {"price_source", "observed_at", "symbol", "name", *GUARDED, "flags", "price_spread_pct"}
        assert touched - declared <= may_follow - {changed}, changed
        assert touched & declared, changed
        before = after


def test_the_version_changes_with_rule_and_priorities(monkeypatch: pytest.MonkeyPatch) -> None:
    version = rule_version({"a": 1, "b": 2})
    assert version == rule_version({"b": 2, "a": 1})
    assert version != rule_version({"a": 2, "b": 2})
    monkeypatch.setattr("kasparro_pipeline.warehouse.unify.RULE", "SELECT 1")
    assert version != rule_version({"a": 1, "b": 2})


def test_it_is_not_slower_by_the_square_of_the_rows_where_the_planner_knows_nothing(tables: sa.Engine) -> None:
    jumping = [
        said("csv_desk", price, day=DAY - timedelta(days=before), source_coin_id=f"coin-{n}")
        for n in range(100)
        for before, price in enumerate(("100", "1"))
    ]
    observe(tables, jumping[:1])
    with tables.begin() as connection:  # as after a first small file
        connection.exec_driver_sql("ANALYZE kasparro.coin_identity, kasparro.source_coin, kasparro.observation_2026_11")
    observe(tables, jumping)
    query = unify(Part(DAY, DAY + timedelta(days=1)), PRIORITIES).compile(tables)
    with tables.begin() as connection:
        explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", query.params).scalar_one()
    scans = [node for node in _nodes(explained[0]["Plan"]) if node.get("CTE Name") in {"seen", "value", "ruled"}]
    assert {scan["CTE Name"] for scan in scans} == {"seen", "value", "ruled"}
    assert max(scan["Actual Rows"] for scan in scans) >= len(jumping)
    assert {scan["Actual Loops"] for scan in scans} == {1}


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)

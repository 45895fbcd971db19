"""What unified_assets said at a moment: exact, for restatements, deletions and whatever else happens to a row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from kasparro_pipeline.warehouse.merge import Merge, Window
from kasparro_pipeline.warehouse.retention import prune_unified_history
from kasparro_pipeline.warehouse.tables import unified_assets, unified_assets_history, unified_change
from kasparro_pipeline.warehouse.unification import Unification

DAY = date(2026, 11, 1)
COLUMNS = ["coin_id", "day", "price_usd", "source_count", "sources", "flags", "observed_at"]
Row = tuple[Any, ...]


def select_of(prices: dict[str, str]) -> sa.Select[Any]:
    """The rows of one day as the rule would select them."""
    noon = datetime.combine(DAY, time(12), UTC)
    rows = [(coin, DAY, Decimal(price), 1, ["coingecko"], [], noon) for coin, price in prices.items()]
    values = sa.values(*(sa.column(name, unified_assets.c[name].type) for name in COLUMNS), name="v").data(rows)
    return sa.select(values)


def write(connection: sa.Connection, prices: dict[str, str]) -> None:
    """Make these the rows of the day, as the IO manager does it."""
    window = Window("day", DAY, DAY + timedelta(days=1))
    merge = Merge(connection, unified_assets, window=window, replace=True)
    if prices:
        merge.frame(select_of(prices))
    Unification(DAY, DAY + timedelta(days=1), "1", {}, "r").commit(connection, merge.finish())


def moment(engine: sa.Engine) -> datetime:
    with engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.clock_timestamp()))


def said(engine: sa.Engine) -> set[Row]:
    with engine.connect() as connection:
        return {tuple(row) for row in connection.execute(sa.text("SELECT t::text FROM kasparro.unified_assets t"))}


def said_at(engine: sa.Engine, at: datetime) -> list[Row]:
    query = sa.text("SELECT t::text FROM kasparro.unified_assets_as_of(:at) t")
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(query, {"at": at})]


def assert_past(engine: sa.Engine, past: list[tuple[datetime, set[Row]]]) -> None:
    for at, rows in past:
        found = said_at(engine, at)
        assert set(found) == rows
        assert len(found) == len(rows)


def test_every_moment_is_told_as_it_was(tables: sa.Engine) -> None:
    past = [(moment(tables), said(tables))]
    for prices in (
        {"bitcoin": "1", "ether": "2", "doge": "3"},
        {"bitcoin": "1", "ether": "2.0", "doge": "3"},  # a restatement of nothing but digits is none
        {"bitcoin": "10", "ether": "2", "doge": "3"},
        {"bitcoin": "11", "doge": "3"},
        {"bitcoin": "11", "ether": "2", "doge": "3"},  # deleted, and there again
        {"bitcoin": "1", "ether": "2", "doge": "4"},
        {},
        {"bitcoin": "1"},
    ):
        with tables.begin() as connection:
            write(connection, prices)
        past.append((moment(tables), said(tables)))
    assert len({frozenset(rows) for _, rows in past}) == 7
    assert_past(tables, past)


def test_two_changes_in_one_transaction_are_one(tables: sa.Engine) -> None:
    past = [(moment(tables), said(tables))]
    for steps in (
        [{"bitcoin": "1"}, {"bitcoin": "2", "ether": "1"}],
        [{"bitcoin": "3"}, {"bitcoin": "2", "ether": "1"}],
        [{}, {"bitcoin": "2"}, {"bitcoin": "4", "doge": "1"}, {"bitcoin": "5"}],
    ):
        with tables.begin() as connection:
            for prices in steps:
                write(connection, prices)
        past.append((moment(tables), said(tables)))
    assert_past(tables, past)


def test_a_change_counts_from_its_commit(tables: sa.Engine) -> None:
    with tables.begin() as connection:
        write(connection, {"bitcoin": "1", "ether": "1"})
    with tables.begin() as connection:
        write(connection, {"bitcoin": "2", "doge": "1"})
        during = moment(tables), said(tables)
    after = moment(tables), said(tables)
    assert during[1] != after[1]
    assert_past(tables, [during, after])


def test_a_transaction_that_waited_for_another_comes_after_it(tables: sa.Engine) -> None:
    """Its now() is earlier than that of the one it supersedes."""
    with tables.begin() as late:
        late.execute(sa.text("SELECT 1"))
        with tables.begin() as early:
            write(early, {"bitcoin": "1"})
        between = moment(tables), said(tables)
        write(late, {"bitcoin": "2"})
    assert_past(tables, [between, (moment(tables), said(tables))])


def test_hand_made_changes_are_told_too(tables: sa.Engine) -> None:
    with tables.begin() as connection:
        write(connection, {"bitcoin": "1", "ether": "1"})
    past = [(moment(tables), said(tables))]
    for statement in (
        "UPDATE kasparro.unified_assets SET price_usd = 7 WHERE coin_id = 'bitcoin'",
        "DELETE FROM kasparro.unified_assets WHERE coin_id = 'ether'",
    ):
        with tables.begin() as connection:
            connection.exec_driver_sql(statement)
        past.append((moment(tables), said(tables)))
    assert_past(tables, past)


def test_only_what_changed_is_kept(tables: sa.Engine) -> None:
    for price in ("1", "1", "2", "2"):
        with tables.begin() as connection:
            write(connection, {"bitcoin": price, **{f"coin-{n}": "1" for n in range(50)}})
    with tables.connect() as connection:
        kept = connection.execute(sa.select(unified_assets_history.c.coin_id, unified_assets_history.c.price_usd)).all()
        changes = connection.scalar(sa.select(sa.func.count()).select_from(unified_change))
    assert kept == [("bitcoin", 1)]
    assert changes == 2


def test_pruning_forgets_the_old_and_says_so(tables: sa.Engine) -> None:
    past = []
    for price in ("1", "2", "3", "4"):
        with tables.begin() as connection:
            write(connection, {"bitcoin": price})
        past.append((moment(tables), said(tables)))
    horizon = past[1][0]
    assert prune_unified_history(tables, horizon) == 1
    assert prune_unified_history(tables, horizon - timedelta(days=1)) == 0
    assert_past(tables, past[1:])
    with pytest.raises(sa.exc.DataError) as refused:
        said_at(tables, past[0][0])
    assert isinstance(refused.value.orig, psycopg.errors.InvalidParameterValue)
    assert f"begins at {horizon:%Y-%m-%dT%H:%M:%S}" in str(refused.value.orig)


def test_the_command_prunes_what_is_older_than_the_setting(tables: sa.Engine, tmp_path: Path) -> None:
    for price in ("1", "2"):
        with tables.begin() as connection:
            write(connection, {"bitcoin": price})
    with tables.begin() as connection:
        connection.execute(sa.update(unified_assets_history).values(superseded_at=sa.text("now() - interval '3 days'")))
    command = [sys.executable, "-c", "from kasparro_pipeline.cli import main; main()", "prune", "--json"]
    url = tables.url.render_as_string(hide_password=False)
    environment = {"DATABASE_URL": url, "KASPARRO_HOME": str(tmp_path), "KASPARRO_HISTORY_DAYS": "2"}
    told = subprocess.check_output(command, env={**os.environ, **environment})
    assert json.loads(told)["removed"]["unified_assets_history"] == 1


def test_the_history_has_every_column_of_the_table(tables: sa.Engine) -> None:
    columns = [column.name for column in unified_assets.columns]
    assert [column.name for column in unified_assets_history.columns] == [*columns, "superseded_at"]
    inspected = sa.inspect(tables)
    for table in (unified_assets, unified_assets_history):
        stored = [column["name"] for column in inspected.get_columns(table.name, schema=table.schema)]
        assert stored == [column.name for column in table.columns]


def test_a_page_of_the_past_is_read_by_index(tables: sa.Engine) -> None:
    with tables.begin() as connection:
        write(connection, {f"coin-{n}": "1" for n in range(2000)})
    with tables.begin() as connection:
        write(connection, {f"coin-{n}": "2" for n in range(2000)})
    query = "SELECT * FROM kasparro.unified_assets_as_of(now()) u ORDER BY day DESC, coin_id LIMIT 100"
    with tables.begin() as connection:
        connection.exec_driver_sql("ANALYZE kasparro.unified_assets, kasparro.unified_assets_history")
        plan = "\n".join(connection.scalars(sa.text(f"EXPLAIN {query}")))
    assert "unified_assets_day" in plan
    assert "unified_assets_history_day" in plan
    assert "Merge Append" in plan

"""Observations by month: partitions come with their first rows, and only those that can hold a key are looked into."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from kasparro_pipeline.defs.coins.store import after_identity
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.warehouse import retention
from kasparro_pipeline.warehouse.merge import Merge, Merged
from kasparro_pipeline.warehouse.merge_sql import KeyRange, MergeSql, Target
from kasparro_pipeline.warehouse.months import make_partitions, month_of, partition_name, partitions
from kasparro_pipeline.warehouse.retention import prune_observations
from kasparro_pipeline.warehouse.statistics import analyze
from kasparro_pipeline.warehouse.tables import (
    coin,
    coin_identity,
    merge_receipt,
    observation,
    touched_day,
    unified_day,
)
from kasparro_pipeline.warehouse.touched import due_days, first_open_day, touch_days_of_other_rules
from kasparro_pipeline.warehouse.unify import rule_version
from kasparro_pipeline.warehouse.versions import VERSIONS
from kasparro_tests.warehouse.market import PRIORITIES, at, observe, rows, unify_days
from kasparro_tests.warehouse.market import said as said_of

WHERE = """
SELECT o.observed_at::text, c.relname FROM kasparro.observation o JOIN pg_class c ON c.oid = o.tableoid
ORDER BY o.observed_at
"""
NAMES = ["source", "source_coin_id", "observed_at", "price_usd", "fetched_at", "payload_sha256", "position"]


def said(times: Sequence[datetime], source: str = "vendor", coin: str = "a") -> pa.Table:
    """A price at each of these times."""
    moments = pa.array(times, pa.timestamp("us", tz="UTC"))
    prices = pa.array([str(n) for n in range(len(times))])
    source, coin, sha256, position = (pa.repeat(value, len(times)) for value in (source, coin, "a", 1))
    return pa.table([source, coin, moments, prices, moments, sha256, position], NAMES)


def merge(connection: sa.Connection, *frames: pa.Table | sa.Select[Any], **options: Any) -> Merged:
    merging = Merge(connection, observation, **options)
    for frame in frames:
        merging.frame(frame)
    return merging.finish()


@pytest.mark.parametrize("as_select", [False, True])
def test_every_month_has_a_partition_and_wild_times_have_one_on_either_side(engine: sa.Engine, as_select: bool) -> None:
    expected = {
        datetime(1, 1, 1, tzinfo=UTC): "observation_before",
        datetime(2008, 12, 31, 23, 59, 59, 999999, tzinfo=UTC): "observation_before",
        datetime(2009, 1, 1, tzinfo=UTC): "observation_2009_01",
        datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC): "observation_2024_02",
        datetime(2024, 3, 1, tzinfo=UTC): "observation_2024_03",
        datetime(2199, 12, 31, 23, 59, 59, 999999, tzinfo=UTC): "observation_2199_12",
        datetime(2200, 1, 1, tzinfo=UTC): "observation_after",
        datetime(9999, 12, 31, 23, tzinfo=UTC): "observation_after",
    }
    frame: pa.Table | sa.Select[Any] = said(list(expected))
    if as_select:
        values = sa.values(*(sa.column(name, observation.c[name].type) for name in NAMES), name="v")
        frame = sa.select(values.data([tuple({**row, "price_usd": 1}.values()) for row in frame.to_pylist()]))
    with engine.begin() as connection:
        assert merge(connection, frame).inserted == len(expected)
        assert merge(connection, frame).unchanged == len(expected)
        found = [(datetime.fromisoformat(at), table) for at, table in connection.exec_driver_sql(WHERE)]
        assert found == list(expected.items())


def test_a_time_without_an_end_has_a_place(engine: sa.Engine) -> None:
    ends = (sa.literal_column(f"'{at}'::timestamptz").label("observed_at") for at in ("-infinity", "infinity"))
    row = said([datetime(2026, 11, 1, tzinfo=UTC)]).to_pylist()[0]
    with engine.begin() as connection:
        for at in ends:
            others = [sa.literal(row[name], observation.c[name].type).label(name) for name in NAMES]
            columns = [at if column.name == "observed_at" else column for column in others]
            assert merge(connection, sa.select(*columns)).inserted == 1
        assert [table for _, table in connection.exec_driver_sql(WHERE)] == ["observation_before", "observation_after"]


def test_nobody_waits_for_a_load_that_made_a_partition(engine: sa.Engine) -> None:
    """Nor does it wait for those that read and write the table: the first two are open when the third makes its own."""
    may, june = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)
    with engine.begin() as reader, engine.begin() as first:
        reader.exec_driver_sql("SELECT * FROM kasparro.observation")
        merge(first, said([may], "first"))
        with engine.begin() as second:
            merge(second, said([may, june], "second"))
        merge(first, said([june], "first"))
    with engine.connect() as connection:
        tables = [table for _, table in connection.exec_driver_sql(WHERE)]
        assert tables == 2 * ["observation_2024_05"] + 2 * ["observation_2024_06"]


def test_a_load_that_fails_leaves_no_row_behind(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        connection.begin()
        merge(connection, said([datetime(2024, 5, 1, tzinfo=UTC)]))
        connection.rollback()
        assert connection.scalar(sa.select(sa.func.count()).select_from(observation)) == 0
        assert "observation_2024_05" in partitions(connection, observation)


def test_only_the_partitions_of_the_keys_are_looked_into(engine: sa.Engine) -> None:
    target = Target(observation)
    keys = KeyRange(["vendor", "2026-10-31 12:00:00+00", "a"], ["vendor", "2026-11-01 12:00:00+00", "b"])
    with engine.begin() as connection:
        merge(connection, said([datetime(2026, month, 1, tzinfo=UTC) for month in range(1, 12)]))
        Merge(connection, observation).frame(said([datetime(2026, 11, 1, tzinfo=UTC)]))  # so that there is staging
        months, ends = target.months(keys)
        within, values = target.within(keys)
        for statement, parameters in (
            (MergeSql(target, NAMES, ()).upsert(months), ends),
            target.first_from(keys),
            target.stored_within(keys, 5),
            target.stored_among([["vendor"], ["2026-11-01 00:00:00+00"], ["a"]], keys),
            (f"SELECT 1 FROM kasparro.observation t WHERE {within}", values),
        ):
            plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", tuple(parameters)).scalars())
            assert "observation_2026_10" in plan
            assert "observation_2026_11" in plan
            assert "observation_2026_09" not in plan


def test_the_receipt_of_a_frame_over_several_months_holds_until_a_partition_is_gone(engine: sa.Engine) -> None:
    start = datetime(2026, 9, 1, tzinfo=UTC)
    frame = said([start + timedelta(hours=n) for n in range(1500)])
    with engine.begin() as connection:
        assert merge(connection, frame, receipts=merge_receipt).inserted == 1500
    with pytest.MonkeyPatch.context() as patch, engine.begin() as connection:
        patch.setattr(Merge, "_merge_chunk", None)
        assert merge(connection, frame, receipts=merge_receipt).unchanged == 1500
    name = partition_name(observation, month_of(start))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE kasparro.{name}")
    with engine.begin() as connection:
        assert merge(connection, frame, receipts=merge_receipt).inserted == 30 * 24


class TestRetention:
    """`KASPARRO_OBSERVATION_DAYS`: what was unified stays, whatever of its observations is gone."""

    SEPTEMBER, OCTOBER = date(2026, 9, 30), date(2026, 10, 1)
    HORIZON = at("12:00", date(2026, 10, 20))

    @pytest.fixture
    def pruned(self, engine: sa.Engine) -> sa.Engine:
        days = [date(2008, 5, 1), self.SEPTEMBER, *(self.OCTOBER + timedelta(days=n) for n in range(4))]
        with engine.begin() as connection:
            make_partitions(connection, observation, map(month_of, days))
        observe(engine, [said_of("coingecko", 1, day=day) for day in days])
        for day in days:
            unify_days(engine, day, day)
        assert prune_observations(engine, self.HORIZON) == 2
        return engine

    def test_whole_months_are_dropped_and_are_a_new_version(self, engine: sa.Engine) -> None:
        with engine.begin() as connection:
            versions = dict(connection.exec_driver_sql(VERSIONS).all())
        assert prune_observations(engine, self.HORIZON) == 0
        with engine.begin() as connection:
            assert "observation_2026_09" not in partitions(connection, observation)
            assert "observation_2026_10" in partitions(connection, observation)
            assert dict(connection.exec_driver_sql(VERSIONS).all())["observation"] != versions.get("observation")
        assert prune_observations(engine, self.HORIZON - timedelta(days=90)) == 0
        with engine.begin() as connection:
            assert first_open_day(connection) == self.OCTOBER + timedelta(days=3)

    def test_their_days_are_never_made_again_and_no_longer_due(self, pruned: sa.Engine) -> None:
        before = rows(pruned)
        assert len(before) == 6
        with pruned.begin() as connection:
            connection.execute(sa.update(unified_day).values(rule_version="another"))
            connection.execute(sa.insert(touched_day), [{"day": row["day"]} for row in before])
            touch_days_of_other_rules(connection, rule_version(PRIORITIES))
        merged = unify_days(pruned, before[0]["day"], before[-1]["day"], only_touched=True)
        assert (merged.staged, merged.deleted) == (1, 0)
        unify_days(pruned, self.SEPTEMBER, self.OCTOBER)  # as by hand
        assert rows(pruned) == before
        with pruned.begin() as connection:
            assert due_days(connection) == []
            touch_days_of_other_rules(connection, rule_version(PRIORITIES))
            assert due_days(connection) == []

    def test_a_coin_that_became_another_stays_for_their_sake(self, pruned: sa.Engine) -> None:
        with pruned.begin() as connection:
            connection.execute(sa.insert(coin).values(coin_id="other"))
            connection.execute(sa.insert(coin).values(coin_id="nobody"))
            connection.execute(sa.update(coin_identity).values(coin_id="other"))
            after_identity(connection, {}, [])
            assert set(connection.scalars(sa.select(coin.c.coin_id))) == {"bitcoin", "other"}

    def test_it_waits_for_loads_and_gives_way_to_readers(
        self, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(retention, "_LOCK_TIMEOUT", "10ms")
        with engine.begin() as reader:
            reader.exec_driver_sql("SELECT * FROM kasparro.observation")
            with pytest.raises(KasparroError, match="read without a pause"):
                prune_observations(engine, self.HORIZON)
        with ThreadPoolExecutor() as pool, engine.begin() as load:
            merge(load, said([at("12:00", self.SEPTEMBER)]))
            pruning = pool.submit(prune_observations, engine, self.HORIZON)
            while not load.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar():
                time.sleep(0.01)
            merge(load, said([at("13:00", self.SEPTEMBER)]))
            load.commit()
            assert pruning.result(timeout=30) == 2

    def test_no_setting_closes_the_day_that_is_going_on(self) -> None:
        assert [Settings(observation_days=days).observation_days for days in (0, 31)] == [0, 31]
        with pytest.raises(ValidationError, match="31 days or more"):
            Settings(observation_days=30)


def test_a_table_is_analyzed_as_a_whole_when_it_has_become_twice_as_large(engine: sa.Engine) -> None:
    def counted_after(rows: int) -> float:
        with engine.begin() as connection:
            merge(connection, said([at() + timedelta(seconds=n) for n in range(rows)], coin=f"of {rows}"))
            connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        analyze(engine, only_grown=True)
        with engine.connect() as connection:
            counted = "SELECT reltuples FROM pg_class WHERE oid = 'kasparro.observation'::regclass"
            return float(connection.exec_driver_sql(counted).scalar_one())

    assert [counted_after(rows) for rows in (100, 90, 11)] == [100, 100, 201]
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE kasparro.observation IN SHARE MODE")
        analyze(engine)  # waits for nobody


def test_a_table_that_was_never_analyzed_is(engine: sa.Engine) -> None:
    never = "reltuples = -1, relpages = 0"
    counted = "SELECT reltuples FROM pg_class WHERE oid = 'kasparro.coin_identity'::regclass"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE pg_class SET {never} WHERE oid = 'kasparro.coin_identity'::regclass")
    analyze(engine, only_grown=True)
    with engine.connect() as connection:
        assert connection.exec_driver_sql(counted).scalar_one() >= 0

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kasparro_pipeline.warehouse import frames
from kasparro_pipeline.warehouse.merge import Merge, MergeError, UtcDay, Window, Written
from kasparro_pipeline.warehouse.merge_sql import MAX_LISTED, KeyRange, MergeSql, Target
from kasparro_tests.warehouse.things import counts, daily, merge, stored, thing, things

JUNE = Window("day", date(2026, 6, 1), date(2026, 7, 1))


def test_writes_only_what_differs(shop: sa.Engine) -> None:
    first = merge(shop, things(("a", 1, "1.50"), ("a", 2, "2"), ("b", 1, None)))
    assert counts(first) == {"staged": 3, "inserted": 3}
    versions = _versions(shop)

    again = merge(shop, things(("a", 1, "1.50"), ("a", 2, "3"), ("b", 1, None), ("c", 1, "9")))
    assert counts(again) == {"staged": 4, "inserted": 1, "updated": 1, "unchanged": 2}
    assert stored(shop) == [("a", 1, "1.50"), ("a", 2, "3"), ("b", 1, None), ("c", 1, "9")]
    touched = {key for key, version in _versions(shop).items() if versions.get(key) != version}
    assert touched == {("a", 2), ("c", 1)}


def test_null_differs_from_a_value_and_an_empty_text(shop: sa.Engine) -> None:
    def noted(note: str | None) -> pa.Table:
        return pa.table({"kind": ["a"], "no": [1], "Note": pa.array([note], pa.string())})

    merge(shop, noted(None))
    assert merge(shop, noted("")).updated == 1
    assert stored(shop, "Note") == [("",)]
    assert merge(shop, noted(None)).updated == 1
    assert stored(shop, "Note") == [(None,)]
    assert merge(shop, noted(None)).unchanged == 1


def test_of_two_rows_with_one_key_the_later_counts(shop: sa.Engine) -> None:
    merged = merge(shop, things(("a", 1, "1"), ("b", 1, "5"), ("a", 1, "2"), ("a", 1, "3")))
    assert counts(merged) == {"staged": 4, "inserted": 2, "unchanged": 2}
    assert stored(shop) == [("a", 1, "3"), ("b", 1, "5")]


def test_keys_are_equal_whatever_type_carries_them(shop: sa.Engine) -> None:
    merge(shop, things(("a", 1, "1")))
    kind = pa.array(["a", "a"]).dictionary_encode()
    frame = pa.table({"kind": kind, "no": pa.array([1, 1], pa.int8()), "price": ["2", "3"]})
    assert counts(merge(shop, frame)) == {"staged": 2, "updated": 1, "unchanged": 1}
    assert stored(shop) == [("a", 1, "3")]


def test_frames_of_one_merge_see_each_other(shop: sa.Engine) -> None:
    more = pa.table({"kind": ["a"], "no": [1], "Note": ["x"]})
    merged = merge(shop, things(("a", 1, "1")), things(("a", 1, "2")), more, things(("a", 1, "2")))
    assert counts(merged) == {"staged": 4, "inserted": 1, "updated": 2, "unchanged": 1}
    assert stored(shop, "price", "Note") == [("2", "x")]


def test_a_frame_larger_than_a_chunk(shop: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "CHUNK_ROWS", 7)
    rows = [("a", no % 20, str(no)) for no in range(50)]
    merged = merge(shop, things(*rows), things(*rows).to_batches()[0], things(*rows).to_pandas())
    assert merged.staged == 150
    assert stored(shop) == [("a", no, str(no + (40 if no < 10 else 20))) for no in range(20)]


def test_an_empty_frame_writes_nothing(shop: sa.Engine) -> None:
    assert counts(merge(shop, things(), things().to_pandas())) == {}
    assert counts(merge(shop, sa.select(thing))) == {}


def test_a_column_without_compare_is_written_with_its_row_only(shop: sa.Engine) -> None:
    def seen(price: str, by: str) -> pa.Table:
        return things(("a", 1, price)).append_column("seen", pa.array([by]))

    merge(shop, seen("1", "first"))
    assert counts(merge(shop, seen("1", "second"))) == {"staged": 1, "unchanged": 1}
    assert stored(shop, "seen") == [("first",)]
    assert merge(shop, seen("2", "third")).updated == 1
    assert stored(shop, "seen") == [("third",)]


def test_onupdate_is_set_only_where_a_row_changes(shop: sa.Engine) -> None:
    merge(shop, things(("a", 1, "1"), ("a", 2, "1")))
    before = stored(shop, "updated_at")
    merge(shop, things(("a", 1, "1"), ("a", 2, "2")))
    after = stored(shop, "updated_at")
    assert after[0] == before[0]
    assert after[1] > before[1]


def test_a_frame_of_keys_alone(shop: sa.Engine) -> None:
    keys = things(("a", 1, None), ("a", 2, None)).drop_columns(["price"])
    merge(shop, things(("a", 1, "5")))
    assert counts(merge(shop, keys)) == {"staged": 2, "inserted": 1, "unchanged": 1}
    assert stored(shop) == [("a", 1, "5"), ("a", 2, None)]


def test_written_rows_are_counted_by_group(shop: sa.Engine) -> None:
    merge(shop, things(("a", 1, "1"), ("b", 1, "1")))
    frame = things(("a", 1, "2"), ("b", 1, "1"), ("c", 1, "1"), ("c", 2, "1"))
    assert merge(shop, frame, group_by=["kind"]).groups == {("a",): Written(0, 1), ("c",): Written(2)}
    assert merge(shop, frame, group_by=["kind"]).groups == {}


def test_of_each_group_the_values_of_its_written_rows_are_told(shop: sa.Engine) -> None:
    merge(shop, things(("a", 1, "1"), ("a", 2, "1")))
    frames = things(("a", 1, "2"), ("a", 2, "1"), ("b", 7, "1")), things(("a", 3, "1"))
    assert merge(shop, *frames, group_by=["kind"], list_by="no").listed == {("a",): {1, 3}, ("b",): {7}}
    many = things(*(("c", n, "1") for n in range(MAX_LISTED + 1)), ("a", 1, "3"))
    assert merge(shop, many, group_by=["kind"], list_by="no").listed == {("a",): {1}, ("c",): None}


class TestSelect:
    def test_never_leaves_the_database(self, shop: sa.Engine) -> None:
        merge(shop, things(("a", 1, "1"), ("a", 2, "7")))
        tags = sa.cast(sa.func.array(sa.select(sa.literal("x,y")).scalar_subquery()), thing.c.tags.type)
        select = sa.select(thing.c.kind, thing.c.no, (thing.c.price + 1).label("price"), tags.label("tags"))
        assert counts(merge(shop, select.where(thing.c.no == 1))) == {"staged": 1, "updated": 1}
        assert stored(shop, "no", "price", "tags") == [(1, "2", ["x,y"]), (2, "7", None)]

    def test_as_text(self, shop: sa.Engine) -> None:
        text = sa.text("SELECT 'a' AS kind, 1 AS no, 1e-30 AS price").columns(thing.c.kind, thing.c.no, thing.c.price)
        assert counts(merge(shop, text)) == {"staged": 1, "inserted": 1}
        assert counts(merge(shop, text)) == {"staged": 1, "unchanged": 1}

    def test_is_planned_for_its_own_parameters_however_often_it_comes(self, shop: sa.Engine) -> None:
        merge(shop, things(*(("a", n, "1") for n in range(9))))
        with shop.connect() as connection:
            for no in range(14):
                with connection.begin():
                    Merge(connection, thing).frame(sa.select(thing.c.kind, thing.c.no).where(thing.c.no == no))
            plans = sa.text("SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement ~ :like")
            generic, custom = connection.execute(plans, {"like": "INSERT INTO kasparro_staging"}).one()
        assert generic == 0 < custom

    @pytest.mark.parametrize("second", ["'a'", "NULL"])
    def test_a_key_twice_or_null_is_refused(self, shop: sa.Engine, second: str) -> None:
        text = sa.text(f"VALUES ('a', 1), ({second}, 1)").columns(thing.c.kind, thing.c.no)
        with pytest.raises(
            MergeError, match=r"shop\.thing: the Select has the key \((a|None), 1\) twice or with a null"
        ):
            merge(shop, text)


class TestWindow:
    def test_rows_outside_are_rejected(self, shop: sa.Engine) -> None:
        frame = _days(date(2026, 5, 31), date(2026, 6, 1), date(2026, 6, 30), date(2026, 7, 1))
        merged = merge(shop, frame, table=daily, window=JUNE)
        assert counts(merged) == {"staged": 4, "inserted": 2, "rejected": 2}
        assert [day for (day,) in stored(shop, "day", table=daily)] == [date(2026, 6, 1), date(2026, 6, 30)]

    def test_rows_without_the_windows_value_are_rejected(self, shop: sa.Engine) -> None:
        frame = pa.table({"kind": ["a"], "no": [1], "day": pa.array([None], pa.date32())})
        assert counts(merge(shop, frame, window=JUNE)) == {"staged": 1, "rejected": 1}

    def test_its_column_must_be_there(self, shop: sa.Engine) -> None:
        with pytest.raises(MergeError, match=r"shop\.thing: day is missing"):
            merge(shop, things(("a", 1, "1")), window=JUNE)

    def test_replace_deletes_what_no_frame_holds(self, shop: sa.Engine) -> None:
        merge(shop, _days(date(2026, 5, 31), *(date(2026, 6, day) for day in range(1, 6))), table=daily)
        kept = [_days(date(2026, 6, 2)), _days(date(2026, 6, 4), date(2026, 7, 9))]
        merged = merge(shop, *kept, table=daily, window=JUNE, replace=True, group_by=["day"])
        assert counts(merged) == {"staged": 3, "unchanged": 2, "rejected": 1, "deleted": 3}
        assert merged.groups == {(date(2026, 6, day),): Written(deleted=1) for day in (1, 3, 5)}
        remaining = [day for (day,) in stored(shop, "day", table=daily)]
        assert remaining == [date(2026, 5, 31), date(2026, 6, 2), date(2026, 6, 4)]

    def test_replace_looks_at_the_parts_that_the_frames_were_about(self, shop: sa.Engine) -> None:
        merge(shop, _days(*(date(2026, 6, day) for day in range(1, 6))), table=daily)
        parts = [
            Window("day", date(2026, 6, 1), date(2026, 6, 3)),
            Window("day", date(2026, 6, 3), date(2026, 6, 6), "day", (date(2026, 6, 5),)),
        ]
        with shop.begin() as connection:
            merging = Merge(connection, daily, window=JUNE, replace=True)
            merging.frame(_days(date(2026, 6, 2)))
            assert counts(merging.finish(parts)) == {"staged": 1, "unchanged": 1, "deleted": 2}
        remaining = [day for (day,) in stored(shop, "day", table=daily)]
        assert remaining == [date(2026, 6, day) for day in (2, 3, 4)]

    def test_replacing_by_nothing_empties_the_window(self, shop: sa.Engine) -> None:
        merge(shop, _days(date(2026, 5, 31), date(2026, 6, 1)), table=daily)
        merged = merge(shop, _days(), table=daily, window=JUNE, replace=True)
        assert counts(merged) == {"deleted": 1}
        assert stored(shop, "day", table=daily) == [(date(2026, 5, 31),)]


class TestRefused:
    def test_replacing_without_a_window(self, shop: sa.Engine) -> None:
        with pytest.raises(MergeError, match="replacing needs a window"):
            merge(shop, replace=True)

    @pytest.mark.parametrize(
        ("table", "reason"),
        [
            (sa.Table("keyless", sa.MetaData(), sa.Column("a", sa.Text)), "keyless has no primary key"),
            (
                sa.Table("odd", sa.MetaData(), sa.Column("a", sa.Numeric, primary_key=True)),
                r"odd: key a \(NUMERIC\) is not of text, integers, dates or times",
            ),
        ],
    )
    def test_a_table_without_a_fitting_key(self, shop: sa.Engine, table: sa.Table, reason: str) -> None:
        with pytest.raises(MergeError, match=reason):
            merge(shop, table=table)

    def test_a_connection_without_a_transaction(self, shop: sa.Engine) -> None:
        with shop.connect() as connection, pytest.raises(MergeError, match=r"shop\.thing: begin a transaction"):
            Merge(connection, thing)

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ({"kind": ["a"], "no": [1], "price": ["abc"]}, 'numeric: "abc"; .*, column price'),
            ({"kind": ["a"], "no": [2**31]}, r"out of range for type integer; .*column no"),
            ({"kind": ["a\0b"], "no": [1]}, r"kind holds a NUL character"),
        ],
    )
    def test_a_value_that_postgresql_refuses(self, shop: sa.Engine, columns: dict, reason: str) -> None:
        with pytest.raises(MergeError, match=rf"^shop\.thing: .*{reason}") as caught:
            merge(shop, pa.table(columns))
        assert "\n" not in str(caught.value)
        assert stored(shop) == []

    def test_a_row_that_a_constraint_refuses(self, shop: sa.Engine) -> None:
        with shop.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE shop.thing ADD CONSTRAINT dear CHECK (price < 100)")
            connection.exec_driver_sql('CREATE UNIQUE INDEX note ON shop.thing ("Note")')
        with pytest.raises(MergeError, match=r'^shop\.thing: .*"dear"'):
            merge(shop, things(("a", 1, "100")))
        with pytest.raises(MergeError, match=r'^shop\.thing: .*"note"'):
            merge(shop, pa.table({"kind": ["a", "b"], "no": [1, 1], "Note": ["same", "same"]}))


class TestNewKeys:
    """Rows whose keys are not stored go into the table itself."""

    def test_beside_stored_ones_in_their_range(self, shop: sa.Engine) -> None:
        merge(shop, things(*(("a", no, "1") for no in range(0, 100, 10))))
        frame = things(*(("a", no, "2") for no in reversed(range(100))))
        merged = merge(shop, frame, group_by=["kind"])
        assert counts(merged) == {"staged": 100, "inserted": 90, "updated": 10}
        assert merged.groups == {("a",): Written(90, 10)}
        assert stored(shop) == [("a", no, "2") for no in range(100)]

    def test_between_many_stored_ones(self, shop: sa.Engine) -> None:
        merge(shop, things(*(("a", number, "1") for number in range(0, 2000, 2))))
        new = things(*(("a", number, "2") for number in range(1, 2001, 2)))
        assert counts(merge(shop, new)) == {"staged": 1000, "inserted": 1000}
        assert [number for _, number, _ in stored(shop)] == list(range(2000))

    def test_between_many_stored_ones_of_which_one_has_a_key_of_theirs(self, shop: sa.Engine) -> None:
        merge(shop, things(*(("a", number, "1") for number in range(0, 4000, 2)), ("a", 1003, "1")))
        new = things(*(("a", number, "2") for number in range(1, 4001, 2)))
        assert counts(merge(shop, new)) == {"staged": 2000, "inserted": 1999, "updated": 1}
        assert stored(shop)[1003] == ("a", 1003, "2")

    def test_the_merge_stays_in_the_callers_transaction(self, shop: sa.Engine) -> None:
        with shop.connect() as connection:
            connection.begin()
            Merge(connection, thing).frame(things(("a", 1, "1")))
            connection.rollback()
        assert stored(shop) == []

    def test_days_of_times_are_utc_days(self, shop: sa.Engine) -> None:
        late = datetime(2026, 6, 1, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
        frame = pa.table({"kind": ["a", "b"], "no": [1, 1], "at": pa.array([late, None], pa.timestamp("us", "+00:00"))})
        merged = merge(shop, frame, group_by=[UtcDay("at"), "kind"])
        assert merged.groups == {(date(2026, 6, 2), "a"): Written(1), (None, "b"): Written(1)}


class TestConcurrency:
    @pytest.fixture
    def other(self, shop: sa.Engine) -> Iterator[sa.Connection]:
        with shop.connect() as connection:
            yield connection

    @pytest.mark.parametrize(("price", "outcome"), [("1", "unchanged"), ("2", "updated")])
    def test_a_key_that_another_session_commits_meanwhile(
        self, shop: sa.Engine, other: sa.Connection, price: str, outcome: str
    ) -> None:
        Merge(_begun(other), thing).frame(things(("m", 1, "1")))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(merge, shop, things(("a", 1, "0"), ("m", 1, price)))
            _wait_for_lock(shop)
            other.commit()
            assert counts(waiting.result(20)) == {"staged": 2, "inserted": 1, outcome: 1}
        assert stored(shop) == [("a", 1, "0"), ("m", 1, price)]

    def test_a_key_that_another_session_takes_back(self, shop: sa.Engine, other: sa.Connection) -> None:
        Merge(_begun(other), thing).frame(things(("m", 1, "1")))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(merge, shop, things(("m", 1, "2")))
            _wait_for_lock(shop)
            other.rollback()
            assert counts(waiting.result(20)) == {"staged": 1, "inserted": 1}

    def test_what_the_caller_wrote_before_stays_when_a_key_is_met(self, shop: sa.Engine, other: sa.Connection) -> None:
        Merge(_begun(other), thing).frame(things(("m", 1, "1")))

        def load() -> None:
            with shop.begin() as connection:
                connection.execute(thing.insert().values(kind="caller", no=1))
                Merge(connection, thing).frame(things(("m", 1, "2")))

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(load)
            _wait_for_lock(shop)
            other.commit()
            waiting.result(20)
        assert stored(shop, "kind", "price") == [("caller", None), ("m", "2")]


class TestPlans:
    """Stored rows are looked up by key, whatever the planner knows or believes to know."""

    @pytest.fixture(params=["none", "of an empty table", "fresh"])
    def filled(self, shop: sa.Engine, request: pytest.FixtureRequest) -> sa.Engine:
        with shop.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ALTER TABLE shop.thing SET (autovacuum_enabled = false)")
            if request.param == "of an empty table":
                connection.exec_driver_sql("VACUUM ANALYZE shop.thing")
            connection.exec_driver_sql(
                "INSERT INTO shop.thing (kind, no, price) "
                "SELECT 'k' || mod(n, 10), n, n FROM generate_series(1, 20000) n"
            )
            if request.param == "fresh":
                connection.exec_driver_sql("VACUUM ANALYZE shop.thing")
        return shop

    @pytest.mark.parametrize("staged", [10, 20_000])
    def test_no_join_and_no_scan_of_the_table(self, filled: sa.Engine, staged: int) -> None:
        target = Target(thing)
        sql = MergeSql(target, ["kind", "no", "price"], ())
        keys = KeyRange(["k0", "1"], ["k9", "20000"])
        with filled.begin() as connection:
            Merge(connection, thing).frame(things(*((f"k{no % 10}", no, str(no)) for no in range(staged))))
            for statement, parameters in (
                (sql.upsert(), ()),
                (sql.upsert(expect_others=True), ()),
                target.first_from(keys),
            ):
                plan = "\n".join(connection.exec_driver_sql(f"EXPLAIN {statement}", tuple(parameters)).scalars())
                assert "thing_pkey" in plan
                assert "Seq Scan on thing" not in plan
                assert "Hash" not in plan.replace("HashAggregate", "")
                assert "Merge Join" not in plan

    def test_only_what_is_stored_is_compared_though_others_lie_between(self, shop: sa.Engine) -> None:
        with shop.begin() as connection:
            merging = Merge(connection, thing)
            merging.frame(things(*(("a", no, "1") for no in [*range(0, 4000, 20), *range(1, 1200, 2)])))
            merged = merging.frame(things(*(("a", no, "2") for no in range(0, 4000, 2))))
            assert counts(merged) == {"staged": 2000, "inserted": 1800, "updated": 200}
            assert connection.exec_driver_sql("SELECT count(*) FROM kasparro_staging").scalar() == 200

    def test_no_plan_is_kept(self, shop: sa.Engine) -> None:
        """One that was made while the table was small would scan it again and again while it grows."""
        shop.dispose()  # statements that other tests sent are prepared on the connections they used
        with shop.begin() as connection:
            merging = Merge(connection, thing)
            for no in range(10):
                merging.frame(things(("s", no, "1")))
            kept = connection.exec_driver_sql("SELECT statement FROM pg_prepared_statements").scalars().all()
            assert [statement for statement in kept if "kasparro_staging" in statement] == []


PRICES = st.sampled_from([None, "1", "2.50", f"0.{1:030}"])
ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 4), PRICES), max_size=30)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(splits=st.lists(st.tuples(ROWS, st.booleans()), max_size=5))
def test_any_sequence_in_any_split_ends_as_a_dictionary_would(
    shop: sa.Engine, splits: list[tuple[list[tuple[str, int, str | None]], bool]]
) -> None:
    """Each split is a frame; True: commit after it."""
    with shop.begin() as connection:
        connection.exec_driver_sql("TRUNCATE shop.thing")
    model: dict[tuple[str, int], str | None] = {}
    connection = shop.connect()
    merging = Merge(_begun(connection), thing)
    for rows, commits in splits:
        before = dict(model)
        model.update({(kind, no): price for kind, no, price in rows})
        merged = merging.frame(things(*rows))
        assert merged.inserted == len(model) - len(before)
        assert merged.updated == sum(model[key] != before[key] for key in before)
        assert merged.staged == len(rows) == merged.inserted + merged.updated + merged.unchanged
        if commits:
            merging.finish()
            connection.commit()
            merging = Merge(_begun(connection), thing)
    merging.finish()
    connection.commit()
    connection.close()
    assert {(kind, no): price for kind, no, price in stored(shop)} == model


def _versions(engine: sa.Engine) -> dict[tuple[str, int], tuple[str, str]]:
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT kind, no, xmin::text, xmax::text FROM shop.thing")
        return {(kind, no): (xmin, xmax) for kind, no, xmin, xmax in rows}


def _days(*days: date) -> pa.Table:
    kinds = pa.array(["a"] * len(days), pa.string())
    return pa.table(
        {"day": pa.array(days, pa.date32()), "kind": kinds, "price": pa.array(["1"] * len(days), pa.string())}
    )


def _begun(connection: sa.Connection) -> sa.Connection:
    connection.begin()
    return connection


def _wait_for_lock(engine: sa.Engine) -> None:
    deadline = time.monotonic() + 20
    with engine.connect() as connection:
        while not connection.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar():
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.01)

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from kasparro_pipeline.warehouse.calls import BudgetSpentError, CallLedger
from kasparro_pipeline.warehouse.tables import vendor_call


def calls(engine: sa.Engine) -> int:
    with engine.connect() as connection:
        return int(connection.scalar(sa.select(sa.func.sum(vendor_call.c.calls))) or 0)


def made(engine: sa.Engine, source: str, day, number: int) -> None:
    with engine.begin() as connection:
        row = {"source": source, "day": day, "calls": number, "recent": []}
        connection.execute(sa.insert(vendor_call), [row])


@pytest.mark.parametrize("limits", [{"per_day": 3}, {"per_month": 3}])
def test_a_budget_is_kept_by_all_processes_together(engine, limits) -> None:
    def ask(_: int) -> bool:
        try:
            CallLedger(lambda: engine, "vendor", **limits).count()
        except BudgetSpentError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        admitted = list(threads.map(ask, range(10)))
    assert admitted.count(True) == 3
    assert calls(engine) == 3
    reason = CallLedger(lambda: engine, "vendor", **limits).spent()
    assert reason is not None
    assert reason.startswith("vendor: all 3 calls of this ")
    assert CallLedger(lambda: engine, "other", **limits).spent() is None


def test_another_month_and_another_vendor_do_not_count(engine) -> None:
    today = datetime.now(UTC).date()
    made(engine, "vendor", today.replace(day=1) - timedelta(days=1), 100)
    made(engine, "other", today, 100)
    ledger = CallLedger(lambda: engine, "vendor", per_day=2, per_month=2)
    ledger.count()
    ledger.count()
    with pytest.raises(BudgetSpentError, match=r"all 2 calls of this day \(UTC\)"):
        ledger.count()


def test_calls_are_counted_without_a_budget_too(engine) -> None:
    ledger = CallLedger(lambda: engine, "vendor")
    ledger.count()
    assert calls(engine) == 1
    assert ledger.spent() is None


def test_recent_calls_are_remembered_as_long_as_the_window(engine) -> None:
    ledger = CallLedger(lambda: engine, "vendor", window_seconds=30)
    for _ in range(3):
        ledger.count()
    older = sa.func.array_append(vendor_call.c.recent, sa.text("now() - interval '31 seconds'"))
    with engine.begin() as connection:
        connection.execute(sa.update(vendor_call).values(recent=older))
    ages = ledger.recent()
    assert len(ages) == 3
    assert ages == sorted(ages, reverse=True)
    assert all(0 <= age < 30 for age in ages)
    ledger.count()
    with engine.connect() as connection:
        assert len(connection.scalar(sa.select(vendor_call.c.recent))) == 4  # the old one is dropped


def test_processes_that_ask_one_vendor_take_turns(engine) -> None:
    ledger, order = CallLedger(lambda: engine, "vendor"), []

    def second() -> None:
        with ledger.turn():
            order.append("second")

    with ThreadPoolExecutor(1) as threads:
        with ledger.turn(), CallLedger(lambda: engine, "other").turn():
            waiting = threads.submit(second)
            with engine.connect() as connection:
                locks = sa.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
                while not connection.scalar(locks):
                    assert not waiting.done()
            order.append("first")
        waiting.result()
    assert order == ["first", "second"]


def test_a_turn_ends_with_an_error(engine) -> None:
    ledger = CallLedger(lambda: engine, "vendor")
    with pytest.raises(ZeroDivisionError), ledger.turn():
        _ = 1 / 0
    with ThreadPoolExecutor(1) as threads:  # another session gets it at once
        assert threads.submit(lambda: ledger.turn().__enter__()).result(10) is None


def test_a_turn_whose_session_is_lost_ends_with_what_went_wrong_in_it(engine) -> None:
    ledger = CallLedger(lambda: engine, "vendor")
    kill = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid() "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with pytest.raises(ZeroDivisionError), ledger.turn(), engine.connect() as connection:
        assert connection.scalars(kill).all() == [True]
        _ = 1 / 0
    with ledger.turn():
        pass

"""What the harness finds, it has to be able to find."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from kasparro_pipeline.warehouse.database import create_engine
from kasparro_pipeline.warehouse.tables import coin, delivery, source_coin, touched_day
from kasparro_tests.chaos.compare import differences, over_asked, unaccounted
from kasparro_tests.conftest import _new_database
from kasparro_tests.warehouse.payloads import keep_payloads


def test_a_row_that_differs_is_told_and_our_own_times_are_not(server, template, engine) -> None:
    with _new_database(server, template.database) as url:
        other = create_engine(url)
        for number, one in enumerate((engine, other)):
            with one.begin() as connection:
                connection.execute(sa.insert(coin).values(coin_id="a", symbol="A"))
                said = {"source": "s", "source_coin_id": "a", "symbol": f"A{number}"}
                times = dict.fromkeys(("first_seen", "last_seen"), sa.func.to_timestamp(0))
                connection.execute(sa.insert(source_coin).values(**said, **times))
        found = list(differences(engine, other))
        other.dispose()
    assert [line.split(": ")[:2] for line in found] == [
        ["source_coin", "only undisturbed"],
        ["source_coin", "only after kills"],
    ]


def test_what_was_left_undone_and_asked_for_again_is_told(engine) -> None:
    assert list(unaccounted(engine)) == []
    with engine.begin() as connection:
        connection.execute(sa.insert(touched_day).values(day=sa.func.current_date()))
    assert list(unaccounted(engine)) == ["touched_day: 1 rows left"]
    assert list(over_asked(engine, {"s": 3}, {"s": 1}, 3)) == []
    assert list(over_asked(engine, {"s": 3}, {"s": 1}, 2)) == ["3 answers were asked for again, with 2 interruptions"]


def test_blocks_without_an_account_are_told_unless_their_file_was_read_again(engine) -> None:
    def deliver(source: str, minute: int, *, is_last: bool, done: bool, inserted: int = 0) -> None:
        at = datetime(2026, 11, 1, 12, minute, tzinfo=UTC)
        payload = {"source": source, "sha256": f"{source}{minute}"}
        kept = {**payload, "body": b"", "size_bytes": 0, "first_fetched_at": at}
        place = {"partition": "a.csv", "position": 0, "fetched_at": at, "request": "a.csv", "first_record": 1}
        counts = dict.fromkeys(("updated", "unchanged", "quarantined"), 0) if done else {}
        counts |= dict.fromkeys(("records", "inserted"), inserted) if done else {}
        account = {"parser_version": "1" if done else None, **counts}
        with engine.begin() as connection:
            keep_payloads(connection, [kept])
            connection.execute(sa.insert(delivery).values(**payload, **place, is_last=is_last, **account))

    deliver("csv_a", 0, is_last=False, done=False)
    assert len(list(unaccounted(engine))) == 1
    deliver("csv_a", 1, is_last=True, done=True)
    assert list(unaccounted(engine)) == []
    deliver("csv_a", 2, is_last=True, done=False)  # read to its end, and not parsed
    deliver("vendor", 0, is_last=False, done=False)  # a page is parsed whether the sweep ends or not
    deliver("vendor", 1, is_last=True, done=True)
    assert len(list(unaccounted(engine))) == 2
    deliver("vendor_list", 0, is_last=True, done=True, inserted=3)  # listings
    assert len(list(unaccounted(engine))) == 2
    deliver("vendor", 2, is_last=True, done=True, inserted=3)
    assert list(unaccounted(engine))[2:] == ["observation: 0 rows, but 3 were inserted"]

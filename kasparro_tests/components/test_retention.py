"""What is forgotten is needed by nothing: parsing again what stays gives the same tables."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from kasparro_pipeline.io_managers.raw_payload import _keep
from kasparro_pipeline.sources.records import Payload
from kasparro_pipeline.warehouse import retention
from kasparro_pipeline.warehouse.months import partitions
from kasparro_pipeline.warehouse.retention import prune_payloads
from kasparro_pipeline.warehouse.tables import delivery, raw_payload
from kasparro_tests.components.test_any_order import QUICK, TIMES, deliveries_of_api, deliveries_of_files
from kasparro_tests.components.world import HEADER, START, World, csv_payloads, json_payload, minute


def parse_all_again(world: World) -> None:
    with world.engine.begin() as connection:
        kept = connection.execute(sa.select(delivery.c.source, delivery.c.partition).distinct()).all()
        connection.execute(sa.update(delivery).values(parser_version=None))
    world.parse({row.source for row in kept}, {row.partition for row in kept})


def payloads(world: World) -> int:
    return world.rows(sa.select(sa.func.count()).select_from(raw_payload))[0][0]


def check(world: World, deliveries: list[list[Payload]]) -> None:
    world.clear()
    for one in deliveries:
        world.load(one)
    before, stored = world.tables(), payloads(world)
    removed = prune_payloads(world.engine, minute(100))
    assert payloads(world) == stored - removed
    assert world.tables() == before
    parse_all_again(world)
    assert world.tables() == before
    world.assert_accounts_add_up()


@QUICK
@given(deliveries=deliveries_of_api(), days=st.integers(1, 3))
def test_of_an_api(world: World, deliveries: list[list[Payload]], days: int) -> None:
    """Each delivery a day or more after the one before, so that the last day holds few of them."""
    for number, (payload,) in enumerate(deliveries):
        deliveries[number] = [_at(payload, number * days)]
    check(world, deliveries)


@QUICK
@given(deliveries=deliveries_of_files())
def test_of_files(world: World, deliveries: list[list[Payload]]) -> None:
    check(world, deliveries)


def _at(payload: Payload, days: int) -> Payload:
    at = START + timedelta(days=days)
    return Payload(payload.source, at.date().isoformat(), 0, at, payload.body, payload.request, 1, payload.checkpoint)


def test_a_file_that_was_replaced_is_forgotten_once_it_is_old(world: World) -> None:
    for number, price in enumerate("123"):
        world.load(csv_payloads([HEADER, f"a,X,{TIMES[0]},{price}\n"], number))
    stored = payloads(world)
    assert prune_payloads(world.engine, minute(0)) == 0
    assert prune_payloads(world.engine, minute(100)) == 2  # the header's block is the newest file's, too
    assert payloads(world) == stored - 2
    assert prune_payloads(world.engine, minute(100)) == 0


def test_what_says_since_when_stays(world: World) -> None:
    """a, b, a again: without the b between them, the first a would seem to have been said ever since."""
    said = [{"id": "a", "at": TIMES[0], "symbol": "X", "price": price} for price in "121"]
    other = {"id": "b", "at": TIMES[0], "symbol": "Y", "price": "5"}
    for number, record in enumerate(said):
        world.load([_at(json_payload([record, other] if number == 0 else [record], number), 3 * number)])
    before = world.tables()
    assert prune_payloads(world.engine, START + timedelta(days=100)) == 0
    parse_all_again(world)
    assert world.tables() == before


def test_a_month_of_which_nothing_is_needed_is_dropped_and_of_others_the_rest_is_deleted(world: World) -> None:
    """A file that is replaced on 30 December, twice in January and twice in February."""
    for number, price in enumerate("12345"):
        at = datetime(2026, 12, 30, tzinfo=UTC) + timedelta(days=15 * number)
        (block,) = csv_payloads([f"{HEADER}a,X,{TIMES[0]},{price}\n"], 0)
        world.load([replace(block, fetched_at=at)])
    before = world.tables()
    assert prune_payloads(world.engine, datetime(2027, 2, 20, tzinfo=UTC)) == 4
    assert world.tables() == before
    with world.engine.connect() as connection:
        left = partitions(connection, raw_payload)
        assert not left & {"raw_payload_2026_12", "raw_payload_2027_01"}
        assert "raw_payload_2027_02" in left
    assert payloads(world) == 1
    parse_all_again(world)
    assert world.tables() == before


def test_readers_wait_for_nothing_but_the_dropping_of_months_which_gives_way_to_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, price in enumerate("123"):
        at = datetime(2026, 12, 30, tzinfo=UTC) + timedelta(days=15 * number)
        (block,) = csv_payloads([f"{HEADER}a,X,{TIMES[0]},{price}\n"], 0)
        world.load([replace(block, fetched_at=at)])
    monkeypatch.setattr(retention, "_LOCK_TIMEOUT", "10ms")
    horizon = datetime(2027, 1, 20, tzinfo=UTC)
    with world.engine.begin() as reader:
        bodies = "SELECT r.body FROM kasparro.payload AS p JOIN kasparro.raw_payload AS r USING (source, sha256)"
        assert len(reader.exec_driver_sql(bodies).all()) == 3
        assert prune_payloads(world.engine, horizon) == 2
        assert len(reader.exec_driver_sql(bodies).all()) == payloads(world) == 1
        assert "raw_payload_2026_12" in partitions(reader, raw_payload)
    assert prune_payloads(world.engine, horizon) == 0
    with world.engine.connect() as connection:
        assert "raw_payload_2026_12" not in partitions(connection, raw_payload)


def test_what_is_delivered_again_meanwhile_is_not_forgotten(world: World) -> None:
    old, new = (csv_payloads([f"{HEADER}a,X,{TIMES[0]},{price}\n"], n) for n, price in enumerate("12"))
    world.load(old)
    world.load(new)
    with ThreadPoolExecutor() as pool, world.engine.begin() as load:
        again = [replace(one, fetched_at=minute(2)) for one in old]
        _keep(load, again, "again")  # known, so its bytes are not stored again
        pruning = pool.submit(prune_payloads, world.engine, minute(100))
        while not load.exec_driver_sql("SELECT count(*) FROM pg_locks WHERE NOT granted").scalar():
            time.sleep(0.01)
        load.commit()
        pruning.result(timeout=30)
    assert payloads(world) == 2
    parse_all_again(world)
    world.assert_accounts_add_up()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO kasparro.raw_payload SELECT source, sha256, body, 0, first_fetched_at + '1 hour' "
        "FROM kasparro.raw_payload",
        "INSERT INTO kasparro.payload SELECT source, sha256 || 'x', first_fetched_at FROM kasparro.payload",
        "DELETE FROM kasparro.raw_payload",
        "DELETE FROM kasparro.payload",
    ],
    ids=["bytes twice", "payload without bytes", "bytes of a payload", "payload that was delivered"],
)
def test_the_tables_themselves_keep_each_payload_once_and_with_its_bytes(world: World, statement: str) -> None:
    world.load(csv_payloads([f"{HEADER}a,X,{TIMES[0]},1\n"], 0))
    with pytest.raises(sa.exc.IntegrityError), world.engine.begin() as connection:
        connection.exec_driver_sql(statement)

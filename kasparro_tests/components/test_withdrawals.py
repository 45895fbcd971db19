"""What a restated file no longer holds is marked, whatever else happens it stays."""

from __future__ import annotations

import os
import shutil
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa

from kasparro_pipeline.components.csv_source import CsvParser
from kasparro_pipeline.components.statements import keys_of
from kasparro_pipeline.sources.csv.blocks import read_blocks
from kasparro_pipeline.sources.csv.dialect import read_dialect
from kasparro_pipeline.sources.csv.parse import parse_csv
from kasparro_pipeline.warehouse.tables import delivery, observation, touched_day
from kasparro_tests.components.world import FIRST_DAY, HEADER, World, csv_payloads, minute
from kasparro_tests.sources.samples import CSV, delivered

REALDATA = Path(os.environ.get("KASPARRO_REALDATA") or "/nonexistent")
A, B, C = (f"{coin},X,2026-10-0{day}T00:00:00Z,{day}\n" for day, coin in enumerate("abc", 1))


def withdrawn(world: World) -> dict[str, object]:
    query = sa.select(observation.c.source_coin_id, observation.c.withdrawn_at)
    return {coin: at for coin, at in world.rows(query) if at is not None}


def touched(world: World) -> set[date]:
    days = {day for (day,) in world.rows(sa.select(touched_day.c.day))}
    with world.engine.begin() as connection:
        connection.execute(sa.delete(touched_day))
    return days


def test_a_row_that_is_gone_stays_and_is_marked_until_it_is_delivered_again(world: World) -> None:
    world.load(csv_payloads([HEADER, A, B], 0))
    touched(world)
    world.load(csv_payloads([HEADER, A, C], 1))
    assert withdrawn(world) == {"b": minute(1)}
    assert touched(world) == {date(2026, 10, 2), date(2026, 10, 3)}
    last = sa.select(delivery.c.withdrawn).where(delivery.c.is_last, delivery.c.fetched_at == minute(1))
    assert world.rows(last) == [(1,)]
    world.load(csv_payloads([HEADER, A], 2))
    assert withdrawn(world) == {"b": minute(1), "c": minute(2)}
    touched(world)
    world.load(csv_payloads([HEADER, A, B], 3))
    assert withdrawn(world) == {"c": minute(2)}
    assert touched(world) == {date(2026, 10, 2)}


def test_a_row_that_another_file_holds_is_not_withdrawn(world: World) -> None:
    world.load(csv_payloads([HEADER, A, B], 0, "drop/a.csv"))
    world.load(csv_payloads([HEADER, B], 1, "drop/b.csv"))
    world.load(csv_payloads([HEADER, A], 2, "drop/a.csv"))
    assert withdrawn(world) == {}
    world.load(csv_payloads([HEADER, C], 3, "drop/b.csv"))
    assert withdrawn(world) == {"b": minute(3)}


def test_a_row_that_moved_into_another_block_is_not_withdrawn(world: World) -> None:
    world.load(csv_payloads([HEADER, A + B, C], 0))
    world.load(csv_payloads([HEADER, A, B + C], 1))
    assert withdrawn(world) == {}


def test_a_file_that_cannot_be_read_withdraws_nothing(world: World) -> None:
    world.load(csv_payloads([HEADER, A, B], 0))
    world.load(csv_payloads(["what,is,this\n", A, B], 1))
    assert withdrawn(world) == {}
    world.load(csv_payloads([HEADER], 2))
    assert set(withdrawn(world)) == {"a", "b"}


def test_a_file_still_being_read_is_left_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = csv_payloads([HEADER, A, B], 0)
    monkeypatch.setattr("kasparro_pipeline.components.observations.BEING_READ", minute(100_000) - minute(0))
    world.load(whole[:2])
    assert world.tables()["observation"] == []
    world.load(whole[2:])
    assert len(world.tables()["observation"]) == 2


def test_only_blocks_that_changed_are_parsed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[int] = []
    parse = CsvParser.parse

    def counted(parser: CsvParser, kept):
        parsed.append(kept.position)
        return parse(parser, kept)

    world.load(csv_payloads([HEADER, A, B, C], 0))
    monkeypatch.setattr(CsvParser, "parse", counted)
    world.load(csv_payloads([HEADER, A, B, C, "d,X,2026-10-05T00:00:00Z,5\n"], 1))
    assert parsed == [4]
    parsed.clear()
    world.load(csv_payloads([HEADER, A, C, "d,X,2026-10-05T00:00:00Z,5\n"], 2))
    assert parsed == [2]  # the block that is gone
    assert set(withdrawn(world)) == {"b"}


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="KASPARRO_REALDATA names no folder")
def test_four_states_of_a_real_file(world: World, tmp_path: Path) -> None:
    """Each state holds what the file held; everything else that was ever in it is withdrawn."""
    place = tmp_path / "markets.csv"
    states = sorted((REALDATA / "csv/incremental").glob("*.csv"))
    assert len(states) == 4
    ever: set[tuple[str, object]] = set()
    for number, state in enumerate(states):
        shutil.copy(state, place)
        names = {"source": "csv_drop", "partition": "drop/m.csv", "request": "drop/m.csv"}
        payloads = list(read_blocks(place, **names, fetched_at=minute(number)))
        world.load(payloads)
        held = keys_in(world, payloads)
        ever |= held
        key = (observation.c.source_coin_id, observation.c.observed_at)
        stored = {tuple(row) for row in world.rows(sa.select(*key))}
        gone = {tuple(row) for row in world.rows(sa.select(*key).where(observation.c.withdrawn_at.is_not(None)))}
        assert stored == ever
        assert gone == ever - held
    world.assert_accounts_add_up()


def keys_in(world: World, payloads) -> set[tuple[str, object]]:

    dialect = read_dialect(lambda: (payload.body for payload in payloads), CSV, "drop/m.csv")
    found = [parse_csv(delivered(payload), dialect, FIRST_DAY).observations for payload in payloads]
    return {key for table in found for key in keys_of(table)}

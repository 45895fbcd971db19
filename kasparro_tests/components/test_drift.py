"""What changed in the fields of a source's records is recorded, and a key field that is gone fails the run."""

from __future__ import annotations

from decimal import Decimal

import pytest
import sqlalchemy as sa

from kasparro_pipeline.components.drift import DriftError
from kasparro_pipeline.sources.csv.reading import CsvReading
from kasparro_pipeline.sources.json_records import JsonMapping
from kasparro_pipeline.warehouse.tables import delivery, drift, observation, quarantine, source_field
from kasparro_tests.components.world import HEADER, World, csv_payloads, json_payload, minute
from kasparro_tests.sources.samples import CSV


def records(*, without: tuple[str, ...] = (), **more: object) -> list[dict[str, object]]:
    record = {"symbol": "X", "at": "2026-11-01T10:00:00Z", "price": 10.5, "rank": 1}
    return [
        {name: value for name, value in {"id": coin, **record, **more}.items() if name not in without}
        for coin in "abcd"
    ]


def found(world: World) -> list[tuple[object, ...]]:
    columns = (drift.c.kind, drift.c.path, drift.c.renamed_to, drift.c.severity)
    return [tuple(row) for row in world.rows(sa.select(*columns).order_by(drift.c.id))]


def still_open(world: World) -> list[str]:
    matters = drift.c.resolved_at.is_(None) & (drift.c.severity != "info")
    return [path for (path,) in world.rows(sa.select(drift.c.path).where(matters))]


def count(world: World, table: sa.Table) -> int:
    return world.rows(sa.select(sa.func.count()).select_from(table))[0][0]


def test_the_first_payload_is_learned_and_is_no_drift(world: World) -> None:
    world.load([json_payload(records(), 0)])
    fields = world.rows(sa.select(source_field.c.path, source_field.c.types).order_by(source_field.c.path))
    assert [tuple(row) for row in fields] == [
        ("at", ["text"]),
        ("id", ["text"]),
        ("price", ["number"]),
        ("rank", ["number"]),
        ("symbol", ["text"]),
    ]
    assert found(world) == []


def test_fields_that_are_new_missing_and_retyped(world: World) -> None:
    world.load([json_payload(records(), 0)])
    world.load([json_payload(records(without=("symbol",), rank="first", extra={"deep": True}), 1)])
    assert sorted(found(world)) == [
        ("missing", "symbol", None, "warn"),
        ("new", "extra", None, "info"),
        ("new", "extra.deep", None, "info"),
        ("retyped", "rank", None, "warn"),
    ]
    world.load([json_payload(records(without=("symbol",), rank="first", extra={"deep": True}), 2)])
    assert len(found(world)) == 4
    (row,) = world.rows(sa.select(drift).where(drift.c.path == "symbol"))
    assert (row.first_seen, row.last_seen, row.resolved_at) == (minute(1), minute(2), None)
    assert (row.mapped_column, row.example) == ("symbol", "X")
    world.load([json_payload(records(extra={"deep": True}), 3)])
    passed = world.rows(sa.select(drift.c.path).where(drift.c.resolved_at == minute(3)))
    assert {path for (path,) in passed} == {"symbol", "rank"}


def test_a_renamed_field_is_guessed(world: World) -> None:
    world.load([json_payload(records(market_cap=123_456_789, total_volume=5_000), 0)])
    world.load([json_payload(records(marketCapUsd=123_999_999, volume_total=5_100), 1)])
    assert sorted(found(world)) == [
        ("renamed", "market_cap", "marketCapUsd", "info"),
        ("renamed", "total_volume", "volume_total", "info"),
    ]
    assert all(Decimal("0.6") < row.confidence <= 1 for row in world.rows(sa.select(drift.c.confidence)))


def test_fields_that_come_and_go_from_record_to_record_are_no_drift(world: World) -> None:
    def some(name: str) -> list[dict[str, object]]:
        return [record | ({name: None} if i == 0 else {}) for i, record in enumerate(records())]

    world.load([json_payload(some("roi"), 0)])
    world.load([json_payload(some("note"), 1)])
    world.load([json_payload(some("roi"), 2)])
    assert found(world) == []


def test_a_key_field_that_is_gone_fails_before_anything_is_written(world: World) -> None:
    world.load([json_payload(records(), 0)])
    before = world.tables()
    with pytest.raises(DriftError, match=r"key field 'price' \(price_usd\).*'price' may be 'price_now' now"):
        world.load([json_payload(records(without=("price",), price_now=10.6, at="2026-11-01T11:00:00Z"), 1)])
    assert world.tables() == before
    assert count(world, quarantine) == 0
    assert found(world) == [("renamed", "price", "price_now", "error")]
    assert len(world.rows(sa.select(delivery).where(delivery.c.parser_version.is_(None)))) == 1

    world.mapping = JsonMapping({**world.mapping.columns, "price_usd": ("price_now",)})
    world.parse(["vendor"], [minute(1).date().isoformat()])
    assert count(world, observation) == 8
    assert count(world, quarantine) == 4  # the first payload, by the new mapping
    assert still_open(world) == []


def test_a_bad_answer_is_quarantined_once_the_vendor_answers_well_again(world: World) -> None:
    world.load([json_payload(records(), 0)])
    with pytest.raises(DriftError):
        world.load([json_payload(records(without=("id",)), 1)])
    world.load([json_payload(records(at="2026-11-01T12:00:00Z"), 2)])
    assert (count(world, observation), count(world, quarantine)) == (8, 4)
    world.assert_accounts_add_up()


def test_a_first_answer_without_the_mapped_key_field_fails(world: World) -> None:
    with pytest.raises(DriftError, match="'price'"):
        world.load([json_payload(records(without=("price",)), 0)])
    assert found(world) == [("missing", "price", None, "error")]


def test_a_header_that_changes(world: World) -> None:
    line = "a,X,2026-10-01T00:00:00Z,{}\n".format
    world.load(csv_payloads([HEADER.replace("price", "price,market_cap"), line("1,77")], 0))
    world.load(csv_payloads([HEADER.replace("price", "price,marketcap usd"), line("1,78")], 1))
    assert found(world) == [("renamed", "market_cap", "marketcap usd", "warn")]


def test_a_new_file_is_held_against_the_likest_of_its_source(world: World) -> None:
    line = "a,X,2026-10-01T00:00:00Z,1\n"
    world.load(csv_payloads([HEADER + line], 0, "drop/a.csv"))
    world.load(csv_payloads(["Unix,Pair,Close,Open,High\n", "1700000000,BTC/USD,1,1,1\n"], 1, "drop/other.csv"))
    assert found(world) == []
    world.load(csv_payloads([HEADER.replace("symbol", "sign") + line], 2, "drop/b.csv"))
    assert [row[:2] for row in found(world)] == [("renamed", "symbol")]


def test_a_file_that_lost_a_key_column_is_quarantined_as_a_whole(world: World) -> None:
    line = "a,X,2026-10-01T00:00:00Z,1\n"
    world.load(csv_payloads([HEADER + line], 0))
    for number, partition in ((1, "drop/a.csv"), (2, "drop/a.csv"), (3, "drop/new.csv")):
        with pytest.raises(DriftError, match=rf"{partition}: the key field 'price' \(price_usd\)"):
            equal_blocks = [f"id,symbol,at,what\n{line}{line}".replace(",1", f",{number}")] * number
            world.load(csv_payloads(equal_blocks, number, partition))
    rows = world.rows(sa.select(drift).where(drift.c.mapped_column == "price_usd"))
    assert {(row.scope, row.path, row.severity) for row in rows} == {
        ("drop/a.csv", "price", "error"),
        ("drop/new.csv", "price", "error"),
    }
    assert (count(world, observation), count(world, quarantine)) == (1, 3)
    world.assert_accounts_add_up()


def test_a_file_that_has_its_key_column_again_by_its_newest_state_does_not_fail(world: World) -> None:
    line = "a,X,2026-10-01T00:00:00Z,1\n"
    world.load(csv_payloads([HEADER + line], 0))
    world.keep([*csv_payloads([f"id,symbol,at,what\n{line}"], 1), *csv_payloads([HEADER + line], 2)])
    world.parse(["csv_drop"], ["drop/a.csv"])
    assert still_open(world) == []


def test_drift_ends_when_the_mapping_is_mended(world: World) -> None:
    line = "a,X,2026-10-01T00:00:00Z,1\n"
    world.load(csv_payloads([HEADER + line], 0))
    with pytest.raises(DriftError):
        world.load(csv_payloads([f"id,symbol,at,what\n{line}"], 1))
    world.reading = CsvReading(CSV.with_columns({"observed_at": ("at",), "price_usd": ("price", "what")}))
    world.parse(["csv_drop"], ["drop/a.csv"])
    assert still_open(world) == []
    assert (count(world, observation), count(world, quarantine)) == (1, 0)

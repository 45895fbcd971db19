"""Delivered lists become rows: in any order, once, and never by an answer that is not believed."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa

from kasparro_pipeline.components.coin_list import CoinList, CoinListParser
from kasparro_pipeline.components.listings import BY_COIN, ListingLoad
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.io_managers.postgres import _merge_all
from kasparro_pipeline.io_managers.raw_payload import Deliveries, _keep
from kasparro_pipeline.sources.records import Checkpoint, Payload
from kasparro_pipeline.warehouse.merge import Merge
from kasparro_pipeline.warehouse.retention import prune_payloads
from kasparro_pipeline.warehouse.tables import coin_contract, coin_listing, delivery, quarantine, touched_day
from kasparro_tests.components.world import World, minute

LIST = CoinList.resolve_from_dict(
    {
        "endpoint": "/coins",
        "refresh": "0 0 * * *",
        "contracts": {"endpoint": "/contracts/{platform}", "platforms": ["eth-ethereum"]},
    }
)
Account = tuple[int, int, int, int, int]


def keep(world: World, records: list[Any], number: int, of: str = "/coins") -> None:
    at = minute(number)
    url, position = f"https://vendor.test/v1{of}", int(of != "/coins")
    body = json.dumps(records).encode()
    payload = Payload("vendor_list", "2026-11-01", position, at, body, url, 1, Checkpoint({}, True))
    with world.engine.begin() as connection:
        _keep(connection, [payload], "fetched")


def parse(world: World, told: CoinList = LIST) -> None:
    deliveries = Deliveries(world.engine, "vendor_list", ["2026-11-01"])
    run = SourceRun(lambda: world.engine, "run", "vendor_list/coins", "p", frozenset(["vendor_list"]))
    load = ListingLoad(deliveries, CoinListParser(told, deliveries), run, "vendor", 33).load()
    with world.engine.begin() as connection:
        _merge_all(connection, Merge(connection, coin_listing, group_by=BY_COIN), load)
    for row in accounts(world).values():
        assert row[0] == sum(row[1:]), row


def accounts(world: World) -> dict[tuple[datetime, int], Account]:
    d = delivery.c
    query = sa.select(d.fetched_at, d.position, d.records, d.inserted, d.updated, d.unchanged, d.quarantined)
    return {(row[0], row[1]): tuple(row[2:]) for row in world.rows(query)}


def account(world: World, number: int, position: int = 0) -> Account:
    return accounts(world)[minute(number), position]


def listed(world: World) -> dict[str, tuple[Any, ...]]:
    c = coin_listing.c
    rows = world.rows(sa.select(c.source_coin_id, c.name, c.listed, c.first_listed_at, c.unlisted_at))
    return {row[0]: tuple(row[1:]) for row in rows}


def addresses(world: World) -> dict[str, bool]:
    return {f"{r.source_coin_id} {r.chain} {r.address}": r.listed for r in world.rows(sa.select(coin_contract))}


def coin(key: str, **more: Any) -> dict[str, Any]:
    return {"id": key, "symbol": key[0], "name": key.title(), **more}


def test_a_coin_is_renamed_leaves_the_list_and_comes_back(world: World) -> None:
    keep(world, [coin("a"), coin("b"), coin("c"), coin("d")], 0)
    parse(world)
    keep(world, [coin("a", name="Other"), coin("b", is_active=False), coin("d")], 1)
    parse(world)
    assert listed(world) == {
        "a": ("Other", True, minute(0), None),
        "b": ("B", False, minute(0), minute(1)),
        "c": ("C", False, minute(0), minute(1)),
        "d": ("D", True, minute(0), None),
    }
    keep(world, [coin("a", name="Other"), coin("b", is_active=False), coin("c"), coin("d")], 2)
    parse(world)
    assert listed(world)["b"] == ("B", False, minute(0), minute(1))
    assert listed(world)["c"] == ("C", True, minute(0), None)
    assert [account(world, number) for number in range(3)] == [(4, 4, 0, 0, 0), (3, 0, 2, 1, 0), (4, 0, 1, 3, 0)]


def test_contracts_within_a_list_count_with_their_coin(world: World) -> None:
    keep(world, [coin("a", platforms={"ethereum": "0xA"}), coin("b", platforms={})], 0)
    parse(world)
    keep(world, [coin("a", platforms={"ethereum": "0xB"}), coin("b", platforms={"solana": "So1"})], 1)
    parse(world)
    assert [account(world, number) for number in range(2)] == [(2, 2, 0, 0, 0), (2, 0, 2, 0, 0)]
    # 0xA is all that was listed, and a list that lacks all is not believed in that
    assert addresses(world) == {"a ethereum 0xa": True, "a ethereum 0xb": True, "b solana So1": True}


def test_a_platforms_contracts_are_merged_apart(world: World) -> None:
    keep(world, [coin("a"), coin("b")], 0)
    rows = [{"id": name, "address": f"0x{name}"} for name in "aabbcd"]
    keep(world, rows, 0, "/contracts/eth-ethereum")
    parse(world)
    assert account(world, 0, 1) == (6, 4, 0, 2, 0)
    keep(world, [coin("a"), coin("b")], 1)
    keep(world, [*rows[2:], {"id": "a", "address": "0xf"}, {"address": "0xf"}], 1, "/contracts/eth-ethereum")
    parse(world)
    ended, held = {"a ethereum 0xa": False}, ("a ethereum 0xf", "b ethereum 0xb", "c ethereum 0xc", "d ethereum 0xd")
    assert addresses(world) == ended | dict.fromkeys(held, True)
    assert account(world, 1, 1) == (6, 1, 0, 4, 1)
    assert account(world, 1) == (2, 0, 0, 2, 0)


def test_of_a_record_in_quarantine_its_coin_is_not_gone(world: World) -> None:
    keep(world, [coin("a"), coin("b"), coin("c"), coin("d")], 0)
    keep(world, [coin("a"), coin("b", name=[]), coin("c"), coin("d")], 1)
    parse(world)
    assert listed(world)["b"] == ("B", True, minute(0), None)
    assert account(world, 1) == (4, 0, 0, 3, 1)
    assert [row.source for row in world.rows(sa.select(quarantine))] == ["vendor_list"]


@pytest.mark.parametrize("later", [[coin("a")], []])
def test_a_list_that_lost_most_coins_is_not_believed_in_what_it_lacks(world: World, later: list[Any]) -> None:
    keep(world, [coin("a"), coin("b"), coin("c")], 0)
    keep(world, later, 1)
    parse(world)
    assert {name for name, row in listed(world).items() if row[1]} == {"a", "b", "c"}


def test_an_older_list_that_is_read_late_changes_nothing(world: World) -> None:
    keep(world, [coin("a", name="New"), coin("b"), coin("c")], 1)
    parse(world)
    before = listed(world)
    keep(world, [coin("a"), coin("b"), coin("c"), coin("old")], 0)
    parse(world)
    assert listed(world) == before
    assert account(world, 0) == (4, 0, 0, 4, 0)


def test_known_bytes_are_not_parsed_again_and_touch_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        keep(world, [coin("a"), coin("b"), {"id": None}], number)
    parse(world)  # two in one run
    assert [account(world, number) for number in range(2)] == [(3, 2, 0, 0, 1), (3, 0, 0, 2, 1)]
    touched = world.rows(sa.select(touched_day.c.day))
    assert touched == [(datetime.now(UTC).date(),)]
    keep(world, [coin("a"), coin("b"), {"id": None}], 2)
    with monkeypatch.context() as patch:
        patch.setattr(CoinListParser, "parse", None)
        parse(world)
    assert account(world, 2) == (3, 0, 0, 2, 1)
    assert world.rows(sa.select(touched_day.c.day)) == touched


def test_another_parser_reads_what_is_kept_again(world: World) -> None:
    keep(world, [coin("a", title="Alpha"), coin("b", title="Beta")], 0)
    keep(world, [coin("a", title="Alpha"), coin("b", title="Best")], 1)
    parse(world)
    by_title = CoinList.resolve_from_dict({"endpoint": "/coins", "refresh": "0 0 * * *", "columns": {"name": "title"}})
    parse(world, by_title)
    assert {name: row[0] for name, row in listed(world).items()} == {"a": "Alpha", "b": "Best"}
    assert [account(world, number) for number in range(2)] == [(2, 0, 0, 2, 0), (2, 0, 2, 0, 0)]


def test_of_old_lists_only_those_are_forgotten_that_said_nothing_new(world: World) -> None:
    all_there = [coin("a", platforms={"ethereum": "0xA"}), coin("b"), coin("c")]
    same = [{**row, "rank": 1} for row in all_there]
    days = [144 * day for day in range(6)]
    gone = [row for row in same if row["id"] != "b"]
    for number, records in zip(
        days, [all_there, same, gone, [{**row, "rank": 2} for row in gone], gone, same], strict=True
    ):
        keep(world, records, number)
        parse(world)
    before, contracts = listed(world), addresses(world)
    stored = world.rows(sa.select(sa.func.count()).select_from(delivery))
    assert prune_payloads(world.engine, minute(days[-1])) == 1  # the fourth; the third's bytes came once more
    assert world.rows(sa.select(sa.func.count()).select_from(delivery)) < stored
    assert (listed(world), addresses(world)) == (before, contracts)
    with world.engine.begin() as connection:
        connection.execute(sa.update(delivery).values(parser_version=None))
    parse(world)
    assert (listed(world), addresses(world)) == (before, contracts)

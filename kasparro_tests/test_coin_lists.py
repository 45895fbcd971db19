"""Vendors' lists that fail, that are as they were, that there are not: what becomes of them and of the snapshots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial

import pytest
import sqlalchemy as sa

from kasparro_pipeline.components import api_source
from kasparro_pipeline.load import Loader
from kasparro_pipeline.simulator import coinpaprika
from kasparro_pipeline.sources.http import RequestPolicy
from kasparro_pipeline.warehouse.tables import (
    checkpoint,
    coin_contract,
    coin_listing,
    delivery,
    raw_payload,
    unified_assets,
)
from kasparro_tests.sources.vendor import Reply, Vendor, running_vendor
from kasparro_tests.test_api_source import NOT_ASKED, REPLAY, definitions, markets, replaying, run_job
from kasparro_tests.test_load import REALDATA, Environment, kasparro, simulator

__all__ = ["definitions", "simulator"]  # fixtures
FAILURES = {
    "401": Reply(b'{"status":{"error_code":10002,"error_message":"API Key Missing"}}', 401),
    "500": Reply(b"oops", 500),
    "gave no complete answer": Reply(b'[{"id": "coin-1"}, {"id": "co', sent=20),
    "not complete JSON": Reply(b'[{"id": "coin-1"}, {"id": "co'),
    "answered without a record": Reply(b"[]"),
    "404": Reply(b"{}", 404),
}


def coin_list(*ids: int, **headers: str) -> Reply:
    records = [{"id": f"coin-{n}", "symbol": f"c{n}", "name": f"Coin {n}", "platforms": {}} for n in ids]
    return Reply(json.dumps(records).encode(), headers=headers)


@pytest.fixture
def gecko(server, template, tmp_path, monkeypatch) -> Iterator[tuple[Environment, Vendor]]:
    """CoinGecko, answered as told; its tries do not wait."""
    hasty = partial(RequestPolicy, attempts=2, wait_initial=0, wait_max=0, wait_jitter=0)
    monkeypatch.setattr(api_source, "RequestPolicy", hasty)
    with running_vendor(Reply()) as vendor, kasparro(server, template, tmp_path, vendor.url, NOT_ASKED) as env:
        yield env, vendor


def test_a_list_that_fails_leaves_the_snapshot_and_the_last_list(gecko, definitions) -> None:
    env, vendor = gecko
    vendor.replies[:] = [coin_list(1, 2, 3, 4)]
    assert run_job(definitions, "coingecko_list") is None
    listings = env.rows(sa.select(coin_listing))
    assert [row.source_coin_id for row in listings] == [f"coin-{n}" for n in range(1, 5)]
    for said, reply in FAILURES.items():
        vendor.replies[:] = [reply]
        error = run_job(definitions, "coingecko_list") or ""
        assert "coingecko_list: GET http://127.0.0.1:" in error
        assert said in error
    with env.engine.begin() as connection:  # today's is not there yet
        connection.execute(sa.delete(checkpoint).where(checkpoint.c.source == "coingecko_list"))
    vendor.replies[:] = [markets(1, 2, 3, 5), coin_list(1)]
    report = Loader().load(["coingecko"])
    of_source = {source.source: source for source in report.sources}
    assert report.failed
    assert (of_source["coingecko"].error, of_source["coingecko"].inserted) == (None, 4)
    assert "lack 3 of the 4 coins" in (of_source["coingecko_list"].error or "")
    assert (of_source["coingecko_list"].records, of_source["coingecko_list"].unchanged) == (1, 1)
    assert env.rows(sa.select(coin_listing)) == listings
    unified = sa.select(sa.func.count()).where(unified_assets.c.day == env.today)
    assert env.rows(unified) == [(4,)]


def test_a_list_that_is_as_it_was_is_a_delivery_and_nothing_else(gecko, definitions) -> None:
    env, vendor = gecko
    vendor.replies[:] = [Reply(b'{"error":"not found"}', 404)]
    assert run_job(definitions, "coingecko_list") is None  # a vendor that never had a list
    assert env.count(delivery) == 0
    vendor.replies[:] = [coin_list(1, 2, 3, 4, ETag='"v1"')]
    assert run_job(definitions, "coingecko_list") is None
    vendor.replies[:] = [Reply(b"", 304)]
    assert run_job(definitions, "coingecko_list") is None
    assert vendor.headers[-1]["If-None-Match"] == '"v1"'
    counts = sa.select(delivery.c.records, delivery.c.inserted, delivery.c.unchanged).order_by(delivery.c.fetched_at)
    assert env.rows(counts) == [(4, 4, 0), (4, 0, 4)]
    assert env.count(raw_payload) == 1


def test_a_platform_that_the_vendor_does_not_know_is_passed_over(  # noqa: PLR0917
    server, template, simulator, tmp_path, definitions, monkeypatch
) -> None:
    monkeypatch.setattr(coinpaprika, "_PLATFORMS", {"eth-ethereum": ("ethereum", "ERC20")})
    with kasparro(server, template, tmp_path, NOT_ASKED, f"{simulator}/v1") as env:
        assert run_job(definitions, "coinpaprika_list") is None
        assert {row.chain for row in env.rows(sa.select(coin_contract))} == {"ethereum"}
        done = sa.select(checkpoint.c.complete).where(checkpoint.c.source == "coinpaprika_list")
        assert env.rows(done) == [(True,)]


@pytest.mark.realdata
@pytest.mark.skipif(not REPLAY.is_file(), reason="KASPARRO_REALDATA names no folder with a replay server beside it")
def test_recorded_lists_are_kept_and_read_to_the_last_record(server, template, tmp_path, definitions) -> None:
    lists = {"coingecko": "list/2025-03-31_17142_coins.json", "coinpaprika": "coins_2021-08-12_7250.json"}
    files = {vendor: REALDATA / vendor / name for vendor, name in lists.items()}
    options = ("--coins-list", files["coingecko"], "--coins", files["coinpaprika"])
    with replaying(*options) as url, kasparro(server, template, tmp_path, f"{url}/api/v3", f"{url}/v1") as env:
        for inserted, unchanged in ((1, 0), (0, 1)):
            for vendor, records in (("coingecko", 17142), ("coinpaprika", 7250)):
                assert run_job(definitions, f"{vendor}_list") is None
                counts = sa.select(delivery.c.records, delivery.c.inserted, delivery.c.unchanged)
                newest = counts.where(delivery.c.source == f"{vendor}_list").order_by(delivery.c.fetched_at.desc())
                assert env.rows(newest.limit(1)) == [(records, inserted * records, unchanged * records)]
        assert env.count(coin_listing) == 17142 + 7250
        assert env.count(raw_payload) == 2
        listed = sa.select(sa.func.count()).where(coin_listing.c.source == "coinpaprika", coin_listing.c.listed)
        active = sum(record["is_active"] for record in json.loads(files["coinpaprika"].read_bytes()))
        assert env.rows(listed) == [(active,)]

"""API sources from end to end: histories, kills, budgets, lost coins, versions of answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import dagster as dg
import httpx
import pytest
import sqlalchemy as sa

from kasparro_pipeline.components.source_run import KILLED
from kasparro_pipeline.definitions import defs
from kasparro_pipeline.load import QUIET, Loader, _first_error
from kasparro_pipeline.ranges import range_tags
from kasparro_pipeline.simulator.app import create_app
from kasparro_pipeline.warehouse.tables import (
    checkpoint,
    delivery,
    last_sweep,
    observation,
    source_run,
    unified_assets,
    vendor_call,
)
from kasparro_tests.sources.vendor import Reply, Vendor, running_vendor
from kasparro_tests.test_load import REALDATA, Environment, assert_accounts_add_up, kasparro, running

REPLAY = REALDATA.parent / "tools" / "vendor_replay.py"
NOT_ASKED = "http://127.0.0.1:1"
LONG_AGO = datetime(2026, 1, 1, 12, tzinfo=UTC)


def markets(*ids: int, **headers: str) -> Reply:
    """A page of CoinGecko's with these coins."""
    records = [
        {"id": f"coin-{number}", "symbol": f"c{number}", "name": f"Coin {number}", "current_price": number}
        | {"last_updated": f"{datetime.now(UTC):%Y-%m-%dT00:00:00.000Z}"}
        for number in ids
    ]
    return Reply(json.dumps(records).encode(), headers=headers)


@pytest.fixture
def loading(server: sa.URL, template: sa.URL, tmp_path: Path) -> Iterator[Callable[..., Environment]]:
    """A database of its own, and CoinGecko answered as told."""

    @contextmanager
    def running_load(*replies: Reply) -> Iterator[tuple[Environment, Vendor]]:
        with running_vendor(*replies) as vendor, kasparro(server, template, tmp_path, vendor.url, NOT_ASKED) as env:
            yield env, vendor

    return running_load


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return defs()


def run_job(definitions: dg.Definitions, source: str, day: date | None = None) -> str | None:
    """Run a source's job for a day, by default today; the error it ended with."""
    key = (day or datetime.now(UTC).date()).isoformat()
    result = definitions.resolve_job_def(source).execute_in_process(
        instance=dg.DagsterInstance.get(), run_config=QUIET, tags=range_tags(key, key), raise_on_error=False
    )
    return None if result.success else _first_error(result)


@pytest.fixture
def load(definitions: dg.Definitions) -> Callable[..., str | None]:
    """Runs CoinGecko's job."""
    return partial(run_job, definitions, "coingecko")


def sums(env: Environment) -> tuple[int, ...]:
    """Inserted, updated and unchanged records of all deliveries so far."""
    columns = (delivery.c.inserted, delivery.c.updated, delivery.c.unchanged)
    return tuple(map(int, env.rows(sa.select(*map(sa.func.sum, columns)))[0]))


def test_past_days_are_filled_from_the_vendors_histories(server, template, tmp_path, monkeypatch) -> None:
    now = datetime.now(UTC)
    with running(create_app(clock=lambda: now, rate_per_minute=100_000)) as url:
        monkeypatch.setenv("KASPARRO_SIMULATOR_PORT", url.rpartition(":")[2])
        with kasparro(server, template, tmp_path, "", "") as env:
            vendors = ["coingecko", "coinpaprika"]
            Loader().load(vendors)
            first = env.today - timedelta(days=40)
            report = Loader().load(vendors, first, first + timedelta(days=2))
            assert not report.failed, report
            assert report.days_unified == 3

            histories = env.rows(sa.select(delivery).where(delivery.c.source_coin_id.is_not(None)))
            assert {row.partition for row in histories} == {first.isoformat()}
            assert len(histories) == len({(row.source, row.source_coin_id) for row in histories}) == 20
            assert {row.records for row in histories if row.source == "coingecko"} == {72}  # hourly
            assert {row.records for row in histories if row.source == "coinpaprika"} == {3}  # daily
            assert_accounts_add_up(env)
            done = sa.select(checkpoint.c.complete).where(checkpoint.c.partition == first.isoformat())
            assert [row.complete for row in env.rows(done)] == [True, True]

            request = next(row.request for row in histories if row.source_coin_id == "dogecoin")
            stored = env.rows(
                sa.select(observation)
                .where(observation.c.source_coin_id == "dogecoin", observation.c.observed_at < env.today)
                .order_by(observation.c.observed_at)
            )
            said = json.loads(httpx.get(request).content, parse_float=Decimal, parse_int=Decimal)
            assert [row.price_usd for row in stored] == [value for _, value in said["prices"]]
            assert [row.market_cap_usd for row in stored] == [value for _, value in said["market_caps"]]
            assert [1000 * int(row.observed_at.timestamp()) for row in stored] == [at for at, _ in said["prices"]]
            assert {(row.symbol, row.name) for row in stored} == {("doge", "Dogecoin")}

            days = sa.select(unified_assets).where(
                unified_assets.c.coin_id == "dogecoin", unified_assets.c.day < env.today
            )
            unified = env.rows(days.order_by(unified_assets.c.day))
            assert [row.day for row in unified] == [first + timedelta(days=back) for back in range(3)]
            assert {(row.name, row.source_count) for row in unified} == {("Dogecoin", 2)}
            assert unified[0].price_usd == stored[23].price_usd  # the last word of the day

            again = Loader().load(vendors, first, first + timedelta(days=2))
            assert [(s.payloads_new, s.inserted, s.updated) for s in again.sources] == [(0, 0, 0)] * 2
            assert again.days_unified == 0


def test_a_load_that_is_killed_goes_on_at_the_page_it_had_reached(loading, load) -> None:
    full = [range(start, start + 250) for start in (0, 250, 500)]
    hangs = Reply(b"[]", pause=60)
    kasparro_ = Path(sys.executable).with_name("kasparro")
    with loading(markets(*full[0]), markets(*full[1]), hangs, markets(*full[2]), markets(750)) as (env, vendor):
        with subprocess.Popen(
            [kasparro_, "load", "--source", "coingecko"], stdout=subprocess.DEVNULL, start_new_session=True
        ) as process:
            while len(vendor.requests) < 3:
                assert process.poll() is None
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
        assert env.count(delivery) == 2
        assert load() is None
        assert [request["page"] for request in vendor.requests] == ["1", "2", "3", "3", "4"]
        assert env.count(observation) == 751
        assert_accounts_add_up(env)
        assert env.rows(sa.select(vendor_call.c.calls)) == [(5,)]  # the kill lost none
        ended = sa.select(source_run.c.asset_key, source_run.c.status, source_run.c.error).order_by(
            source_run.c.started_at
        )
        assert env.rows(ended) == [
            ("coingecko/raw", "failure", KILLED),
            ("coingecko/raw", "success", None),
            ("coingecko/observations", "success", None),
        ]
        assert len(env.rows(sa.select(last_sweep.c.coins))[0].coins) == 751


def test_an_answer_that_lost_most_coins_fails_and_the_next_one_is_taken(loading, load) -> None:
    with loading(markets(*range(92)), markets(*range(11)), markets(*range(11)), markets(*range(1, 92))) as (
        env,
        vendor,
    ):
        assert load() is None
        assert "lack 81 of the 92 coins there were" in str(load())
        assert env.count(observation) == 92
        assert load() is None  # begun anew, not resumed
        assert [request["page"] for request in vendor.requests] == ["1"] * 5  # read once more for coin-0
        (kept,) = env.rows(sa.select(last_sweep.c.coins))
        assert len(kept.coins) == 91
        event = dg.DagsterInstance.get().get_latest_materialization_event(dg.AssetKey(["coingecko", "raw"]))
        metadata = event.asset_materialization.metadata
        assert (metadata["vanished"].value, metadata["coins"].value) == ("coin-0", 91)
        assert_accounts_add_up(env)


def test_what_has_not_changed_is_delivered_but_not_sent_again(loading, load) -> None:
    with loading(markets(1, 2, ETag='"v1"'), Reply(b"", 304)) as (env, vendor):
        assert load() is None
        assert load() is None
        assert sums(env) == (2, 0, 2)
        assert vendor.headers[1]["If-None-Match"] == '"v1"'
        assert len({row.sha256 for row in env.rows(sa.select(delivery))}) == 1
        assert_accounts_add_up(env)


def test_no_call_is_made_once_the_budget_is_spent(loading, load, definitions) -> None:
    with loading(markets(1)) as (env, vendor):
        today = datetime.now(UTC).date()
        spent = {"source": "coingecko", "day": today, "calls": 9_999, "recent": []}
        with env.engine.begin() as connection:
            connection.execute(sa.insert(vendor_call), [spent])
        assert load() is None
        assert "coingecko: all 10000 calls of this month (UTC) are made; " in str(load())
        assert len(vendor.requests) == 1
        schedule = definitions.resolve_schedule_def("coingecko_refresh")
        with dg.instance_for_test() as instance:
            tick = schedule.evaluate_tick(dg.build_schedule_context(instance, datetime.now(UTC)))
        assert tick.skip_message is not None
        assert "all 10000 calls of this month" in tick.skip_message


def test_a_coin_without_a_history_does_not_stop_the_others(loading, load) -> None:
    answer = b'{"prices":[[1760000000000,1.50]],"market_caps":[[1760000000000,null]],"total_volumes":[]}'
    with loading(Reply(b'{"error":"coin not found"}', 404), Reply(answer)) as (env, vendor):
        day = env.today - timedelta(days=9)
        assert load(day) is None
        assert len(vendor.requests) == 10
        rows = env.rows(sa.select(observation))
        assert len(rows) == 9  # equal bytes, yet each coin its own
        assert {(str(row.price_usd), row.market_cap_usd) for row in rows} == {("1.50", None)}
        assert_accounts_add_up(env)


@contextmanager
def replaying(*more: str | Path) -> Iterator[str]:
    """Recorded answers behind the vendors' paths, by the server that comes with them; `more` are its options."""
    command = [sys.executable, REPLAY, "--port", "0"]
    command += ["--coingecko", REALDATA / "coingecko/markets/2022-08-02_top250.json"]
    command += ["--coinpaprika", REALDATA / "coinpaprika/tickers_2021-08-12_3795.json"]
    with subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


@pytest.mark.realdata
@pytest.mark.skipif(not REPLAY.is_file(), reason="KASPARRO_REALDATA names no folder with a replay server beside it")
@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "retry_after": 1},
        {"kind": "truncate"},
        {"kind": "reset"},
        {"kind": "html"},
        {"kind": "slow", "seconds": 1},
        {"kind": "ok_error"},
    ],
    ids=str,
)
def test_recorded_answers_load_whole_through_faults(server, template, tmp_path, definitions, fault) -> None:
    with replaying() as url, kasparro(server, template, tmp_path, f"{url}/api/v3", f"{url}/v1") as env:
        for source, path, records in (("coingecko", "/coins/markets", 250), ("coinpaprika", "/tickers", 3795)):
            httpx.post(f"{url}/_replay/faults", json={**fault, "path": path, "times": 2})
            assert run_job(definitions, source) is None
            loaded = sa.select(sa.func.count()).where(observation.c.source == source)
            assert env.rows(loaded) == [(records,)]
        log = httpx.get(f"{url}/_replay/log").json()
        assert {entry["path"] for entry in log if entry["fault"]} == {"/api/v3/coins/markets", "/v1/tickers"}
        assert_accounts_add_up(env)


def test_days_on_which_nothing_asked_are_filled_from_the_history(server, template, tmp_path, monkeypatch) -> None:
    now = datetime.now(UTC)
    with running(create_app(clock=lambda: now, rate_per_minute=100_000)) as url:
        monkeypatch.setenv("KASPARRO_SIMULATOR_PORT", url.rpartition(":")[2])
        with kasparro(server, template, tmp_path, "", "") as env:
            assert due(env, "coinpaprika_list") == range_tags(env.today.isoformat(), env.today.isoformat())
            Loader().load(["coinpaprika"])
            assert due(env) == range_tags(env.today.isoformat(), env.today.isoformat())
            with env.engine.begin() as connection:  # asleep since
                slept = sa.update(last_sweep).where(last_sweep.c.source == "coinpaprika")
                connection.execute(slept.values(finished_at=now - timedelta(days=3)))
            missed = env.today - timedelta(days=2)
            assert due(env) == range_tags(missed.isoformat(), env.today.isoformat())

            report = Loader().load(["coinpaprika"])
            assert not report.failed, report
            days = [row.day for row in env.rows(sa.select(unified_assets.c.day).distinct())]
            assert {missed, missed + timedelta(days=1), env.today} <= set(days)
            sweeps = sa.select(sa.func.count()).where(
                delivery.c.source == "coinpaprika", delivery.c.partition == env.today.isoformat()
            )
            assert env.rows(sweeps)[0][0] == 2
            assert due(env) == range_tags(env.today.isoformat(), env.today.isoformat())


def due(env: Environment, source: str = "coinpaprika") -> dict[str, str]:
    """The partitions that a source's schedule asks for now, as tags, at a tick that was missed long ago."""
    schedule = defs().resolve_schedule_def(f"{source}_refresh")
    context = dg.build_schedule_context(
        instance=dg.DagsterInstance.get(), repository_def=defs().get_repository_def(), scheduled_execution_time=LONG_AGO
    )
    (request,) = schedule.evaluate_tick(context).run_requests
    return {name: value for name, value in request.tags.items() if "partition" in name}

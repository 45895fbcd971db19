"""The main job from end to end: vendors over HTTP, files in a folder, a real database, Dagster's own runs."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import sleep
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest
import sqlalchemy as sa
import uvicorn

from kasparro_pipeline import load
from kasparro_pipeline.definitions import defs
from kasparro_pipeline.load import Loader, LoadReport
from kasparro_pipeline.services import environment
from kasparro_pipeline.settings import settings
from kasparro_pipeline.simulator.app import create_app
from kasparro_pipeline.simulator.drops import write_today
from kasparro_pipeline.stack import enter
from kasparro_pipeline.warehouse.database import create_engine, current_engine
from kasparro_pipeline.warehouse.tables import (
    coin_contract,
    coin_identity,
    coin_listing,
    delivery,
    observation,
    quarantine,
    raw_payload,
    unified_assets,
    vendor_call,
)
from kasparro_tests.api.serving import app_on, served
from kasparro_tests.conftest import _new_database
from kasparro_tests.sources.vendor import Reply, running_vendor

REALDATA = Path(os.environ.get("KASPARRO_REALDATA") or "/nonexistent")
VENDORS = ("coingecko", "coinpaprika")
LISTS = tuple(f"{vendor}_list" for vendor in VENDORS)


@dataclass
class Environment:
    engine: sa.Engine
    drop_dir: Path
    today: date

    def rows(self, query: sa.Select) -> list[sa.Row]:
        with self.engine.connect() as connection:
            return list(connection.execute(query))

    def count(self, table: sa.Table) -> int:
        return self.rows(sa.select(sa.func.count()).select_from(table))[0][0]


@contextmanager
def running(app) -> Iterator[str]:
    """`app` behind uvicorn on a free port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@contextmanager
def kasparro(server: sa.URL, template: sa.URL, folder: Path, coingecko: str, coinpaprika: str) -> Iterator[Environment]:
    """This process as one of Kasparro's, with a database, a home and a drop folder of its own."""
    with pytest.MonkeyPatch.context() as patch, _new_database(server, template.database) as url:
        patch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        patch.setenv("KASPARRO_HOME", str(folder / "home"))
        patch.setenv("KASPARRO_DROP_DIR", str(folder / "drops"))
        patch.setenv("KASPARRO_COINGECKO_URL", coingecko)
        patch.setenv("KASPARRO_COINPAPRIKA_URL", coinpaprika)
        (folder / "drops").mkdir()
        settings.cache_clear()
        for name, value in environment(settings()).items():
            patch.setenv(name, value)  # what `enter` sets is undone
        enter(settings())
        engine = create_engine(url)
        try:
            yield Environment(engine, folder / "drops", datetime.now(UTC).date())
        finally:
            engine.dispose()
            current_engine().dispose()
    settings.cache_clear()


@pytest.fixture(scope="module")
def simulator() -> Iterator[str]:
    """Both vendors, at a minute that stands still."""
    now = datetime.now(UTC)
    with running(create_app(clock=lambda: now, rate_per_minute=100_000)) as url:
        yield url


@pytest.fixture(scope="module")
def loaded(
    server: sa.URL, template: sa.URL, simulator: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Environment, LoadReport]]:
    """Everything loaded once. The tests that use it leave it as it is, or add files of their own."""
    folder = tmp_path_factory.mktemp("loaded")
    with kasparro(server, template, folder, f"{simulator}/api/v3", f"{simulator}/v1") as environment_:
        write_today(environment_.drop_dir)
        yield environment_, Loader().load()


def assert_accounts_add_up(environment_: Environment) -> None:
    rows = environment_.rows(sa.select(delivery))
    assert rows
    for row in rows:
        assert row.parser_version is not None, row.request
        assert row.records == row.inserted + row.updated + row.unchanged + row.quarantined, row.request
    inserted = sum(row.inserted for row in rows if row.source not in LISTS)
    assert environment_.count(observation) == inserted


def assert_changes_nothing(environment_: Environment) -> None:
    before = environment_.count(observation), environment_.count(quarantine)
    payloads = environment_.count(raw_payload)
    report = Loader().load()
    assert not report.failed, report
    assert report.days_unified == 0
    assert [(s.inserted, s.updated, s.payloads_new) for s in report.sources] == [(0, 0, 0)] * len(report.sources)
    assert (environment_.count(observation), environment_.count(quarantine)) == before
    assert environment_.count(raw_payload) == payloads


def test_everything_is_loaded(loaded) -> None:
    _, report = loaded
    assert not report.failed, report
    assert {source.source for source in report.sources} == {*VENDORS, *LISTS, "csv_sample_exchange"}
    assert all(s.records and s.inserted == s.records - s.quarantined - s.unchanged for s in report.sources)
    assert report.days_unified >= 1


def test_every_record_is_accounted_for(loaded) -> None:
    assert_accounts_add_up(loaded[0])


def test_bitcoin_is_one_coin_of_three_sources_with_coingeckos_price(loaded) -> None:
    environment_, _ = loaded
    unified = sa.select(unified_assets).where(
        unified_assets.c.coin_id == "bitcoin", unified_assets.c.day == environment_.today
    )
    (row,) = environment_.rows(unified)
    (said,) = environment_.rows(
        sa.select(observation).where(
            observation.c.source == "coingecko",
            observation.c.source_coin_id == "bitcoin",
            observation.c.observed_at >= datetime.combine(environment_.today, time.min, UTC),
        )
    )
    assert (row.symbol.upper(), row.source_count, row.price_source) == ("BTC", 3, "coingecko")
    assert row.sources == ["coingecko", "coinpaprika", "csv_sample_exchange"]
    assert str(row.price_usd) == str(said.price_usd)  # digit for digit: no scale, no rounding
    assert row.observed_at == said.observed_at


def test_the_second_load_changes_nothing(loaded) -> None:
    assert_changes_nothing(loaded[0])


def method_of(env: Environment, source: str, key: str) -> tuple[str, str, str]:
    c = coin_identity.c
    query = sa.select(c.coin_id, c.method, c.evidence).where(c.source == source, c.source_coin_id == key)
    return tuple(env.rows(query)[0])


def test_what_the_vendors_call_otherwise_is_one_coin_by_its_contract(loaded) -> None:
    env, report = loaded
    assert not report.failed, report
    coin_id, method, evidence = method_of(env, "coinpaprika", "qnt-quant")
    assert (coin_id, method) == ("quant-network", "contract")
    assert "0x4a220e6096b25eadb88358cb44068a3248254675 on ethereum" in evidence
    row = sa.select(unified_assets.c.source_count).where(
        unified_assets.c.coin_id == "quant-network", unified_assets.c.day == env.today
    )
    assert env.rows(row) == [(2,)]


def test_what_stands_for_a_coin_elsewhere_stays_a_coin_of_its_own(loaded) -> None:
    env, _ = loaded
    assert method_of(env, "coinpaprika", "weth-weth")[:2] == ("weth", "contract")
    assert method_of(env, "coingecko", "binance-peg-weth")[:2] == ("binance-peg-weth", "own")
    assert method_of(env, "coingecko", "wrapped-bitcoin")[0] != method_of(env, "coingecko", "bitcoin")[0]


def test_every_record_of_a_list_is_accounted_for_and_its_bytes_are_kept(loaded) -> None:
    env, report = loaded
    by_source = {source.source: source for source in report.sources}
    kept = env.rows(
        sa.select(delivery.c.source, sa.func.count(), sa.func.sum(delivery.c.records))
        .join(raw_payload, (raw_payload.c.source == delivery.c.source) & (raw_payload.c.sha256 == delivery.c.sha256))
        .where(delivery.c.source.in_(LISTS))
        .group_by(delivery.c.source)
    )
    assert {row[0]: row[1] for row in kept} == {"coingecko_list": 1, "coinpaprika_list": 10}
    assert {row[0]: int(row[2]) for row in kept} == {name: by_source[name].inserted for name in LISTS}
    assert env.count(coin_listing) == 432 + 388  # CoinPaprika's list has a coin that is no longer traded
    coins = sa.select(coin_listing.c.source_coin_id).where(~coin_listing.c.listed)
    assert env.rows(coins) == [("ftt-ftx-token",)]
    assert by_source["coinpaprika_list"].inserted == 388 + len(
        env.rows(sa.select(coin_contract).where(coin_contract.c.source == "coinpaprika"))
    )


def test_a_list_is_due_once_a_day_and_counts_against_its_vendors_budget(loaded) -> None:
    env, _ = loaded
    calls = {row.source: row.calls for row in env.rows(sa.select(vendor_call))}
    assert calls.keys() == {"coingecko", "coinpaprika"}
    assert calls["coinpaprika"] >= 11
    report = Loader().load(["coinpaprika_list"])
    assert report.sources == []
    assert {row.source: row.calls for row in env.rows(sa.select(vendor_call))} == calls


def test_only_listed_coins_are_no_coins(loaded) -> None:
    env, _ = loaded
    delisted = sa.select(coin_identity).where(
        coin_identity.c.source == "coinpaprika", coin_identity.c.source_coin_id == "ftt-ftx-token"
    )
    assert env.rows(delisted) == []


def test_the_lineage_leads_from_the_lists_to_the_coins() -> None:
    graph = defs().resolve_asset_graph()
    parents = {key.to_user_string() for key in graph.get(dg.AssetKey("coins")).parent_keys}
    assert {"coingecko_list/coins", "coinpaprika_list/coins", "coingecko/observations"} <= parents
    assert graph.get(dg.AssetKey(["coingecko_list", "coins"])).parent_keys == {dg.AssetKey(["coingecko_list", "raw"])}


def test_the_api_shows_by_which_evidence(loaded) -> None:
    env, _ = loaded
    with served(app_on(env.engine.url)) as client:
        found = client.get("/coins/quant-network").json()["data"]["identities"]
    (told,) = (row for row in found if row["source"] == "coinpaprika")
    assert told["method"] == "contract"
    assert "the contract address on a chain is equal: 0x4a22" in told["evidence"]


def test_a_past_day_is_never_given_todays_numbers(loaded) -> None:
    environment_, _ = loaded
    before = environment_.count(delivery), environment_.count(raw_payload), environment_.count(observation)
    past = environment_.today - timedelta(days=40)
    with running_vendor(Reply(b'{"error":"not found"}', 404)) as vendor, pytest.MonkeyPatch.context() as patch:
        for source in VENDORS:
            patch.setenv(f"KASPARRO_{source.upper()}_URL", vendor.url)
        report = Loader().load(VENDORS, past, past + timedelta(days=1))
    assert not report.failed, report
    asked = {request["path"].removeprefix("/v1").split("/")[-1] for request in vendor.requests}
    assert asked == {"range", "historical"}  # the history endpoints, and no snapshot
    assert (environment_.count(delivery), environment_.count(raw_payload), environment_.count(observation)) == before


def test_a_load_over_midnight_fetches_the_new_days_snapshot(server, template, simulator, tmp_path) -> None:
    with kasparro(server, template, tmp_path, f"{simulator}/api/v3", f"{simulator}/v1") as environment_:
        days = iter([str(environment_.today - timedelta(days=1))] * 2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(load, "today", lambda: next(days, str(environment_.today)))
            report = Loader().load(["coinpaprika"])
        assert not report.failed, report
        snapshot = sa.select(delivery.c.records).where(
            delivery.c.source == "coinpaprika",
            delivery.c.partition == str(environment_.today),
            delivery.c.source_coin_id.is_(None),
        )
        ((records,),) = environment_.rows(snapshot)
        assert records > 100


def test_bad_files_end_in_quarantine_and_the_others_load(loaded) -> None:
    environment_, _ = loaded
    header, good = "symbol,name,date,price\n", "ZZZ,Good Coin,2026-01-02,1.50\n"
    files = {
        "empty.csv": b"",
        "binary.csv": b"\x89PNG\r\n\0\0\0\x01" * 20,
        "other.csv": b"first,second\n1,2\n",
        "ragged.csv": f"{header}{good}ZZZ,Good Coin,2026-01-03\n".encode(),
        "number.csv": f"{header}{good.replace('-02', '-04')}ZZZ,Good Coin,2026-01-05,twelve\n".encode(),
        "whole.csv": f"{header}{good.replace('-02', '-06')}".encode(),
    }
    folder = environment_.drop_dir / "bad"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    report = Loader().load(["csv_bad"])
    assert not report.failed, report
    found = environment_.rows(sa.select(quarantine).where(quarantine.c.source == "csv_bad"))
    by_file = {Path(row.location.partition(":")[0]).name: row for row in found}
    assert {name: row.reason_code for name, row in by_file.items()} == {
        "empty.csv": "empty_file",
        "binary.csv": "binary_file",
        "other.csv": "no_known_column",
        "ragged.csv": "ragged_row",
        "number.csv": "bad_number",
    }
    assert len(found) == 5
    assert by_file["ragged.csv"].location == "bad/ragged.csv:3"
    assert by_file["number.csv"].location == "bad/number.csv:3"
    assert all(row.location.startswith("bad/") and row.reason for row in found)
    stored = environment_.rows(sa.select(observation.c.observed_at).where(observation.c.source == "csv_bad"))
    assert sorted(f"{row.observed_at:%d}" for row in stored) == ["02", "04", "06"]
    assert_accounts_add_up(environment_)


def test_a_vendor_that_refuses_does_not_stop_the_others(server, template, simulator, tmp_path) -> None:
    refusal = Reply(b"<html>Forbidden</html>", 403, {"Content-Type": "text/html"})
    with (
        running_vendor(refusal) as vendor,
        kasparro(server, template, tmp_path, vendor.url, f"{simulator}/v1") as environment_,
    ):
        write_today(environment_.drop_dir)
        report = Loader().load()
        by_source = {source.source: source for source in report.sources}
        assert report.failed
        assert not report.as_dict()["ok"]
        error = by_source.pop("coingecko").error
        assert error is not None
        assert error.startswith("coingecko: GET http://127.0.0.1:")
        assert "403" in error
        assert "<html>Forbidden" in error
        assert "403" in (by_source.pop("coingecko_list").error or "")
        assert {name for name, s in by_source.items() if s.inserted and s.error is None} == {
            "coinpaprika",
            "coinpaprika_list",
            "csv_sample_exchange",
        }
        unified = sa.select(sa.func.max(unified_assets.c.source_count)).where(
            unified_assets.c.day == environment_.today
        )
        assert environment_.rows(unified)[0][0] == 2
        assert_accounts_add_up(environment_)


@contextmanager
def recorded_vendors() -> Iterator[str]:
    """The recorded answers: CoinGecko's by pages, CoinPaprika's whole."""
    exact = (REALDATA / "coingecko/markets/2022-08-02_top250.json").read_bytes()
    tickers = (REALDATA / "coinpaprika/tickers_2021-08-12_3795.json").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            split = urlsplit(self.path)
            page = int(parse_qs(split.query).get("page", ["1"])[0])
            body = tickers if split.path == "/v1/tickers" else exact if page == 1 else b"[]"
            self.send_response(200 if split.path in {"/v1/tickers", "/api/v3/coins/markets"} else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="KASPARRO_REALDATA names no folder")
def test_recorded_answers_and_real_files(server, template, tmp_path) -> None:
    with (
        recorded_vendors() as url,
        kasparro(server, template, tmp_path, f"{url}/api/v3", f"{url}/v1") as environment_,
    ):
        for folder in ("kaggle_cmc", "cryptodatadownload"):
            shutil.copytree(REALDATA / "csv" / folder, environment_.drop_dir / folder)
        report = Loader().load()
        assert not report.failed, report
        records = {source.source: source.records for source in report.sources}
        assert (records["coingecko"], records["coinpaprika"]) == (250, 3795)
        assert records["csv_kaggle_cmc"] > 0
        assert records["csv_cryptodatadownload"] > 0
        assert_accounts_add_up(environment_)
        assert_changes_nothing(environment_)


def test_a_lost_database_is_told_in_one_line(database) -> None:
    @dg.op
    def loses_it() -> None:
        with create_engine(database).connect() as connection:
            connection.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    @dg.job
    def job() -> None:
        loses_it()

    told = load._first_error(job.execute_in_process(raise_on_error=False))
    assert told.startswith("PostgreSQL could not be asked (psycopg.")
    assert told.endswith("; what was committed stays, load again once it answers")

"""From a vendor's changed answer, or a file nobody can read, to a mended mapping: through Dagster, without a fetch."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import dagster as dg
import pytest
import sqlalchemy as sa

from kasparro_pipeline.cli import main
from kasparro_pipeline.load import Loader
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.tables import delivery, observation, quarantine, unified_assets
from kasparro_tests.sources.vendor import Reply, running_vendor
from kasparro_tests.test_load import Environment, kasparro


def answer(price: str, minute: int, **more: object) -> Reply:
    coin = {"symbol": "x", "name": "X", "last_updated": f"2026-01-01T00:{minute:02}:00Z", **more}
    return Reply(json.dumps([{"id": f"coin-{i}", price: i + 1, **coin} for i in range(3)]).encode())


@pytest.fixture
def home(server: sa.URL, template: sa.URL, tmp_path) -> Iterator[tuple[Environment, list[Reply]]]:
    """Kasparro with a vendor that answers what is put into the list."""
    with running_vendor(Reply()) as vendor, kasparro(server, template, tmp_path, vendor.url, vendor.url) as found:
        yield found, vendor.replies


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["kasparro", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    return exit_.value.code


def last_check(source: str) -> dg.AssetCheckEvaluation:
    key = dg.AssetCheckKey(dg.AssetKey([source, "observations"]), "drift")
    record = dg.DagsterInstance.get().event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert record.event is not None
    evaluation = record.event.dagster_event.event_specific_data
    assert isinstance(evaluation, dg.AssetCheckEvaluation)
    return evaluation


def test_drift_is_an_asset_check_and_a_mended_mapping_brings_the_answer_in(home) -> None:
    environment_, replies = home
    loader = Loader()
    replies[:] = [answer("current_price", 1, total_volume=7)]
    assert not loader.load(["coingecko"]).failed
    assert last_check("coingecko").passed

    replies[:] = [answer("current_price", 2)]
    assert not loader.load(["coingecko"]).failed
    warned = last_check("coingecko")
    assert (warned.passed, warned.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert warned.metadata["fields"].value == ["missing total_volume"]

    replies[:] = [answer("price_now", 3)]
    report = loader.load(["coingecko"])
    assert report.failed
    told = {source.source: source.error for source in report.sources}["coingecko"]
    assert told is not None
    assert "the key field 'current_price' (price_usd) is in none of the records" in told
    failed = last_check("coingecko")
    assert (failed.passed, failed.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert environment_.count(observation) == 6

    mended = Loader()
    mended._api["coingecko"].columns["price_usd"] = "price_now"
    replies[:] = [Reply(status=403)]
    report = mended.retry("coingecko")
    assert not report.failed, report
    assert environment_.count(observation) == 9
    assert environment_.count(quarantine) == 0  # answers that were read well before are left alone


def test_a_mended_mapping_brings_a_file_out_of_quarantine(home, monkeypatch, capsys) -> None:
    environment_, _ = home
    folder = environment_.drop_dir / "desk"
    folder.mkdir()
    (folder / "a.csv").write_text("symbol,name,date,cost\nZZZ,Good Coin,2026-01-02,1.50\nZZZ,Good Coin,2026-01-03,2\n")
    bad = b"symbol,name,date,price\nAAA,\x1b[31mRed\xff,2026-01-02,one\nBBB,B,2026-01-02,twelve\n"
    (folder / "b.csv").write_bytes(bad)
    loader = Loader()
    loader.load(["csv_desk"])
    assert environment_.count(observation) == 0
    assert environment_.count(quarantine) >= 2

    assert run(monkeypatch, "quarantine", "list", "--source", "csv_desk") == 0
    shown = capsys.readouterr().out
    assert "\x1b[31m" not in shown
    assert "desk/a.csv" in shown
    assert run(monkeypatch, "quarantine", "list", "--reason", "no_known_column", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["source"], told["location"], told["position"]) == ("csv_desk", "desk/a.csv", 0)

    for path in folder.iterdir():
        path.unlink()  # what was kept is enough
    loader._files["csv_drops"].columns["price_usd"].append("cost")
    report = loader.retry("csv_desk", "no_known_column")
    assert not report.failed, report
    assert (report.resolved, report.days_unified) == (1, 2)
    prices = environment_.rows(sa.select(unified_assets.c.price_usd).order_by(unified_assets.c.day))
    assert [str(price) for (price,) in prices] == ["1.50", "2"]
    for row in environment_.rows(sa.select(delivery).where(delivery.c.records.is_not(None))):
        assert row.records == row.inserted + row.updated + row.unchanged + row.quarantined
    assert settings().drop_dir == environment_.drop_dir

"""Identity held against known pairs, on the command line."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kasparro_pipeline.cli import main

REALDATA = Path(os.environ.get("KASPARRO_REALDATA") or "/nonexistent")
KNOWN = ("komodo_union", "eth_contract_join")

COINGECKO = [
    {"id": "bitcoin", "symbol": "btc", "name": "Bitcoin"},
    {"id": "twin", "symbol": "twn", "name": "Twin", "platforms": {"ethereum": "0xA"}},
    {"id": "nova", "symbol": "nva", "name": "Nova", "platforms": {"ethereum": "0xC"}},
    {"id": "stella", "symbol": "alpha", "name": "Stella"},
    {"id": "alone", "symbol": "aln", "name": "Alone"},
]
COINPAPRIKA = [
    {"id": "btc-bitcoin", "symbol": "BTC", "name": "Bitcoin"},
    {"id": "twn-twin", "symbol": "TWN", "name": "Twin"},
    {"id": "twb-other", "symbol": "TWB", "name": "Other Words"},
    {"id": "nva-supernova", "symbol": "NVA", "name": "Supernova"},
    {"id": "alpha-old", "symbol": "ALPHA", "name": "Old Words"},
]
TRUTH = """coingecko_id,coinpaprika_id,ambiguous
bitcoin,btc-bitcoin,0
twin,twb-other,
nova,nva-supernova,0
stella,alpha-old,0
alone,btc-bitcoin,1
unlisted,btc-bitcoin,0
"""


def report(folder: Path, *more: str, **files: Any) -> None:
    given = {"coingecko": COINGECKO, "coinpaprika": COINPAPRIKA, **files}
    for name, content in given.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "truth.csv").write_text(TRUTH)
    arguments = [word for name in ("coingecko", "coinpaprika") for word in (f"--{name}", str(folder / f"{name}.json"))]
    run_report(*arguments, "--truth", str(folder / "truth.csv"), *more)


def run_report(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
        patch.setattr(sys, "argv", ["kasparro", "identity", "report", *arguments, "--json"])
        main()
    assert exit_.value.code == 0, exit_.value.code


def test_what_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(tmp_path)
    told = json.loads(capsys.readouterr().out)["words"]
    assert (told["known"], told["joined"], told["right"], told["decided"]) == (4, 2, 1, 2)
    assert (told["precision"], told["recall"]) == (0.5, 0.25)
    (wrong,) = told["wrong"]
    assert (wrong["coingecko"]["id"], wrong["coinpaprika"]["id"]) == ("twin", "twn-twin")
    assert [pair["coinpaprika"]["id"] for pair in wrong["known"]] == ["twb-other"]
    missed = {pair["coingecko"]["id"]: pair["open"] for pair in told["missed"]}
    assert missed == {"nova": "symbol", "stella": "symbol", "twin": None}


def test_contracts_and_prices_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day = "2026-11-01T10:00:00Z"
    markets = [{"id": "stella", "current_price": 1.5, "market_cap": 1000, "last_updated": day}]
    tickers = [{"id": "alpha-old", "quotes": {"USD": {"price": 1.51, "market_cap": 1010}}, "last_updated": day}]
    contracts = [
        {"address": "0xa", "id": "twb-other", "type": "ERC20", "active": True},
        {"address": "0xc", "id": "nva-supernova", "type": "ERC20", "active": True},
    ]
    report(
        tmp_path,
        *("--contracts", f"eth-ethereum={tmp_path}/contracts.json"),
        *("--coingecko-markets", f"{tmp_path}/markets.json", "--coinpaprika-tickers", f"{tmp_path}/tickers.json"),
        contracts=contracts,
        markets=markets,
        tickers=tickers,
    )
    told = json.loads(capsys.readouterr().out)
    assert told["words"]["right"] == 1
    assert told["words and evidence"]["right"] == told["words and evidence"]["known"] == 4
    assert told["words and evidence"]["by_method"] == {"contract": 2, "symbol+name+id": 1, "price": 1}


def test_what_is_no_list_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "list.json").write_text('{"error": "rate limit"}')
    file = str(tmp_path / "list.json")
    arguments = ["--coingecko", file, "--coinpaprika", file, "--truth", file]
    monkeypatch.setattr(sys, "argv", ["kasparro", "identity", "report", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == f"error: {file}: not a vendor's list: an array of objects with an id"


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="KASPARRO_REALDATA names no folder")
@pytest.mark.parametrize(("listed", "recall"), [("2022-01-29_12387", 0.95), ("2025-03-31_17142", 0.92)])
def test_real_lists(listed: str, recall: float, capsys: pytest.CaptureFixture[str]) -> None:
    run_report(
        *("--coingecko", str(REALDATA / f"coingecko/list/{listed}_coins.json")),
        *("--coinpaprika", str(REALDATA / "coinpaprika/coins_2021-08-12_7250.json")),
        *(word for name in KNOWN for word in ("--truth", str(REALDATA / f"mapping/groundtruth_{name}_sample.csv"))),
    )
    told = json.loads(capsys.readouterr().out)["words"]
    assert told["known"] > 150
    assert told["precision"] >= 0.99
    assert told["recall"] >= recall

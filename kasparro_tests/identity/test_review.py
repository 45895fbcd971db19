"""Decisions from end to end: files, PostgreSQL, Dagster's own runs, the command line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import sqlalchemy as sa

from kasparro_pipeline.cli import main
from kasparro_pipeline.load import Loader
from kasparro_pipeline.warehouse.tables import (
    coin,
    coin_identity,
    coin_identity_history,
    identity_decision,
    identity_review,
    touched_day,
    unified_assets,
)
from kasparro_tests.test_load import Environment, kasparro

DROPS = {
    "one/a.csv": """symbol,name,date,price
ALPHA,Stella,2026-01-01,1.5
ALPHA,Stella,2026-01-02,1.6
BTC,Bitcoin,2026-01-02,100
BTC,Bitcoin,2026-01-03,110
""",
    "two/b.csv": """symbol,name,date,price
ALPHA,Old Finance,2026-01-01,1.5
ALPHA,Old Finance,2026-01-02,1.7
BTC,Bitcoin,2026-01-03,111
""",
}


@pytest.fixture(scope="module")
def loaded(server: sa.URL, template: sa.URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Two folders' files loaded. The tests leave it as they find it."""
    with kasparro(
        server, template, tmp_path_factory.mktemp("review"), "http://127.0.0.1:9", "http://127.0.0.1:9"
    ) as env:
        for name, content in DROPS.items():
            file = env.drop_dir / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(content)
        assert not Loader().load(["csv_drops"]).failed
        yield env


def run(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["kasparro", "identity", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert exit_.value.code == 0, exit_.value.code


def unified(env: Environment) -> dict[tuple[str, str], list[str]]:
    """Sources by symbol and day, one entry a row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in env.rows(sa.select(unified_assets).order_by(unified_assets.c.sources)):
        rows.setdefault((row.symbol, f"{row.day:%d}"), []).append("+".join(s.removeprefix("csv_") for s in row.sources))
    return rows


def waiting(env: Environment) -> list[sa.Row]:
    return env.rows(sa.select(identity_review))


def decision_numbers(env: Environment) -> list[str]:
    held = identity_decision.c.undone_at.is_(None)
    return [str(row.id) for row in env.rows(sa.select(identity_decision.c.id).where(held))]


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


APART = {
    ("ALPHA", "01"): ["one", "two"],
    ("ALPHA", "02"): ["one", "two"],
    ("BTC", "02"): ["one"],
    ("BTC", "03"): ["one+two"],
}
JOINED = APART | {("ALPHA", "01"): ["one+two"], ("ALPHA", "02"): ["one+two"]}


def test_what_is_plausible_waits_and_is_not_joined(loaded: Environment) -> None:
    assert unified(loaded) == APART
    (pair,) = waiting(loaded)
    assert (pair.source, pair.other_source, pair.reason) == ("csv_one", "csv_two", "symbol")
    assert "they cost 1.6 and 1.7 USD" in pair.evidence


def test_a_merge_by_decision_and_its_undoing(loaded: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    before = {(row.source, row.source_coin_id): row.coin_id for row in loaded.rows(sa.select(coin_identity))}
    btc = sa.select(unified_assets.c.updated_at).where(unified_assets.c.symbol == "BTC")
    untouched = loaded.rows(btc)
    (pair,) = waiting(loaded)

    run("review", "--accept", str(pair.id), "--who", "ann", "--why", "the same contract")
    assert "days unified: 2" in capsys.readouterr().out
    assert unified(loaded) == JOINED
    (row,) = loaded.rows(
        sa.select(unified_assets).where(unified_assets.c.day == date(2026, 1, 2), unified_assets.c.symbol == "ALPHA")
    )
    assert (row.source_count, row.price_source) == (2, "csv_one")
    assert loaded.rows(btc) == untouched
    assert waiting(loaded) == []
    assert loaded.count(touched_day) == 0
    joined = loaded.rows(sa.select(coin_identity).where(coin_identity.c.method == "ruling"))
    assert len({row.coin_id for row in joined}) == 1
    assert all(row.evidence.endswith("ann: the same contract") for row in joined)
    assert loaded.count(coin) == 2

    run("decisions", "--json")
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["ruling"], told["who"], told["why"], told["undone_at"]) == ("same", "ann", "the same contract", None)
    run("undo", str(told["id"]), "--who", "bob")
    assert unified(loaded) == APART
    assert {(row.source, row.source_coin_id): row.coin_id for row in loaded.rows(sa.select(coin_identity))} == before
    assert [row.evidence for row in waiting(loaded)] == [pair.evidence]
    (row,) = loaded.rows(sa.select(identity_decision))
    assert (row.undone_by, row.undone_why) == ("bob", "undone")

    history = loaded.rows(
        sa.select(coin_identity_history)
        .where(coin_identity_history.c.source == "csv_two", coin_identity_history.c.symbol == "ALPHA")
        .order_by(coin_identity_history.c.valid_from)
    )
    assert [row.method for row in history] == ["own", "ruling", "own"]
    assert [row.valid_to for row in history] == [*(row.valid_from for row in history[1:]), None]
    assert history[0].coin_id == history[2].coin_id != history[1].coin_id


def test_a_split_and_its_undoing(loaded: Environment) -> None:
    (bitcoin,) = loaded.rows(
        sa.select(coin_identity).where(coin_identity.c.source == "csv_two", coin_identity.c.method != "own")
    )
    run("review", "--split", f"csv_two:{bitcoin.source_coin_id}")
    assert unified(loaded) == APART | {("BTC", "03"): ["one", "two"]}
    run("undo", *decision_numbers(loaded))
    assert unified(loaded) == APART


def test_a_rejected_pair_does_not_wait_again_and_files_carry_decisions(
    loaded: Environment, tmp_path: Path, capsys
) -> None:
    (pair,) = waiting(loaded)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", Terminal("d\nanother issuer\n"))
        run("review", "--who", "ann")
    assert f"│ {pair.id} " in capsys.readouterr().out
    (decision,) = loaded.rows(sa.select(identity_decision).where(identity_decision.c.undone_at.is_(None)))
    assert (decision.ruling, decision.who, decision.why) == ("different", "ann", "another issuer")
    assert waiting(loaded) == []
    assert unified(loaded) == APART
    file = tmp_path / "identity_overrides.csv"
    run("export", str(file))
    run("import", str(file))
    assert "0 decisions taken, 1 held already" in capsys.readouterr().out
    run("undo", *decision_numbers(loaded))
    assert len(waiting(loaded)) == 1
    run("import", str(file))
    assert "1 decisions taken" in capsys.readouterr().out
    assert waiting(loaded) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["review", "--accept", "99"], "error: nothing waits under number 99"),
        (["review", "--split", "csv_one:nothing"], "error: csv_one:nothing is no coin of any source"),
        (["undo", "99"], "error: 99 is no decision"),
    ],
)
def test_what_cannot_be_is_one_line(loaded: Environment, monkeypatch, arguments: list[str], told: str) -> None:
    monkeypatch.setattr(sys, "argv", ["kasparro", "identity", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert str(exit_.value.code).startswith(told)
    assert "\n" not in str(exit_.value.code)


def test_a_file_that_is_no_decision_is_refused_with_its_line(tmp_path: Path, monkeypatch) -> None:
    file = tmp_path / "bad.csv"
    file.write_text("ruling,source,source_coin_id,other_source,other_source_coin_id,who,why\nperhaps,a,b,c,d,e,f\n")
    monkeypatch.setattr(sys, "argv", ["kasparro", "identity", "import", str(file)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == f"error: {file}:2: ruling 'perhaps' is none of same, different, renamed"

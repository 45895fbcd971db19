import json
import subprocess
import sys
from pathlib import Path

import pytest

from kasparro_pipeline.cli import main
from kasparro_pipeline.settings import settings


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KASPARRO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    settings.cache_clear()
    return tmp_path / "home"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["kasparro", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    return exit_.value.code


def test_status_tells_programs_that_nothing_runs_and_leaves_no_trace(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "status", "--json") == 1
    told = {state["name"]: state["state"] for state in json.loads(capsys.readouterr().out)}
    assert told == dict.fromkeys(["postgres", "simulator", "code", "api", "webserver", "daemon"], "STOPPED")
    assert not home.exists()


def test_down_where_nothing_runs_is_fine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "down") == 0
    assert not home.exists()


def test_a_setting_that_does_not_parse_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KASPARRO_API_PORT", "eight")
    message = run(monkeypatch, "status")
    assert isinstance(message, str)
    assert message.startswith("error: KASPARRO_API_PORT='eight': Input should be a valid integer")
    assert "\n" not in message


def test_logs_of_what_never_ran(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "logs", "api") == (f"error: no log of api in {home}/logs; `kasparro status` lists services")


def test_logs_shows_the_last_lines_of_one_service(home: Path) -> None:
    (home / "logs").mkdir(parents=True)
    (home / "logs" / "api.log").write_text("first\nsecond\nthird\n")
    (home / "logs" / "daemon.log").write_text("other\n")
    command = [sys.executable, "-c", "from kasparro_pipeline.cli import main; main()", "logs", "api", "-n", "2"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "second\nthird\n"


def test_csv_explain_needs_no_database_and_stores_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("Symbol;Name;Date;Price\nBTC;Bitcoin;31.10.2025;110.064,5\nBTC;Bitcoin;01.11.2025;x\n")
    assert run(monkeypatch, "csv", "explain", str(file), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dialect"]["delimiter"], told["dialect"]["date order"]) == (";", "dmy")
    assert (told["observations"], told["quarantined"]) == (1, {"bad_number": 1})
    assert [(row["source_coin_id"], row["price_usd"]) for row in told["rows"]] == [("btc-bitcoin", "110064.5")]
    assert run(monkeypatch, "csv", "explain", str(file)) == 0
    shown = capsys.readouterr().out
    assert "110064.5" in shown
    assert "prices.csv:3: price_usd: 'x' is no number" in shown
    assert not home.exists()
    assert run(monkeypatch, "csv", "explain", str(tmp_path / "gone.csv")) == (
        f"error: {tmp_path}/gone.csv cannot be read: No such file or directory; check the file and its permissions"
    )


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://root@127.0.0.1/x", "DATABASE_URL starts with mysql://; Kasparro needs PostgreSQL 17 or newer"),
        ("postgresql://127.0.0.1:1/x", "no PostgreSQL answers at 127.0.0.1:1/x"),
    ],
)
def test_exec_needs_a_database(monkeypatch: pytest.MonkeyPatch, url: str, message: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    said = str(run(monkeypatch, "exec", "--", "true"))
    assert said.startswith(f"error: {message}")
    assert "\n" not in said

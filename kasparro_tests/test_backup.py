"""A backup holds everything, and what was restored from it goes on as if nothing had happened."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from kasparro_pipeline.cli import main
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.load import Loader
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.backup import Backup
from kasparro_pipeline.warehouse.binaries import find_client
from kasparro_pipeline.warehouse.database import create_engine, current_engine
from kasparro_pipeline.warehouse.keys import create_key
from kasparro_pipeline.warehouse.tables import merge_receipt, unified_assets
from kasparro_tests.api.serving import app_on, served
from kasparro_tests.conftest import _new_database
from kasparro_tests.test_load import Environment, kasparro

DAYS = [f"2026-11-{day:02}" for day in range(1, 21)]
NOT_KEPT = {merge_receipt.name, "data_version"}


def drop(environment_: Environment, price: str) -> None:
    folder = environment_.drop_dir / "desk"
    folder.mkdir(exist_ok=True)
    rows = "".join(f"ZZZ,Some Coin,{day},{price}\n" for day in DAYS) + "ZZZ,Some Coin,2026-11-02,x\n"
    (folder / "a.csv").write_text(f"symbol,name,date,price\n{rows}")


def load() -> None:
    """Load as a process of its own would: what it held of the database is closed at its end."""
    loader = Loader()
    report = loader.load(["csv_desk"])
    assert not report.failed, report
    loader._instance.event_log_storage._engine.dispose()
    current_engine().dispose()


@pytest.fixture(scope="module")
def place(server: sa.URL, template: sa.URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Loaded; each test may leave it with other data, and closed."""
    nowhere = "http://127.0.0.1:1"
    with kasparro(server, template, tmp_path_factory.mktemp("place"), nowhere, nowhere) as environment_:
        drop(environment_, "1.50")
        load()
        with environment_.engine.begin() as connection:
            create_key(connection, "desk", ["read"])
        environment_.engine.dispose()
        yield environment_


@pytest.fixture(autouse=True)
def _settings_of_this_test() -> None:
    settings.cache_clear()


def rows(engine: sa.Engine) -> dict[str, list[str]]:
    """Every row of every table of both schemas, as text."""
    with engine.connect() as connection:
        tables = [
            f"{schema}.{name}"
            for schema in ("kasparro", "dagster")
            for name in sa.inspect(connection).get_table_names(schema)
            if name not in NOT_KEPT
        ]
        found = {table: connection.scalars(sa.text(f"SELECT t::text FROM {table} t")).all() for table in tables}
    engine.dispose()
    return {table: sorted(texts) for table, texts in found.items()}


def test_what_was_restored_elsewhere_is_equal_and_goes_on(
    place: Environment, server: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "all.dump"
    before = rows(place.engine)
    assert len(before["kasparro.unified_assets"]) == len(DAYS)
    assert before["kasparro.quarantine"]
    assert before["dagster.runs"]
    assert Backup(place.engine.url).write(file) == file.stat().st_size
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".new")] == []
    with _new_database(server, None) as url:
        Backup(url).restore(file)
        engine = create_engine(url)
        assert rows(engine) == before
        monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        settings.cache_clear()
        unified = rows(engine)["kasparro.unified_assets"]
        load()
        assert rows(engine)["kasparro.unified_assets"] == unified
        assert rows(engine)["kasparro.observation"] == before["kasparro.observation"]
        with served(app_on(url)) as client:  # as the role that may only read
            assert len(client.get("/data").json()["data"]) == len(DAYS)


def test_no_answer_of_another_life_is_called_unchanged(place: Environment, tmp_path: Path) -> None:
    """The restored counter goes over the same numbers again, with other data behind them."""
    file = tmp_path / "all.dump"
    backup = Backup(place.engine.url)
    tags: list[str] = []

    def change(number: int) -> None:
        with place.engine.begin() as connection:
            connection.execute(sa.update(unified_assets).values(price_usd=number))
        with served(app_on(place.engine.url)) as client:
            tags.append(client.get("/data").headers["etag"])
        place.engine.dispose()

    change(1)
    backup.write(file)
    change(2)
    change(3)
    backup.restore(file, replace=True)
    with served(app_on(place.engine.url)) as client:
        answer = client.get("/data", headers={"If-None-Match": ", ".join(tags[1:])})
    assert answer.status_code == 200
    assert {row["price_usd"] for row in answer.json()["data"]} == {"1"}
    change(4)
    change(5)
    assert len(set(tags)) == len(tags)


def test_a_database_that_holds_something_is_replaced_on_request_only(place: Environment, tmp_path: Path) -> None:
    file = tmp_path / "all.dump"
    backup = Backup(place.engine.url)
    backup.write(file)
    before = rows(place.engine)
    drop(place, "2.50")
    load()
    after = rows(place.engine)
    assert after != before
    with place.engine.connect(), pytest.raises(KasparroError, match=r"in use \(kasparro.*kasparro down"):
        backup.restore(file, replace=True)
    place.engine.dispose()
    with pytest.raises(KasparroError, match=r"not empty.*--force"):
        backup.restore(file)
    whole = file.read_bytes()
    damaged = tmp_path / "damaged.dump"
    for middle in (b"", bytes(1000) + whole[len(whole) // 3 + 1000 :]):
        damaged.write_bytes(whole[: len(whole) // 3] + middle)
        with pytest.raises(KasparroError, match=r"pg_restore: error|inflate|compressed"):
            backup.restore(damaged, replace=True)
    assert rows(place.engine) == after
    backup.restore(file, replace=True)
    assert rows(place.engine) == before


def test_what_goes_wrong_is_one_line_and_leaves_no_file(
    place: Environment, server: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["kasparro", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        message = str(exit_.value.code)
        assert message.startswith("error: ")
        assert "\n" not in message
        return message

    assert "No such file or directory" in said("backup", str(tmp_path / "gone" / "a.dump"))
    assert "there is no backup" in said("restore", str(tmp_path / "gone.dump"))
    (tmp_path / "text.dump").write_text("no backup")
    assert "pg_restore failed" in said("restore", str(tmp_path / "text.dump"))
    with pytest.raises(KasparroError, match=r"pg_dump here is \d+, the server PostgreSQL 99; .*KASPARRO_POSTGRES_BIN"):
        find_client(99)
    with _new_database(server, None) as url:
        monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
        settings.cache_clear()
        assert "no tables of Kasparro" in said("backup", str(tmp_path / "a.dump"))
    assert not (tmp_path / "a.dump").exists()


def test_a_backup_of_a_newer_kasparro_is_refused(place: Environment, server: sa.URL, tmp_path: Path) -> None:
    with _new_database(server, place.engine.url.database) as url:
        later = create_engine(url)
        with later.begin() as connection:
            connection.exec_driver_sql("UPDATE kasparro.alembic_version SET version_num = 'later'")
        later.dispose()
        Backup(url).write(tmp_path / "later.dump")
    with (
        _new_database(server, None) as url,
        pytest.raises(KasparroError, match=r"newer Kasparro \(migration later\)"),
    ):
        Backup(url).restore(tmp_path / "later.dump")

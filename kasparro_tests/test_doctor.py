"""Each thing that may be wrong is found, and said with what to do."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from kasparro_pipeline import doctor
from kasparro_pipeline.cli import main
from kasparro_pipeline.doctor import Patient, examine
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.ports import free_port
from kasparro_pipeline.settings import Settings, settings
from kasparro_pipeline.warehouse.tables import delivery, failed_check, source_run
from kasparro_tests.sources.vendor import Reply, running_vendor
from kasparro_tests.warehouse.payloads import keep_payloads

NOW = datetime.now(UTC)


@pytest.fixture
def place(database: sa.URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A migrated database, a home, a drop folder, and a vendor that answers."""
    (tmp_path / "drops").mkdir()
    monkeypatch.setenv("KASPARRO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KASPARRO_DROP_DIR", str(tmp_path / "drops"))
    with running_vendor(Reply(status=404)) as vendor:
        for name in ("COINGECKO", "COINPAPRIKA"):
            monkeypatch.setenv(f"KASPARRO_{name}_URL", vendor.url)
        settings.cache_clear()
        yield tmp_path


def patient() -> Patient:
    return Patient(Settings())


def wrong(check: str) -> str:
    """What a check that fails says."""
    with pytest.raises(KasparroError) as found:
        getattr(doctor, f"_{check}")(patient())
    return str(found.value)


def test_a_sound_installation_has_nothing_wrong(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("API", "DAGSTER", "CODE"):
        monkeypatch.setenv(f"KASPARRO_{name}_PORT", str(free_port()))
    settings.cache_clear()
    monkeypatch.setattr(sys, "argv", ["kasparro", "doctor", "--json"])
    with pytest.raises(SystemExit) as exit_:
        main()
    told = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert {name for name, finding in told.items() if finding["ok"] is False} == set(), told
    assert exit_.value.code == 0
    assert len(told) == len(doctor.CHECKS)
    assert told["services"]["ok"] is None
    assert told["database"]["detail"].startswith("PostgreSQL ")
    assert not (place / "home").exists()


def test_without_a_database_the_rest_is_still_looked_at(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/x")
    monkeypatch.setattr(doctor, "CHECKS", tuple(check for check in doctor.CHECKS if check is not doctor._vendors))
    found = {finding.check: finding for finding in examine(Settings())}
    assert "no PostgreSQL answers at 127.0.0.1:1/x" in found["database"].detail
    assert [found[name].ok for name in ("database", "migrations", "quarantine", "disk", "drop folder")] == [
        False,
        None,
        None,
        True,
        True,
    ]
    monkeypatch.delenv("DATABASE_URL")
    assert wrong("database") == "the embedded database does not run; start it: kasparro up"


def test_what_is_wrong_outside_the_database(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KASPARRO_COINPAPRIKA_URL", "http://127.0.0.1:1/v1")
    assert "coinpaprika at http://127.0.0.1:1/v1" in wrong("vendors")
    monkeypatch.setenv("KASPARRO_VENDORS", "live")
    assert wrong("vendor_keys").startswith("KASPARRO_COINGECKO_API_KEY")
    monkeypatch.setenv("KASPARRO_COINGECKO_API_KEY", "k")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("KASPARRO_API_PORT", str(taken.getsockname()[1]))
        assert "for the api is taken" in wrong("ports")
    (place / "home").mkdir()
    (place / "home" / "supervisord.conf").touch()
    assert "api is stopped" in wrong("services")
    monkeypatch.setenv("KASPARRO_API_READ", "key")
    assert "kasparro keys create" in wrong("readers")
    monkeypatch.setenv("KASPARRO_API_KEYS", "secret")
    assert "there are some" in doctor._readers(patient())
    monkeypatch.setenv("KASPARRO_DROP_DIR", str(place / "gone"))
    assert "cannot be read" in wrong("drop_folder")
    monkeypatch.setattr("kasparro_pipeline.warehouse.cluster.MINIMUM_FREE_BYTES", 2**60)
    assert "make room" in wrong("disk")


def a_delivery(**values: Any) -> dict[str, Any]:
    counts = {"records": 10, "inserted": 9, "updated": 0, "unchanged": 0, "quarantined": 1}
    told = {"partition": "p", "position": 0, "fetched_at": NOW, "request": "r", "first_record": 1, "is_last": True}
    return {"source": "s", "sha256": "a", "parser_version": "1", "parsed_at": NOW, **told, **counts, **values}


def test_what_is_wrong_in_the_database(place: Path, engine: sa.Engine) -> None:
    body = {"source": "s", "sha256": "a", "body": b"", "size_bytes": 0, "first_fetched_at": NOW}
    run = {
        "run_id": "r",
        "asset_key": "s/raw",
        "source": "s",
        "partition": "p",
        "status": "failure",
        "error": "HTTP 500",
    }
    failed = {"asset_key": "coins", "check_name": "no_orphan", "blocking": True, "detail": "3 rows"}
    with engine.begin() as connection:
        keep_payloads(connection, [body])
        connection.execute(sa.insert(delivery), a_delivery())
        connection.execute(sa.insert(source_run), run)
        connection.execute(sa.insert(failed_check), {**failed, "severity": "error"})
        connection.exec_driver_sql(
            "CREATE TABLE dagster.runs (run_id text, pipeline_name text, status text, update_timestamp timestamp)"
        )
        connection.exec_driver_sql(
            "INSERT INTO dagster.runs VALUES ('old', 'unify', 'STARTED', now() - interval '1 day')"
        )
        connection.exec_driver_sql(
            "INSERT INTO dagster.runs VALUES ('new', 'unify', 'STARTED', timezone('UTC', now()))"
        )
    assert "s (HTTP 500)" in wrong("sources")
    assert "no_orphan of coins (3 rows)" in wrong("checks")
    assert "1 of 10 of s" in wrong("quarantine")
    assert wrong("runs").startswith("1 runs are under way for more than 6:00:00, such as old of unify (started)")
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE kasparro.alembic_version SET version_num = '0001'")
    assert "the tables are at 0001" in wrong("migrations")


def test_who_is_in_the_way_is_named(place: Path, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "WAITING_AFTER", doctor.timedelta(0))
    assert "none waits" in doctor._sessions(patient())
    url = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, application_name="somebody") as connection:
        connection.execute("SELECT 1")
        assert "somebody (pid" in wrong("sessions")


def test_a_clock_that_is_off_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) - doctor.timedelta(minutes=2)

    assert doctor._clock(patient()) == "as the database's"
    monkeypatch.setattr(doctor, "datetime", Late)
    assert "let both follow NTP" in wrong("clock")

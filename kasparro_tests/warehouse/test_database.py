"""Which databases are taken, tried on real servers."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.ports import free_port
from kasparro_pipeline.warehouse.account import Account
from kasparro_pipeline.warehouse.binaries import find_binaries
from kasparro_pipeline.warehouse.database import check_server


@pytest.fixture
def postgresql_16() -> Iterator[sa.URL]:
    """The older server that comes with the same package as ours."""
    programs = find_binaries().folder.parents[1] / "pginstall" / "bin"
    account = Account.for_server()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        account.own(Path(folder))
        data = Path(folder, "data")
        log = Path(folder, "log")
        options = f"-c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -p {port}"

        def call(program: str, *arguments: str | Path) -> None:
            subprocess.run([programs / program, "-D", data, *arguments], cwd="/", check=True, **account.run_as)

        call("initdb", "-U", "someone", "-A", "trust", "--no-sync")
        call("pg_ctl", "-w", "-l", log, "-o", options, "start")
        yield sa.URL.create("postgresql+psycopg", "someone", host="127.0.0.1", port=port, database="postgres")
        call("pg_ctl", "-w", "-m", "immediate", "stop")


def test_an_older_server_is_refused_in_one_line(postgresql_16: sa.URL) -> None:
    with pytest.raises(KasparroError, match=r"^DATABASE_URL leads to PostgreSQL 16\.\d+; Kasparro needs 17") as refused:
        check_server(postgresql_16)
    assert "\n" not in str(refused.value)


def test_a_new_enough_one_is_taken(server: sa.URL) -> None:
    check_server(server)

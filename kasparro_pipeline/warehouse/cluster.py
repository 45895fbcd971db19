"""Making a database cluster: the files of a PostgreSQL server. Running one is `embedded`'s."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.warehouse.account import Account, clean_environment
from kasparro_pipeline.warehouse.binaries import Binaries

DATABASE = "kasparro"
MINIMUM_FREE_BYTES = 500 * 2**20

_SETTINGS = {
    "shared_buffers": "256MB",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "wal_compression": "on",
    "checkpoint_timeout": "15min",
    "max_connections": "200",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
"""Written into a new cluster's ``postgresql.conf``, where ``ALTER SYSTEM`` can change them."""


def make_cluster(data: Path, binaries: Binaries, account: Account, password: str) -> None:
    """Make a cluster at `data` with an empty database ``kasparro`` and a superuser of that name; all of it or nothing.

    Raises:
        KasparroError: no disk space, files of another major version are there, or ``initdb`` fails.
    """
    folder = data.parent
    require_free_space(folder)
    for other in folder.glob("data*/PG_VERSION"):
        raise KasparroError(
            f"{other.parent} was made by PostgreSQL {other.read_text().strip()}, here is {binaries.version}; "
            "name the old one with KASPARRO_POSTGRES_BIN, or move the folder away"
        )
    unfinished = folder / "new"
    shutil.rmtree(unfinished, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", dir=folder) as password_file:
        password_file.write(password)
        password_file.flush()
        account.own(password_file.fileno())
        arguments = [
            *("-D", str(unfinished), "-U", DATABASE, "-A", "scram-sha-256", f"--pwfile={password_file.name}"),
            *("-E", "UTF8", "--locale-provider=builtin", "--locale=C.UTF-8"),
            *(f"--set={name}={value}" for name, value in _SETTINGS.items()),
        ]
        _run([str(binaries.folder / "initdb"), *arguments], account)
    single_user = [str(binaries.folder / "postgres"), "--single", "-D", str(unfinished), "postgres"]
    _run(single_user, account, f"CREATE DATABASE {DATABASE}\n")
    unfinished.rename(data)


def require_free_space(folder: Path) -> None:
    """Raise a `KasparroError` when the disk of `folder` is too full for a database."""
    free = shutil.disk_usage(folder).free
    if free < MINIMUM_FREE_BYTES:
        raise KasparroError(
            f"only {free // 2**20} MB free at {folder}, a database needs {MINIMUM_FREE_BYTES // 2**20}; "
            "make room, or set KASPARRO_HOME to a folder on another disk"
        )


def _run(command: list[str], account: Account, text: str = "") -> None:
    result = subprocess.run(
        command,
        cwd="/",
        env=clean_environment(),
        input=text,
        capture_output=True,
        text=True,
        check=False,
        **account.run_as,
    )
    if result.returncode == 0:
        return
    if os.strerror(errno.ENOSPC) in result.stderr:
        raise KasparroError("no space left on the disk for the database; make room, or set KASPARRO_HOME elsewhere")
    lines = [line for line in result.stderr.splitlines() if "error:" in line or "FATAL:" in line]
    reason = (lines or result.stderr.splitlines() or [f"exit code {result.returncode}"])[-1]
    raise KasparroError(f"cannot make the database: {reason}")

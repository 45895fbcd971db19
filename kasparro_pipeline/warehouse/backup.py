"""A backup of everything in the database, ours and Dagster's, as one file, and the way back.

PostgreSQL's own programs do the work. They get the password by their environment, never on the command line, where any
user of the machine could read it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg.conninfo
import sqlalchemy as sa

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.warehouse.account import clean_environment
from kasparro_pipeline.warehouse.binaries import find_client
from kasparro_pipeline.warehouse.database import create_engine
from kasparro_pipeline.warehouse.migrate import DAGSTER_SCHEMA, LOCK, migrate, revisions
from kasparro_pipeline.warehouse.reader import GRANT_READER, MAKE_READER
from kasparro_pipeline.warehouse.tables import SCHEMA, merge_receipt
from kasparro_pipeline.warehouse.versions import RENEW

_SCHEMAS = (SCHEMA, DAGSTER_SCHEMA)
_TABLES = sa.text("SELECT count(*) FROM pg_tables WHERE schemaname = ANY(:schemas)")
_SESSIONS = sa.text(
    "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND application_name LIKE 'kasparro%' ORDER BY 1"
)


class Backup:
    """Backs up the database at `url` and brings it back.

    Args:
        url: the database.
        binaries: the folder of PostgreSQL's programs; by default that of the wheel, else the system's.

    Raises:
        KasparroError: there is no ``pg_dump`` that is as new as the server.
    """

    def __init__(self, url: sa.URL, binaries: Path | None = None) -> None:
        self._engine = create_engine(url)
        with self._engine.connect() as connection:
            major = int(connection.scalar(sa.text("SHOW server_version_num")) or 0) // 10000
        self._engine.dispose()
        self._programs = find_client(major, binaries)
        parameters = psycopg.conninfo.conninfo_to_dict(
            url.set(drivername="postgresql").render_as_string(hide_password=False)
        )
        password = parameters.pop("password", None)
        self._database = psycopg.conninfo.make_conninfo("", **parameters)
        self._environment = {
            **clean_environment(),
            # What libpq knows by itself also counts for our other connections.
            **{name: value for name, value in os.environ.items() if name.startswith("PG") or name == "HOME"},
            **({"PGPASSWORD": str(password)} if password else {}),
        }

    def write(self, file: Path) -> int:
        """Write a backup as of this moment to `file`, which is there whole or not at all; its size in bytes.

        Others may go on reading and writing meanwhile. The file is for its owner alone (mode 0600). What the cache of
        merges holds is left out, since it is of no use elsewhere.

        Raises:
            KasparroError: there is nothing to back up, the file cannot be written, or the server breaks off.
        """
        with self._engine.connect() as connection:
            found = sa.inspect(connection).get_schema_names()
        self._engine.dispose()
        if SCHEMA not in found:
            raise KasparroError("the database has no tables of Kasparro to back up; run: kasparro up")
        with _unfinished(file) as unfinished:
            schemas = [f"--schema={schema}" for schema in _SCHEMAS if schema in found]
            left_out = f"--exclude-table-data={merge_receipt.fullname}"
            where = [f"--file={unfinished}", f"--dbname={self._database}"]
            self._run("pg_dump", "--format=custom", "--no-owner", "--no-acl", left_out, *schemas, *where)
            self._revision(unfinished)
            return unfinished.stat().st_size

    def restore(self, file: Path, *, replace: bool = False) -> None:
        """Bring back what `file` holds, in one transaction, and migrate it to the newest version.

        Every data version becomes a new one, so that no answer from before is taken for unchanged.

        Args:
            file: written by `write`.
            replace: throw away what the database holds; else it must hold nothing of ours.

        Raises:
            KasparroError: the file is no backup or a newer Kasparro's, the database is in use or not empty, or the
                server breaks off. The database is then what it was.
        """
        if not file.is_file():
            raise KasparroError(f"there is no backup {file}; name a file that `kasparro backup` has written")
        revision = self._revision(file)
        if revision not in revisions():
            raise KasparroError(f"{file} was made by a newer Kasparro (migration {revision}); install that one first")
        self._require_room(replace)
        before = [f"SELECT pg_advisory_xact_lock({LOCK})", *(f"DROP SCHEMA IF EXISTS {s} CASCADE" for s in _SCHEMAS)]
        self._replay(file, ["BEGIN", *before], [RENEW, MAKE_READER, GRANT_READER, "COMMIT", "ANALYZE"])
        migrate(self._engine)
        self._engine.dispose()

    def _require_room(self, replace: bool) -> None:
        with self._engine.connect() as connection:
            tables = connection.scalar(_TABLES, {"schemas": list(_SCHEMAS)})
            users = sorted(set(connection.scalars(_SESSIONS)))
        self._engine.dispose()
        if users:
            raise KasparroError(f"the database is in use ({', '.join(users)}); `kasparro down`, then restore")
        if tables and not replace:
            raise KasparroError("the database is not empty; name an empty one, or replace what it holds by --force")

    def _revision(self, file: Path) -> str:
        """The migration that the backup's tables are of; also shows that it can be read."""
        script = self._run(
            "pg_restore", "--data-only", f"--schema={SCHEMA}", "--table=alembic_version", "--file=-", str(file)
        )
        lines = script.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith(f"COPY {SCHEMA}.alembic_version ")]
        if not starts:
            raise KasparroError(f"{file} is no backup of Kasparro; name a file that `kasparro backup` has written")
        return lines[starts[0] + 1]

    def _replay(self, file: Path, before: list[str], after: list[str]) -> None:
        """Run the backup's script between these statements; unless it is read to its end, nothing is committed."""
        command = [str(self._programs / "psql"), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", self._database]
        psql = subprocess.Popen(
            [*command, "--output=/dev/null", "--file=-"],
            env={**self._environment, "PGOPTIONS": "-c lock_timeout=60s -c client_min_messages=error"},
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with psql:
            assert psql.stdin is not None  # noqa: S101 - a pipe was asked for
            assert psql.stderr is not None  # noqa: S101
            try:
                psql.stdin.write(_script(before))
                psql.stdin.flush()
                dump = [str(self._programs / "pg_restore"), "--no-owner", "--no-acl", "--file=-", str(file)]
                read = subprocess.run(
                    dump, env=self._environment, stdout=psql.stdin, stderr=subprocess.PIPE, check=False
                )
                if read.returncode == 0:
                    psql.stdin.write(_script(after))
                psql.stdin.close()
            except BrokenPipeError:
                pass  # psql has ended, and says why
            said = psql.stderr.read().decode(errors="replace")
        if psql.returncode != 0:
            raise KasparroError(f"cannot restore {file}: {_reason(said, psql.returncode)}; the database is as it was")
        if read.returncode != 0:
            why = _reason(read.stderr.decode(errors="replace"), read.returncode)
            raise KasparroError(f"cannot read {file}: {why}; the database is as it was")

    def _run(self, program: str, *arguments: str) -> str:
        result = subprocess.run(
            [self._programs / program, *arguments], env=self._environment, capture_output=True, text=True, check=False
        )
        if result.returncode != 0:
            raise KasparroError(f"{program} failed: {_reason(result.stderr, result.returncode)}")
        return result.stdout


@contextmanager
def _unfinished(file: Path) -> Iterator[Path]:
    """A file beside `file` that takes its place once it is whole and on the disk, and is gone when it never is."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        unfinished.touch(mode=0o600)
        try:
            yield unfinished
            with unfinished.open("rb") as written:
                os.fsync(written.fileno())
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise KasparroError(f"cannot write {file}: {error.strerror}; name a file that can be written") from None


def _script(statements: list[str]) -> bytes:
    return "".join(f"{statement};\n" for statement in statements).encode()


def _reason(said: str, code: int) -> str:
    """What PostgreSQL's program complains of, in one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    told = [line for line in lines if "error:" in line.lower() or "FATAL:" in line]
    return (told or lines or [f"exit code {code}"])[0]

"""A PostgreSQL server of our own, for machines that have none.

What belongs here: making a cluster, starting, stopping and finding its server. What does not: schemas and tables.

Nothing of it is shared with other servers: it listens on 127.0.0.1 only, on a port and with a password that are kept
in ``postgres.json`` (mode 0600), so that its URL stays the same and every process of the owner can use it.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NoReturn

import psutil
import psycopg
import sqlalchemy as sa
from filelock import FileLock, Timeout

from kasparro_pipeline.errors import KasparroError, unusable
from kasparro_pipeline.ports import free_port, is_free
from kasparro_pipeline.processes import wait_until_ended
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.account import Account, clean_environment
from kasparro_pipeline.warehouse.binaries import Binaries, find_binaries, in_wheel
from kasparro_pipeline.warehouse.cluster import DATABASE, make_cluster

ROOT_FOLDER = Path("/var/lib/kasparro")
_WAIT_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class _State:
    """What `postgres.json` holds."""

    port: int
    password: str
    folder: str
    """Where the server's files are: below the home, or absolute where the home is closed to the server's user."""


class EmbeddedPostgres:
    """The PostgreSQL server whose files are below `home`.

    Started as root, the server runs as ``postgres``, else ``nobody``; no user is added and no folder's mode is
    changed. Where that user cannot enter `home` (below ``/root``, say), the server's files are kept in
    ``/var/lib/kasparro/<random id>`` instead, and so is a copy of its programs where those are out of its reach;
    `home` remembers the id, so a new or deleted `home` means a fresh cluster.

    Args:
        home: the state folder; made when missing.
        binaries: the folder of ``postgres`` and ``initdb``; by default the wheel's, else the system's.
        options: more server settings, for this object's starts only (tests turn ``fsync`` off).
    """

    def __init__(self, home: Path, *, binaries: Path | None = None, options: Mapping[str, str] | None = None) -> None:
        self._home = home.absolute()
        self._named_binaries = binaries
        self._options = dict(options or {})
        self._state_file = home / "postgres.json"
        self._log_file = home / "logs" / "postgres.log"

    @property
    def url(self) -> sa.URL:
        """Where the database is, with psycopg 3 as the driver; it need not be running.

        Raises:
            KasparroError: the server was never started, or its state file cannot be read.
        """
        state = self._read_state()
        if state is None:
            raise KasparroError(f"no database in {self._home} yet; run: kasparro up")
        return sa.URL.create(
            "postgresql+psycopg",
            username=DATABASE,
            password=state.password,
            host="127.0.0.1",
            port=state.port,
            database=DATABASE,
        )

    def is_running(self) -> bool:
        """Whether a server runs on this home's files."""
        state = self._read_state()
        return state is not None and self._postmaster(self._data(state)) is not None

    def start(self) -> None:
        """Make the cluster where there is none, start its server where none runs, and wait until it answers.

        The server is no child of ours: it has a session of its own and stays until `stop`.

        Raises:
            KasparroError: no PostgreSQL on this machine, no disk space, a folder that cannot be written, or a server
                that refuses to start.
        """
        with self._locked():
            state = self._prepared()
            if self._postmaster(self._data(state)) is not None:
                with suppress(KasparroError):  # it may just have been killed
                    self.wait_until_ready(self.is_running)
                    return
                state = self._prepared()
            process = self._launch(state)
            self.wait_until_ready(lambda: process.poll() is None or self.is_running())

    def prepare(self) -> None:
        """Make the cluster where there is none, so that `serve` has one; raises what `start` raises."""
        with self._locked():
            self._prepared()

    def wait_until_ready(self, lives: Callable[[], bool]) -> None:
        """Return once the server answers; it has two minutes, which a recovery may need.

        Raises:
            KasparroError: it does not answer in time, or `lives` says that nobody is starting it any more.
        """
        deadline = time.monotonic() + _WAIT_SECONDS
        conninfo = self.url.set(drivername="postgresql").render_as_string(hide_password=False)
        while True:
            try:
                psycopg.connect(conninfo, connect_timeout=5).close()
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline or not lives():
                    raise KasparroError(f"the database does not start: {self._last_word(error)}") from None
            else:
                return
            time.sleep(0.05)

    def serve(self) -> NoReturn:
        """Become the server: for a supervisor that wants it as its child.

        While another server runs on these files (someone called `start`), stand by and take over when it ends.

        Raises:
            KasparroError: as `start`.
        """
        while True:
            with self._locked():
                state = self._prepared()
                if self._postmaster(self._data(state)) is None:
                    break
            time.sleep(1)
        command = self._command(state)
        os.chdir("/")
        Account.owning(self._folder(state)).become()
        os.execve(command[0], command, clean_environment())  # noqa: S606

    def stop(self, timeout_seconds: float = 30.0) -> None:
        """Stop the server, whoever started it; does nothing when none runs.

        Open transactions are rolled back. After `timeout_seconds` it is told to quit without a checkpoint, which costs
        a recovery at the next start and no data.
        """
        state = self._read_state()
        if state is None:
            return
        postmaster = self._postmaster(self._data(state))
        if postmaster is None:
            return
        with suppress(psutil.NoSuchProcess):
            postmaster.send_signal(signal.SIGINT)
            if wait_until_ended([postmaster], timeout_seconds):
                postmaster.send_signal(signal.SIGQUIT)
                wait_until_ended([postmaster], timeout_seconds)

    def remove(self) -> None:
        """Stop the server and delete everything of it: the cluster, its URL, and a copy of its programs."""
        self.stop()
        state = self._read_state()
        if state is not None:
            shutil.rmtree(self._folder(state), ignore_errors=True)
            self._state_file.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time prepares and starts; the state folder is made where it is missing."""
        try:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._home / "postgres.lock", timeout=_WAIT_SECONDS)
            with lock:
                yield
        except Timeout:
            raise KasparroError(f"another process has been starting the database in {self._home} for minutes") from None
        except OSError as error:
            raise unusable(self._home, error) from None

    def _read_state(self) -> _State | None:
        try:
            return _State(**json.loads(self._state_file.read_bytes()))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(self._home, error) from None
        except (ValueError, TypeError):
            raise KasparroError(
                f"{self._state_file} is damaged; bring it back from a backup, or delete {self._home} to begin anew"
            ) from None

    def _write_state(self, state: _State) -> None:
        unfinished = self._state_file.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps(asdict(state)))
        unfinished.replace(self._state_file)

    def _prepared(self) -> _State:
        """The state of a cluster that is there and, if it does not run, can be started."""
        state = self._read_state() or self._new_state()
        data = self._data(state)
        if not data.exists():
            self._make_folder(data.parent)
            make_cluster(data, self._runnable_binaries(state), Account.owning(data.parent), state.password)
        if self._postmaster(data) is None:
            _clear_pid_file(data)
            if not is_free(state.port):
                state = replace(state, port=free_port())
                self._write_state(state)
        return state

    def _new_state(self) -> _State:
        inside = self._home / "postgres"
        if any(inside.glob("data*")):
            raise KasparroError(
                f"{self._state_file} is missing but {inside} is there; bring the file back, or delete {inside}"
            )
        open_to_server = Account.for_server().can_execute(self._home)
        folder = inside.name if open_to_server else str(ROOT_FOLDER / secrets.token_hex(8))
        state = _State(port=free_port(), password=secrets.token_urlsafe(24), folder=folder)
        self._write_state(state)
        return state

    def _folder(self, state: _State) -> Path:
        return self._home / state.folder

    def _data(self, state: _State) -> Path:
        return self._folder(state) / f"data{self._found_binaries.major}"

    @cached_property
    def _found_binaries(self) -> Binaries:
        return find_binaries(self._named_binaries)

    def _runnable_binaries(self, state: _State) -> Binaries:
        folder, binaries = self._folder(state), self._found_binaries
        if Account.owning(folder).can_execute(binaries.folder / "postgres"):
            return binaries
        if not in_wheel(binaries):
            raise KasparroError(
                f"{folder.owner()}, whom the server runs as, may not execute {binaries.folder}/postgres; "
                "name another PostgreSQL with KASPARRO_POSTGRES_BIN"
            )
        return binaries.copied_to(folder)

    def _make_folder(self, folder: Path) -> None:
        if folder.exists():
            return
        if folder.is_relative_to(ROOT_FOLDER) and not ROOT_FOLDER.exists():
            ROOT_FOLDER.mkdir(parents=True)
            ROOT_FOLDER.chmod(0o755)  # whatever the umask: the server's user has to pass
        folder.mkdir(mode=0o700)
        Account.for_server().own(folder)

    def _command(self, state: _State) -> list[str]:
        fixed = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": str(state.port)}
        options = [f"--{name}={value}" for name, value in (fixed | self._options).items()]
        return [str(self._runnable_binaries(state).folder / "postgres"), "-D", str(self._data(state)), *options]

    def _launch(self, state: _State) -> subprocess.Popen[bytes]:
        with self._log_file.open("ab") as log:
            return subprocess.Popen(
                self._command(state),
                cwd="/",
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **Account.owning(self._folder(state)).run_as,
            )

    def _last_word(self, error: psycopg.OperationalError) -> str:
        """The server's own reason, from the end of its log, else what the client got."""
        lines = self._log_file.read_text(errors="replace").splitlines()[-20:] if self._log_file.exists() else []
        reasons = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
        return f"{(reasons or str(error).splitlines())[-1]} (log: {self._log_file})"

    def _postmaster(self, data: Path) -> psutil.Process | None:
        """The running server. A pid alone proves nothing: the process must also stand in the data folder."""
        pid = _pid_in_file(data)
        return next((process for process in _processes_in(data, only=pid) if pid is not None), None)


def _pid_in_file(data: Path) -> int | None:
    try:
        return int((data / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _processes_in(data: Path, only: int | None = None) -> Iterator[psutil.Process]:
    """Processes whose working folder is `data`, as that of PostgreSQL's are."""
    folder = str(data.resolve())
    for pid in psutil.pids() if only is None else [only]:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.cwd() == folder:
                yield process


def _clear_pid_file(data: Path) -> None:
    """Remove what a killed server left behind, once the last of its children is gone."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while any(_processes_in(data)):
        if time.monotonic() > deadline:
            raise KasparroError(f"processes of a killed server still use {data}; end them, then try again")
        time.sleep(0.1)
    (data / "postmaster.pid").unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        EmbeddedPostgres(settings().home, binaries=settings().postgres_bin).serve()
    except KasparroError as error:
        sys.exit(f"error: {error}")

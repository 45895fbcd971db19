"""What `make up` starts, killed one after the other: ``python -m kasparro_tests.chaos.processes`` (`make drill-up`).

`drill` with a home and ports of its own. A service's process is killed, which supervisord has to start again, then the
process of a run, and in the end supervisord itself, which leaves all the others behind: `kasparro up` has to find them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from kasparro_pipeline.ports import free_port
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.stack import Stack
from kasparro_pipeline.warehouse.database import create_engine, embedded
from kasparro_tests.chaos.common import ChaosError
from kasparro_tests.chaos.drill import SOURCE, Drill, perform

_PROCESS = """
    SELECT substring(event FROM 'Started process for run \\(pid: ([0-9]+)\\)') FROM dagster.event_logs
    WHERE run_id = :run_id AND event LIKE '%Started process for run%'
"""


class Processes(Drill):
    """One stack."""

    services = ("postgres", "simulator", "api", "webserver", "daemon", "code")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._killed: set[int | None] = set()
        foreign = [name for name in os.environ if name.startswith(("KASPARRO_", "DATABASE_URL", "DAGSTER_"))]
        for name in set(foreign) - {"KASPARRO_POSTGRES_BIN"}:
            del os.environ[name]
        ours = {
            "KASPARRO_HOME": str(folder / "home"),
            "KASPARRO_DROP_DIR": str(self.drops),
            "KASPARRO_API_PORT": str(self.api_port),
            **{f"KASPARRO_{name}_PORT": str(free_port()) for name in ("DAGSTER", "SIMULATOR", "CODE")},
        }
        os.environ.update(ours)
        self._settings = Settings()

    def up(self) -> None:
        """As `make up` does."""
        self._kasparro("up")

    def down(self) -> None:
        """As `make down` does."""
        self._kasparro("down")

    def remove(self, *, keep_log: bool) -> None:
        """All that there is is in the folder."""
        self.down()

    def healthy(self) -> bool:
        """By supervisord's word."""
        return all(one.state == "RUNNING" and one.pid not in self._killed for one in Stack(self._settings).status())

    def crash(self, service: str) -> None:
        """With nobody told."""
        self._kill(next(one.pid for one in Stack(self._settings).status() if one.name == service))

    def crash_run(self, run_id: str) -> None:
        """The process that said that it executes it."""
        with self.engine("kasparro").connect() as connection:
            self._kill(int(connection.scalar(sa.text(_PROCESS), {"run_id": run_id}) or 0))

    def crash_for_good(self) -> None:
        """What looks after the others."""
        self._kill(int((self._settings.home / "supervisord.pid").read_text()))

    def engine(self, database: str) -> sa.Engine:
        """On the embedded server."""
        return create_engine(embedded(self._settings).url.set(database=database))

    def load_calm(self) -> None:
        """From a home of its own."""
        url = self.engine("calm").url.render_as_string(hide_password=False)
        self._kasparro("load", "--source", SOURCE, DATABASE_URL=url, KASPARRO_HOME=str(self.folder / "calm"))

    def _kill(self, pid: int | None) -> None:
        if not pid:
            raise ChaosError("what was to be killed has no process")
        os.kill(pid, signal.SIGKILL)
        self._killed.add(pid)

    def _kasparro(self, *arguments: str, **variables: str) -> None:
        """The command; what it prints goes into a file. Raises ChaosError where it fails."""
        command = [str(Path(sys.executable).with_name("kasparro")), *arguments]
        with (self.folder / "commands.log").open("a") as log:
            done = subprocess.run(command, env={**os.environ, **variables}, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise ChaosError(f"kasparro {' '.join(arguments)}: exit {done.returncode}")


if __name__ == "__main__":
    perform(Processes)

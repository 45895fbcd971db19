"""The containers, killed one after the other: ``python -m kasparro_tests.chaos.containers`` (`make drill-compose`).

`drill` with `docker-compose.yml` as a project of its own; needs a Docker engine with Compose. A service's first process
is killed, which its restart policy has to heal, a run with the container that it is in, and in the end whole containers
by `docker compose kill`, which `docker compose up` has to bring back.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

import sqlalchemy as sa

from kasparro_pipeline.ports import free_port
from kasparro_pipeline.warehouse.database import create_engine
from kasparro_tests.chaos.common import ChaosError
from kasparro_tests.chaos.drill import SOURCE, Drill, perform

PROJECT = "kasparro-drill"
KILLED = ("postgres", "daemon")


class Containers(Drill):
    """One project of containers."""

    services = ("postgres", "simulator", "code", "daemon", "webserver", "api")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._database_port = free_port()
        self._password = secrets.token_hex()
        self._is_built = False
        ports = {"services": {"postgres": {"ports": [f"127.0.0.1:{self._database_port}:5432"]}}}
        (folder / "ports.json").write_text(json.dumps(ports))
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("KASPARRO_", "COMPOSE_"))},
            "COMPOSE_PROJECT_NAME": PROJECT,
            "COMPOSE_FILE": f"docker-compose.yml:{folder}/ports.json",
            "COMPOSE_PROFILES": "simulator",
            "KASPARRO_API_PORT": str(self.api_port),
            "KASPARRO_DAGSTER_PORT": str(free_port()),
            "KASPARRO_DROP_DIR": str(self.drops),
            "POSTGRES_PASSWORD": self._password,
        }

    def up(self) -> None:
        """Built the first time."""
        self._compose("up", "--detach", "--wait", *(() if self._is_built else ("--build",)))
        self._is_built = True

    def down(self) -> None:
        """The volumes stay."""
        self._compose("down", "--timeout", "20")

    def remove(self, *, keep_log: bool) -> None:
        """With the volumes."""
        if keep_log:
            (self.folder / "log").write_text(self._compose("logs", "--no-color"))
        self._compose("down", "--volumes", "--timeout", "20")

    def healthy(self) -> bool:
        """By their own health checks."""
        states = [json.loads(line) for line in self._compose("ps", "--format", "json").splitlines()]
        return set(self.services) == {state["Service"] for state in states if state["Health"] == "healthy"}

    def crash(self, service: str) -> None:
        """Behind the engine's back, so that the restart policy has to act."""
        container = self._compose("ps", "--quiet", service).strip()
        state = subprocess.check_output(["docker", "inspect", "--format", "{{.State.Pid}}", container], text=True)
        os.kill(int(state), signal.SIGKILL)
        time.sleep(1)  # until the engine has seen it

    def crash_run(self, run_id: str) -> None:
        """With the code location."""
        self.crash("code")

    def crash_for_good(self) -> None:
        """By the engine, which then restarts nothing."""
        self._compose("kill", *KILLED)

    def engine(self, database: str) -> sa.Engine:
        """By a port that only the drill publishes."""
        return create_engine(
            sa.make_url(f"postgresql://kasparro:{self._password}@127.0.0.1:{self._database_port}/{database}")
        )

    def load_calm(self) -> None:
        """In a container of its own."""
        url = f"DATABASE_URL=postgresql://kasparro:{self._password}@postgres:5432/calm"
        self._compose("run", "--rm", "--no-deps", "--env", url, "load", "load", "--source", SOURCE)

    def _compose(self, *arguments: str) -> str:
        """What `docker compose` prints; raises ChaosError where it fails."""
        done = subprocess.run(
            ["docker", "compose", *arguments], env=self._environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            raise ChaosError(f"docker compose {' '.join(arguments)}: exit {done.returncode}")
        return done.stdout


if __name__ == "__main__":
    if shutil.which("docker") is None:
        raise SystemExit("error: docker is not installed")
    perform(Containers)

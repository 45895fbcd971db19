"""The processes of Kasparro and the environment they run in.

What belongs here: which processes there are, their commands, where each says that it is ready. What does not: starting
and stopping them (`supervision`), and in which order (`stack`).
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from kasparro_pipeline.errors import unusable
from kasparro_pipeline.settings import REPOSITORY, Settings

SUPERVISED = "KASPARRO_SUPERVISED"
"""In the environment of every process we start: the home it belongs to, so that orphans can be found."""

DATABASE_SERVICE = "postgres"

_LOCK = REPOSITORY / "constraints.txt"
_PIPELINE = (REPOSITORY / "kasparro_pipeline", _LOCK)
_API = (REPOSITORY / "kasparro_api", *_PIPELINE)
_WORKSPACE = "deploy/workspace.yaml"
_DAGSTER = (*_PIPELINE, REPOSITORY / "dagster.yaml", REPOSITORY / _WORKSPACE)


@dataclass(frozen=True, slots=True)
class Service:
    """A process that is kept running."""

    name: str
    arguments: tuple[str, ...]
    """For this Python: ``-m`` and what follows."""
    port: int | None = None
    port_variable: str = ""
    """The environment variable that moves `port`."""
    ready_url: str | None = None
    """Answers 200 once the service is of use; without it a service with a port is once it listens."""
    stop_signal: str = "TERM"
    settle_seconds: int = 3
    """Running this long, it counts as started; a service without `port` is then taken for ready."""
    needed_first: bool = False
    """Has to be ready before the others start, and the first load."""
    after_load: bool = False
    """Starts after the first load, because it would load at the same time."""
    alone: bool = False
    """Signals go to the process alone, not to its children: it looks after them itself."""
    code: tuple[Path, ...] = ()
    """Files and folders that it has read once: when they change it has to start again."""

    def code_changed_at(self) -> float:
        """When its newest code was written, in seconds since 1970; 0.0 where it has none."""
        files = (file for path in self.code for file in ([path] if path.is_file() else path.rglob("*")))
        return max((file.stat().st_mtime for file in files if file.is_file() and file.suffix != ".pyc"), default=0.0)


def services(settings: Settings) -> list[Service]:
    """What has to run with these settings, in the order of starting."""
    found = []
    if settings.database_url is None:
        module = "kasparro_pipeline.warehouse.embedded"
        found.append(Service(DATABASE_SERVICE, ("-m", module), settle_seconds=1, stop_signal="INT", alone=True))
    if settings.uses_simulator:
        log = ("--no-access-log", "--log-config", str(Path(__file__).parent / "simulator" / "logs.json"))
        simulator = ("-m", "uvicorn", "kasparro_pipeline.simulator.app:app", *log)
        found.append(
            Service(
                "simulator",
                (*simulator, "--port", str(settings.simulator_port)),
                port=settings.simulator_port,
                port_variable="KASPARRO_SIMULATOR_PORT",
                ready_url=f"{settings.simulator_url}/health",
                needed_first=True,
                code=_PIPELINE,
            )
        )
    # What it says before it has loaded the definitions is never in our form of a log line: of that only what is wrong.
    quiet = ("--log-level", "warning")
    code = ("-m", "dagster", "api", "grpc", "--module-name", "kasparro_pipeline.definitions", "--host", "127.0.0.1")
    web = ("-m", "dagster_webserver", "-h", settings.host, "-p", str(settings.dagster_port), "-w", _WORKSPACE)
    found += [
        Service(
            "code",
            (*code, "--port", str(settings.code_port), *quiet),
            port=settings.code_port,
            port_variable="KASPARRO_CODE_PORT",
            needed_first=True,
            alone=True,
            code=(*_PIPELINE, REPOSITORY / "dg.toml"),
        ),
        Service(
            "api",
            ("-m", "kasparro_api"),
            port=settings.api_port,
            port_variable="KASPARRO_API_PORT",
            ready_url=f"{local_url(settings.host, settings.api_port)}/health",
            code=_API,
        ),
        Service(
            "webserver",
            web,
            port=settings.dagster_port,
            port_variable="KASPARRO_DAGSTER_PORT",
            ready_url=f"{local_url(settings.host, settings.dagster_port)}/server_info",
            code=_DAGSTER,
        ),
        Service(
            "daemon",
            ("-m", "dagster._daemon", "run", "-w", _WORKSPACE),
            settle_seconds=8,
            after_load=True,
            code=_DAGSTER,
        ),
    ]
    return found


def local_url(host: str, port: int) -> str:
    """How a process on this machine reaches what listens on `host`."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def environment(settings: Settings) -> dict[str, str]:
    """The environment of every process of Kasparro: this one's, with paths made absolute and Dagster's home."""
    scripts = str(Path(sys.executable).parent)
    return {
        "DAGSTER_EVENT_BATCH_SIZE": "100",
        **os.environ,
        "PATH": os.pathsep.join([scripts, os.environ.get("PATH", os.defpath)]),
        "DAGSTER_HOME": str(_dagster_home(settings)),
        "KASPARRO_HOME": str(settings.home),
        "KASPARRO_DROP_DIR": str(settings.drop_dir),
        "KASPARRO_CODE_HOST": settings.code_host,
        "KASPARRO_CODE_PORT": str(settings.code_port),
    }


def make_dagster_home(settings: Settings) -> None:
    """Make Dagster's home in the state folder, with a link to the repository's ``dagster.yaml``.

    Raises:
        KasparroError: the state folder cannot be written.
    """
    link = _dagster_home(settings) / "dagster.yaml"
    try:
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(REPOSITORY / link.name)
    except OSError as error:
        raise unusable(settings.home, error) from None


def _dagster_home(settings: Settings) -> Path:
    return settings.home / "dagster"

import os
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from pydantic import SecretStr

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.ports import free_port
from kasparro_pipeline.services import DATABASE_SERVICE, SUPERVISED, Service, services
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.stack import Stack

PORT = free_port()
WEB = Service(
    "web",
    ("-m", "http.server", str(PORT), "--bind", "127.0.0.1"),
    port=PORT,
    port_variable="KASPARRO_WEB_PORT",
    ready_url=f"http://127.0.0.1:{PORT}/",
    settle_seconds=1,
    needed_first=True,
)
# As Dagster does with code servers: a child in a session of its own, which no signal to the group reaches.
CHILD = "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"
LATE = Service("late", ("-c", f"import subprocess, sys; {CHILD}"), settle_seconds=1, after_load=True)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kasparro 100% ü ") as name:
        Path(name).chmod(0o755)  # as root, the database's user has to enter
        yield Path(name)


@pytest.fixture(scope="module")
def chosen(home: Path) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DATABASE_URL", raising=False)
        patch.setenv("KASPARRO_HOME", str(home))
        patch.setenv("KASPARRO_COINGECKO_API_KEY", "not-to-be-seen")
        yield Settings()


@pytest.fixture(scope="module")
def stack(chosen: Settings) -> Iterator[Stack]:
    stack = make(chosen)
    yield stack
    stack.down()


@pytest.fixture
def running(stack: Stack) -> Stack:
    up(stack)
    return stack


@pytest.fixture
def stopped(stack: Stack) -> Stack:
    stack.down()
    return stack


def make(chosen: Settings, *more: Service) -> Stack:
    postgres = next(service for service in services(chosen) if service.name == DATABASE_SERVICE)
    return Stack(chosen, [postgres, WEB, *more, LATE])


def up(stack: Stack) -> None:
    stack.up(load=lambda: None, say=lambda _: None)


def states(stack: Stack) -> dict[str, str]:
    return {state.name: state.state for state in stack.status()}


def pids(stack: Stack) -> dict[str, int | None]:
    return {state.name: state.pid for state in stack.status()}


def processes(home: Path) -> list[psutil.Process]:
    """Everything that runs for this home, whoever started it; PostgreSQL is known by its working folder."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(SUPERVISED) == str(home) or Path(process.cwd()).is_relative_to(home):
                found.append(process)
    return found


def supervisor_pid(home: Path) -> int:
    return int((home / "supervisord.pid").read_text())


def test_up_loads_between_what_load_needs_and_what_it_disturbs(stopped: Stack, home: Path) -> None:
    seen = []

    def load() -> None:
        seen.append((httpx.get(f"http://127.0.0.1:{PORT}/").status_code, states(stopped)))

    stopped.up(load=load, say=lambda _: None)
    assert [(status, before["late"]) for status, before in seen] == [(200, "STOPPED")]
    assert all(pids(stopped).values())


def test_a_second_up_leaves_alone_what_runs(running: Stack) -> None:
    before = pids(running)
    up(running)
    assert pids(running) == before


def test_up_restarts_exactly_what_runs_with_old_code(stopped: Stack, chosen: Settings, tmp_path: Path) -> None:
    code = tmp_path / "package" / "module.py"
    code.parent.mkdir()
    code.touch()
    os.utime(code, (0, 0))
    stack = make(chosen, Service("coded", LATE.arguments, settle_seconds=1, code=(code.parent,)))
    up(stack)
    before = pids(stack)
    up(stack)
    assert pids(stack) == before
    os.utime(code)
    up(stack)
    after = pids(stack)
    assert {name for name in before if before[name] != after[name]} == {"coded"}
    assert after["coded"]
    stack.down()


def test_secrets_are_neither_in_files_nor_in_arguments(running: Stack, home: Path) -> None:
    assert stat.S_IMODE((home / "supervisord.conf").stat().st_mode) == 0o600
    told = [(home / "supervisord.conf").read_text(), *(" ".join(process.cmdline()) for process in processes(home))]
    assert not [text for text in told if "not-to-be-seen" in text]
    web = pids(running)["web"]
    assert psutil.Process(web).environ()["KASPARRO_COINGECKO_API_KEY"] == "not-to-be-seen"


def test_what_is_killed_comes_back(running: Stack) -> None:
    before = pids(running)
    for pid in before.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    up(running)
    assert all(pids(running).values())
    assert not set(pids(running).values()) & set(before.values())


def test_up_after_the_supervisor_was_killed_leaves_nothing_twice(running: Stack, home: Path) -> None:
    orphans = {process.pid for process in processes(home)}
    os.kill(supervisor_pid(home), signal.SIGKILL)
    up(running)
    assert all(pids(running).values())
    postgres = {process.pid for process in processes(home) if process.name() == "postgres"}
    assert not {process.pid for process in processes(home)} & orphans - postgres


def test_down_after_the_supervisor_was_killed_leaves_nothing(running: Stack, home: Path) -> None:
    os.kill(supervisor_pid(home), signal.SIGKILL)
    running.down()
    assert processes(home) == []
    assert set(states(running).values()) == {"STOPPED"}
    running.down()


def test_two_ups_at_once_start_one_of_each(stopped: Stack, chosen: Settings, home: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(up, [make(chosen), make(chosen)]))
    supervisors = [process for process in processes(home) if "supervisor.supervisord" in process.cmdline()]
    assert [process.pid for process in supervisors] == [supervisor_pid(home)]


def test_other_settings_restart_what_runs(running: Stack, chosen: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pids(running)["web"]
    monkeypatch.setenv("KASPARRO_VENDORS", "live")
    said: list[str] = []
    make(chosen).up(load=lambda: None, say=said.append)
    assert "settings changed: restarting" in said
    after = pids(running)["web"]
    assert after != before
    assert psutil.Process(after).environ()["KASPARRO_VENDORS"] == "live"


def test_a_failed_load_undoes_what_this_up_started(stopped: Stack, home: Path) -> None:
    def load() -> None:
        raise KasparroError("no such vendor")

    with pytest.raises(KasparroError, match="no such vendor"):
        stopped.up(load=load, say=lambda _: None)
    assert processes(home) == []


def test_a_service_that_dies_is_named_with_its_last_words(stopped: Stack, chosen: Settings, home: Path) -> None:
    broken = Service("broken", ("-c", "raise SystemExit('it cannot be')"), settle_seconds=1)
    with pytest.raises(KasparroError, match=r"broken does not start: it cannot be .*kasparro logs broken"):
        up(make(chosen, broken))
    assert processes(home) == []


def test_a_taken_port_is_named_with_its_holder_and_variable(stopped: Stack, home: Path) -> None:
    message = rf"port {PORT} for the web is taken by .*pid {os.getpid()}.*KASPARRO_WEB_PORT"
    with socket.create_server(("127.0.0.1", PORT)), pytest.raises(KasparroError, match=message):
        up(stopped)
    assert processes(home) == []


def test_every_service_has_the_variable_that_moves_its_port() -> None:
    settings = Settings(home=Path("/nowhere"))
    ports = {service.port_variable: service.port for service in services(settings) if service.port}
    assert ports == {
        "KASPARRO_API_PORT": settings.api_port,
        "KASPARRO_DAGSTER_PORT": settings.dagster_port,
        "KASPARRO_SIMULATOR_PORT": settings.simulator_port,
        "KASPARRO_CODE_PORT": settings.code_port,
    }


@pytest.mark.parametrize(("dagster", "code"), [(3000, 4000), (64_535, 65_535), (64_536, 63_536)])
def test_stacks_side_by_side_need_no_port_of_their_own_for_the_code(
    monkeypatch: pytest.MonkeyPatch, dagster: int, code: int
) -> None:
    monkeypatch.delenv("KASPARRO_CODE_PORT", raising=False)  # which the containers have
    assert Settings(dagster_port=dagster).code_port == code
    assert Settings(dagster_port=dagster, code_port=4321).code_port == 4321


def test_live_vendors_and_a_database_of_ones_own_need_fewer_services() -> None:
    own = Settings(home=Path("/nowhere"), DATABASE_URL=SecretStr("postgresql://u:p@db/k"), vendors="live")
    assert [service.name for service in services(own)] == ["code", "api", "webserver", "daemon"]

"""Everything together on one machine: what `kasparro up` and `kasparro down` do, in which order.

What belongs here: the order, what is checked first, what is undone when a step fails. What does not: how one thing is
started (`supervision`, `warehouse.embedded`), loaded (`load`) or shown (`cli`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import httpx
from filelock import FileLock, Timeout

from kasparro_pipeline.errors import KasparroError, unusable
from kasparro_pipeline.ports import holder, is_free, is_listening
from kasparro_pipeline.services import DATABASE_SERVICE, Service, environment, make_dagster_home, services
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.supervision import ServiceState, Supervisor
from kasparro_pipeline.warehouse.cluster import require_free_space
from kasparro_pipeline.warehouse.database import create_engine, embedded, ensure_database
from kasparro_pipeline.warehouse.migrate import migrate

READY_SECONDS = 120.0
_LOCK_SECONDS = 900.0


class Stack:
    """The services of one state folder, started and stopped together.

    Args:
        settings: which services, where.
        chosen: other services than `settings` ask for; tests bring small ones.
    """

    def __init__(self, settings: Settings, chosen: Sequence[Service] | None = None) -> None:
        self._settings = settings
        self._services = services(settings) if chosen is None else chosen
        self._server = embedded(settings)
        self._supervisor = Supervisor(settings.home, self._services, environment(settings))

    def up(self, load: Callable[[], None], say: Callable[[str], None]) -> None:
        """Start what does not run, in order, and call `load` once everything that it needs is there.

        What runs already is left alone, unless it was started with other settings: then all of it is restarted; or its
        code has changed since: then that service is. When a step fails, what this call started is stopped again. `say`
        gets a line for each step done.

        Raises:
            KasparroError: a port is taken, there is no disk space, a service does not become ready, ...
        """
        with self._alone(), ExitStack() as undo:
            require_free_space(self._settings.home)
            self._start_supervisor(undo, say)
            self._start_database(undo)
            say("database ready")
            others = [service for service in self._services if service.name != DATABASE_SERVICE]
            first = [service for service in others if service.needed_first]
            beside = [service for service in others if not service.needed_first and not service.after_load]
            after = [service for service in others if service.after_load]
            self._start(first, undo)
            self._await(first, say)
            self._start(beside, undo)
            load()
            self._start(after, undo)
            self._await((*beside, *after), say)
            undo.pop_all()

    def down(self) -> None:
        """Stop everything of this state folder, also what was left behind by a supervisor that was killed."""
        if not self._settings.home.exists():
            return
        with self._alone():
            self._stop()

    def status(self) -> list[ServiceState]:
        """How each service is, in the order of starting."""
        states = self._supervisor.states()
        postgres = states.get(DATABASE_SERVICE)
        if postgres and postgres.pid is None and self._server.is_running():
            states[DATABASE_SERVICE] = replace(postgres, state="RUNNING")
        return [states[service.name] for service in self._services]

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` or `down` at a time; the others wait."""
        home = self._settings.home
        try:
            make_dagster_home(self._settings)
            lock = FileLock(home / "up.lock", timeout=_LOCK_SECONDS).acquire()
        except Timeout:
            raise KasparroError(f"another `kasparro up` or `down` is still at work in {home}; end it") from None
        except OSError as error:
            raise unusable(home, error) from None
        with lock:
            yield

    def _start_supervisor(self, undo: ExitStack, say: Callable[[str], None]) -> None:
        if self._supervisor.settings_changed():
            say("settings changed: restarting")
            self._supervisor.shutdown()
        if self._supervisor.is_running():
            self._stop_outdated(say)
            self._check_ports()
            return
        self._supervisor.end_orphans()
        self._check_ports()
        self._supervisor.start()
        undo.callback(self._supervisor.shutdown)

    def _stop_outdated(self, say: Callable[[str], None]) -> None:
        """Stop what runs with code that has changed since it started; the next steps start it again."""
        states = self._supervisor.states()
        for service in reversed(self._services):
            state = states[service.name]
            # to the second, and rather once too often
            if state.pid and service.code_changed_at() > time.time() - state.uptime_seconds - 1:
                say(f"{service.name}: its code has changed, restarting")
                self._supervisor.stop_service(service.name)

    def _stop(self) -> None:
        self._supervisor.shutdown()
        self._server.stop()

    def _start_database(self, undo: ExitStack) -> None:
        """Start the embedded server as a service, or see that the one named by ``DATABASE_URL`` will do; migrate."""
        for service in self._services:
            if service.name == DATABASE_SERVICE:
                self._server.prepare()
                self._start([service], undo)
                self._server.wait_until_ready(self._database_lives)
        prepare_database(self._settings)

    def _database_lives(self) -> bool:
        return self._server.is_running() or self._supervisor.states()[DATABASE_SERVICE].state in ("STARTING", "RUNNING")

    def _check_ports(self) -> None:
        states = self._supervisor.states()
        for service in self._services:
            if service.port is None or states[service.name].pid is not None:
                continue
            if not is_free(service.port, self._settings.host):
                process = holder(service.port)
                by = f" by {process.name()} (pid {process.pid})" if process else ""
                raise KasparroError(
                    f"port {service.port} for the {service.name} is taken{by}; "
                    f"end that, or set {service.port_variable} to another port"
                )

    def _start(self, chosen: Iterable[Service], undo: ExitStack) -> None:
        for service in chosen:
            if self._supervisor.start_service(service.name):
                undo.callback(self._supervisor.stop_service, service.name)

    def _await(self, waiting: Iterable[Service], say: Callable[[str], None]) -> None:
        """Return once each of these is of use, and say so of each."""
        pending = list(waiting)
        deadline = time.monotonic() + READY_SECONDS
        while pending:
            states = self._supervisor.states()
            for service in pending:
                died = states[service.name].state not in ("STARTING", "RUNNING")
                if died or time.monotonic() > deadline:
                    word = "does not start" if died else f"is not ready after {READY_SECONDS:.0f} s"
                    raise KasparroError(f"{service.name} {word}: {self._last_line(service)}")
            for service in [service for service in pending if _is_ready(service, states[service.name])]:
                pending.remove(service)
                say(f"{service.name} ready")
            time.sleep(0.2)

    def _last_line(self, service: Service) -> str:
        log = self._settings.home / "logs" / f"{service.name}.log"
        lines = log.read_text(errors="replace").split("\n") if log.exists() else []
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{last} (all of it: kasparro logs {service.name})"


def prepare_database(settings: Settings) -> None:
    """Start the embedded server where it is needed and run the migrations.

    Raises:
        KasparroError: no database, or one that is too old.
    """
    engine = create_engine(ensure_database(settings))
    try:
        migrate(engine)
    finally:
        engine.dispose()


def enter(settings: Settings) -> None:
    """Make this process one of Kasparro's: database started and migrated, Dagster's home made, environment set.

    Raises:
        KasparroError: as `prepare_database`, or the state folder cannot be written.
    """
    make_dagster_home(settings)
    os.environ.update(environment(settings))
    prepare_database(settings)


def _is_ready(service: Service, state: ServiceState) -> bool:
    if service.ready_url is None:
        return is_listening(service.port) if service.port else state.state == "RUNNING"
    with suppress(httpx.TransportError):
        return httpx.get(service.ready_url, timeout=10, trust_env=False).status_code == httpx.codes.OK
    return False

"""Keeping processes running: supervisord, one for each state folder.

What belongs here: writing its configuration, talking to it, finding what it left behind when it was killed. What does
not: which processes those are (`services`), and in which order they start (`stack`).
"""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Mapping, Sequence
from configparser import RawConfigParser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import Faults

from kasparro_pipeline.errors import KasparroError, unusable
from kasparro_pipeline.ports import free_port
from kasparro_pipeline.processes import wait_until_ended
from kasparro_pipeline.services import SUPERVISED, Service
from kasparro_pipeline.settings import REPOSITORY

_USER = "kasparro"
_OURS = ("KASPARRO_", "DATABASE_URL", "DAGSTER_")
_RUNNING = ("STARTING", "RUNNING", "BACKOFF")


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What supervisord says of one service."""

    name: str
    state: str
    """``RUNNING``, ``STARTING``, ``BACKOFF`` (died, tried again shortly), ``STOPPED``, ``STOPPING``, ..."""
    pid: int | None
    uptime_seconds: int


class Supervisor:
    """The supervisord of one state folder.

    Its control port listens on 127.0.0.1 and asks for a random password, both in ``supervisord.conf`` (mode 0600).
    Settings and secrets reach the services by inheritance only.

    Args:
        home: the state folder; configuration, logs and the pid file are in it.
        services: what it can run.
        environment: of supervisord and so of every service.
    """

    def __init__(self, home: Path, services: Sequence[Service], environment: Mapping[str, str]) -> None:
        self._home = home
        self._services = services
        self._environment = {**environment, SUPERVISED: str(home), "PYTHONUNBUFFERED": "1"}
        self._configuration = home / "supervisord.conf"

    def is_running(self) -> bool:
        """Whether supervisord answers."""
        return self._pid() is not None

    def settings_changed(self) -> bool:
        """Whether the running services were started with other settings than ours."""
        pid = self._pid()
        if pid is None:
            return False
        return _ours(psutil.Process(pid).environ()) != _ours(self._environment)

    def start(self) -> None:
        """Start supervisord, with no service yet.

        Raises:
            KasparroError: it does not start, or the state folder cannot be written.
        """
        try:
            self._write_configuration()
        except OSError as error:
            raise unusable(self._home, error) from None
        result = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", self._configuration.name],
            cwd=self._home,  # paths in the configuration are relative: supervisord would expand a % in the home's name
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            reason = (result.stdout + result.stderr).strip().partition("\n")[0]
            raise KasparroError(f"the process supervisor does not start: {reason}")
        deadline = time.monotonic() + 10
        while not self.is_running():
            if time.monotonic() > deadline:
                raise KasparroError(f"the process supervisor does not answer; see {self._home}/logs/supervisord.log")
            time.sleep(0.05)

    def start_service(self, name: str) -> bool:
        """Start a service unless it runs; True when it had to be started. Does not wait until it is ready."""
        try:
            self._call("supervisor.startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode == Faults.ALREADY_STARTED:
                return False
            raise KasparroError(f"{name} cannot be started: {fault.faultString}") from None
        return True

    def stop_service(self, name: str) -> None:
        """Stop a service and wait until it has ended."""
        with suppress(xmlrpc.client.Fault):
            self._call("supervisor.stopProcess", name)

    def states(self) -> dict[str, ServiceState]:
        """Every service by name; all of them STOPPED when supervisord does not run."""
        known = {service.name: ServiceState(service.name, "STOPPED", None, 0) for service in self._services}
        if not self.is_running():
            return known
        for entry in self._call("supervisor.getAllProcessInfo"):
            state = str(entry["statename"])
            uptime = int(entry["now"]) - int(entry["start"]) if state in _RUNNING else 0
            known[entry["name"]] = ServiceState(entry["name"], state, int(entry["pid"]) or None, uptime)
        return known

    def shutdown(self) -> None:
        """Stop every service, then supervisord, and end what either left behind."""
        pid = self._pid()
        if pid is not None:
            process = psutil.Process(pid)
            self._call("supervisor.shutdown")
            while wait_until_ended([process], timeout_seconds=0.1):
                self._pid()  # it takes the next step when it is asked, else once a second
        self.end_orphans()

    def end_orphans(self) -> None:
        """End processes of this home that no supervisord looks after any more."""
        orphans = [process for process in psutil.process_iter() if self._is_ours(process)]
        for process in orphans:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        for process in wait_until_ended(orphans, timeout_seconds=10):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        wait_until_ended(orphans, timeout_seconds=10)

    def _is_ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error):
            return process.pid != os.getpid() and process.environ().get(SUPERVISED) == str(self._home)
        return False

    def _pid(self) -> int | None:
        """Of the supervisord that answers to our password."""
        with suppress(OSError, xmlrpc.client.Error):
            return int(self._call("supervisor.getPID"))
        return None

    def _call(self, method: str, *arguments: object) -> Any:  # noqa: ANN401
        control = RawConfigParser()
        control.read(self._configuration)
        if not control.has_section("inet_http_server"):
            raise ConnectionRefusedError(str(self._configuration))
        address, password = (control.get("inet_http_server", key) for key in ("port", "password"))
        with xmlrpc.client.ServerProxy(f"http://{_USER}:{password}@{address}/RPC2") as proxy:
            return getattr(proxy, method)(*arguments)

    def _write_configuration(self) -> None:
        configuration = RawConfigParser()
        configuration["inet_http_server"] = {
            "port": f"127.0.0.1:{free_port()}",
            "username": _USER,
            "password": secrets.token_urlsafe(24),
        }
        configuration["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        configuration["supervisord"] = {
            "logfile": "logs/supervisord.log",
            "pidfile": "supervisord.pid",
            "childlogdir": "logs",
            **({"user": "root"} if os.geteuid() == 0 else {}),
        }
        for place, service in enumerate(self._services):
            configuration[f"program:{service.name}"] = _program(service, place)
        (self._home / "logs").mkdir(parents=True, exist_ok=True)
        self._configuration.unlink(missing_ok=True)
        self._configuration.touch(mode=0o600)
        with self._configuration.open("w") as file:
            configuration.write(file)


def _program(service: Service, place: int) -> dict[str, str]:
    """A service as supervisord writes it; `place` is its turn: the last one to start stops first."""
    group = "false" if service.alone else "true"
    return {
        "command": shlex.join([sys.executable, *service.arguments]).replace("%", "%%"),
        "directory": str(REPOSITORY).replace("%", "%%"),
        "priority": str(place + 1),
        "autostart": "false",
        "autorestart": "true",
        "startsecs": str(service.settle_seconds),
        # Each try waits a second longer than the one before; giving up would need a person.
        "startretries": "1000000",
        "stopsignal": service.stop_signal,
        "stopwaitsecs": "30",
        "stopasgroup": group,
        "killasgroup": group,
        "redirect_stderr": "true",
        "stdout_logfile": f"logs/{service.name}.log",
        "stdout_logfile_maxbytes": "10MB",
        "stdout_logfile_backups": "3",
    }


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(_OURS)}

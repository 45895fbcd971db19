"""TCP ports of this machine: which are free, who holds one."""

from __future__ import annotations

import errno
import random
import socket
from contextlib import suppress

import psutil


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nothing listens on `port` of `host`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        return error.errno != errno.EADDRINUSE
    return True


def is_listening(port: int) -> bool:
    """Whether something on this machine takes connections to `port`."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10):
        return True
    return False


def free_port() -> int:
    """A free port below those that systems hand out to clients, so that none of them sits on it at a restart."""
    return next(port for port in random.sample(range(15000, 32000), k=1000) if is_free(port))


def holder(port: int) -> psutil.Process | None:
    """The process that listens on `port`, where this user may know."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            listens_on = getattr(connection.laddr, "port", None) if connection.status == psutil.CONN_LISTEN else None
            if listens_on == port and connection.pid:
                return psutil.Process(connection.pid)
    return None

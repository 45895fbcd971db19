"""Waiting for processes that need not be our children."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil


def has_ended(process: psutil.Process) -> bool:
    """Whether `process` runs no more; a zombie counts, since some parents never look at their dead."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_ended(processes: Iterable[psutil.Process], timeout_seconds: float) -> list[psutil.Process]:
    """Wait until all of these have ended; return those that still run after `timeout_seconds`."""
    deadline = time.monotonic() + timeout_seconds
    running = list(processes)
    while running := [process for process in running if not has_ended(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return running

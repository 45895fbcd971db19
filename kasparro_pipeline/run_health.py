"""Whether a run that Dagster takes for under way is: what Dagster's run monitoring asks every launcher.

Nobody else would tell. A run that went down with its code location, or in a `kasparro load` that was killed, stayed
under way for a day, and what waits for its end waited as long.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import psutil
from dagster import DagsterEventType, DagsterRun, deserialize_value
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult

from kasparro_pipeline.processes import has_ended

PROCESS_TAG = "kasparro/process"
"""Of a run that `kasparro load` executes itself: host, pid and start of its process."""

_THIS_MACHINE = ("localhost", "127.0.0.1")

LIVES = CheckRunHealthResult(WorkerStatus.RUNNING)


def this_process() -> str:
    """The value of `PROCESS_TAG` for runs of this process."""
    return f"{socket.gethostname()} {psutil.Process().pid} {psutil.Process().create_time()}"


class WatchedRunLauncher(DefaultRunLauncher):
    """`DefaultRunLauncher` that asks a run's code location whether it still executes the run.

    The process of a run outlives a code location of this machine that is killed, and ends as it would have.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """What the code location says; nothing bad while it is away, since it comes back and can be asked."""
        if told := health_of_load(run):
            return told
        client: DagsterGrpcClient | None = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        told = _of_location(client, run.run_id) if client else LIVES
        if told.status is WorkerStatus.FAILED and client and client.host in _THIS_MACHINE and self._has_process(run):
            return LIVES
        return told

    def _has_process(self, run: DagsterRun) -> bool:
        """Whether the process that said that it executes `run` is one of this machine, and not a later one."""
        for entry in self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT):
            if entry.dagster_event and (pid := entry.dagster_event.engine_event_data.metadata.get("pid")):
                with suppress(psutil.NoSuchProcess):
                    process = psutil.Process(int(str(pid.value)))
                    return process.create_time() < entry.timestamp and not has_ended(process)
                return False
        return False


def health_of_load(run: DagsterRun) -> CheckRunHealthResult | None:
    """Whether the `kasparro load` that executes `run` lives; None where a launcher has started it.

    Of one on another machine nothing is known, and so nothing bad.
    """
    if PROCESS_TAG not in run.tags:
        return None
    host, pid, started = run.tags[PROCESS_TAG].split(" ")
    if host != socket.gethostname():
        return LIVES
    try:
        if psutil.Process(int(pid)).create_time() == float(started):
            return LIVES
    except psutil.NoSuchProcess:
        pass
    return CheckRunHealthResult(WorkerStatus.FAILED, f"The load that executed it, process {pid}, has ended.")


def _of_location(client: DagsterGrpcClient, run_id: str) -> CheckRunHealthResult:
    try:
        answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id))
    except DagsterUserCodeUnreachableError:
        if client.socket and not _is_listening(Path(client.socket)):
            return CheckRunHealthResult(WorkerStatus.FAILED, "The code location that executed it has ended.")
        return LIVES
    if deserialize_value(answer, CanCancelExecutionResult).can_cancel:
        return LIVES
    return CheckRunHealthResult(WorkerStatus.FAILED, "The code location was started again and does not execute it.")


def _is_listening(path: Path) -> bool:
    """Whether a socket of this machine has its server: one that a daemon starts next has another."""
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True

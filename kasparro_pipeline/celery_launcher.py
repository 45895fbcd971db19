"""Dagster's runs as tasks of Celery's workers, and how a run learns that its worker is gone.

Imported only where ``KASPARRO_RUN_LAUNCHER`` is ``celery``: Celery is an extra.
"""

from __future__ import annotations

from typing import Any

from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_TASK_ID_TAG

from kasparro_pipeline.run_health import health_of_load
from kasparro_pipeline.settings import Settings

_PING_SECONDS = 5.0
_PINGS = 3
_LONGEST_RUN_SECONDS = 2 * 86400


def celery_arguments(chosen: Settings) -> dict[str, Any]:
    """What launcher and workers must agree on: the broker, which keeps the results as well, and who takes what.

    A worker takes one run and no second one in advance, which would wait while another worker is free. Until it is done
    the broker keeps the task as not acknowledged; it is not handed out again before the longest run has ended.
    """
    broker = chosen.celery_broker.get_secret_value()
    return {
        "broker": broker,
        "backend": broker,
        "config_source": {
            "worker_prefetch_multiplier": 1,
            "task_acks_late": True,
            "worker_redirect_stdouts": False,  # a run's lines are log lines already
            "broker_transport_options": {"visibility_timeout": _LONGEST_RUN_SECONDS},
        },
    }


class WatchedCeleryRunLauncher(CeleryRunLauncher):
    """`CeleryRunLauncher` that asks a run's worker whether it lives.

    Celery says STARTED of a task until somebody says otherwise, also when the worker's machine is gone. With the answer
    run monitoring gives the run up, and run retries start it again.
    """

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """What Celery knows of the task; of one that runs, whether its worker answers."""
        if told := health_of_load(run):
            return told
        known: CheckRunHealthResult = super().check_run_worker_health(run)
        if known.status is not WorkerStatus.RUNNING:
            return known
        worker = (self.celery.AsyncResult(run.tags[DAGSTER_CELERY_TASK_ID_TAG]).info or {}).get("hostname")
        if worker is None or any(self._answers(worker) for _ in range(_PINGS)):
            return known
        return CheckRunHealthResult(WorkerStatus.FAILED, f"The worker {worker} does not answer any more.")

    def _answers(self, worker: str) -> bool:
        return bool(self.celery.control.ping(destination=[worker], timeout=_PING_SECONDS, limit=1))

"""Dagster's runs as containers.

Imported only where ``KASPARRO_RUN_LAUNCHER`` is ``docker``: dagster-docker is an extra.
"""

from __future__ import annotations

from dagster import DagsterRun
from dagster._core.launcher import CheckRunHealthResult
from dagster_docker import DockerRunLauncher

from kasparro_pipeline.run_health import health_of_load


class WatchedDockerRunLauncher(DockerRunLauncher):
    """`DockerRunLauncher` that looks for no container of a run which `kasparro load` executes."""

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the container, or the load, lives."""
        found: CheckRunHealthResult = health_of_load(run) or super().check_run_worker_health(run)
        return found

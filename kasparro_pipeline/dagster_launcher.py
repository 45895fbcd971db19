"""Where Dagster's runs run: here, or elsewhere by ``KASPARRO_RUN_LAUNCHER``; dagster.yaml names this class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from dagster._core.launcher import RunLauncher
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.run_health import WatchedRunLauncher
from kasparro_pipeline.settings import Settings, settings

_OURS = ("KASPARRO_", "DATABASE_URL", "DAGSTER_EVENT_BATCH_SIZE")
_NOT_THEIRS = ("KASPARRO_HOME", "KASPARRO_HOST", "KASPARRO_SUPERVISED")


class KasparroRunLauncher(RunLauncher, ConfigurableClass):
    """Stands in dagster.yaml for the launcher that the settings choose, so that one file does for every deployment."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003 - Dagster's signature
    ) -> RunLauncher:
        """The launcher of ``KASPARRO_RUN_LAUNCHER``.

        Raises:
            KasparroError: the package that it needs is not installed.
        """
        chosen = settings()
        try:
            return _MAKERS[chosen.run_launcher](inst_data, chosen)
        except ModuleNotFoundError as error:
            raise KasparroError(
                f"KASPARRO_RUN_LAUNCHER={chosen.run_launcher} needs {error.name}, which is not installed; "
                f"install kasparro[{chosen.run_launcher}]"
            ) from None


def _default(inst_data: ConfigurableClassData | None, _: Settings) -> RunLauncher:
    return WatchedRunLauncher(inst_data)


def _celery(inst_data: ConfigurableClassData | None, chosen: Settings) -> RunLauncher:
    from kasparro_pipeline.celery_launcher import WatchedCeleryRunLauncher, celery_arguments  # noqa: PLC0415 - an extra

    launcher: RunLauncher = WatchedCeleryRunLauncher("dagster", **celery_arguments(chosen), inst_data=inst_data)
    return launcher


def _docker(inst_data: ConfigurableClassData | None, chosen: Settings) -> RunLauncher:
    from kasparro_pipeline.docker_launcher import WatchedDockerRunLauncher  # noqa: PLC0415 - an extra

    volumes = [volume.strip() for volume in chosen.docker_volumes.split(",") if volume.strip()]
    launcher: RunLauncher = WatchedDockerRunLauncher(
        inst_data,
        image=chosen.image,
        network=chosen.docker_network,
        env_vars=sorted(name for name in os.environ if name.startswith(_OURS) and name not in _NOT_THEIRS),
        container_kwargs={"auto_remove": True, **({"volumes": volumes} if volumes else {})},
    )
    return launcher


_MAKERS = {"default": _default, "celery": _celery, "docker": _docker}

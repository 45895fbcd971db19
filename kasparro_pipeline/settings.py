"""Everything that can be set, read from the environment.

What belongs here: names, types, defaults. What does not: anything that acts on a setting.
"""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import date
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SIMULATED = ("coingecko", "coinpaprika")
"""Vendors whose API the simulator speaks."""

MIN_OBSERVATION_DAYS = 31
"""The days of a month that is dropped, and the three after it, are never unified again."""

REPOSITORY = Path(__file__).resolve().parents[1]


class Settings(BaseSettings):
    """Kasparro's settings; each is ``KASPARRO_<NAME>`` in the environment unless it says otherwise.

    With nothing set, everything runs on one machine: embedded PostgreSQL, and the simulator as both vendors.
    """

    model_config = SettingsConfigDict(env_prefix="KASPARRO_", env_ignore_empty=True)

    database_url: SecretStr | None = Field(default=None, validation_alias=AliasChoices("DATABASE_URL"))
    """``DATABASE_URL`` of PostgreSQL 17 or newer; unset: the embedded server under `home`."""
    read_url: SecretStr | None = None
    """A streaming replica of that database, from which the API reads; unset: it reads where all else is done."""
    home: Path = REPOSITORY / ".kasparro"
    """Everything that is written outside the database, the embedded database too."""
    postgres_bin: Path | None = None
    """Folder of ``postgres`` and ``initdb`` for the embedded server; unset: those of the wheel, else the system's."""
    drop_dir: Path = REPOSITORY / "data" / "drops"
    """Where CSV drops are looked for, recursively."""

    host: str = "127.0.0.1"
    api_port: int = 8000
    dagster_port: int = 3000
    dagster_url: str | None = None
    """Where the API reaches Dagster's webserver; unset: this machine's, on `dagster_port`."""
    code_host: str = "127.0.0.1"
    """Where webserver and daemon reach the code location."""
    code_port: int = 0
    """Where it listens, on this machine only; 0: 1000 above `dagster_port`."""
    simulator_host: str = "127.0.0.1"
    """Where the simulator is reached."""
    simulator_port: int = 8010
    simulator_rate_per_minute: int = Field(default=600, ge=1)
    """Calls that each simulated vendor admits before it answers 429."""

    api_keys: SecretStr | None = None
    """API keys besides those in the database: ``KEY`` or ``KEY:SCOPE+SCOPE``, commas between."""
    api_read: Literal["auto", "open", "key"] = "auto"
    """Who may read: everybody, holders of a key, or (auto) everybody where the API listens on this machine only."""
    api_rate_per_minute: int | None = Field(default=None, ge=0)
    """Requests a minute for each key, or address without one; 0: no limit; unset: 1200 where others than this machine
    reach the API."""
    api_export_rows: int = Field(default=20_000_000, ge=1)
    """An export of more rows is broken off."""
    api_cors_origins: str = ""
    """Origins whose pages may read the API from a browser, commas between."""
    log_format: Literal["text", "json"] = "text"
    """Of the log lines of every process."""

    alert_webhook_url: SecretStr | None = None
    """Where incidents are told as JSON that Slack takes; a secret, because who knows it can post there."""
    alert_email_to: str = ""
    """To whom incidents are mailed, commas between; needs `smtp_url`."""
    alert_email_from: str = ""
    """The sender; unset: the user in `smtp_url` where it is an address, else ``kasparro@`` this machine."""
    smtp_url: SecretStr | None = None
    """``smtp://[USER:PASSWORD@]HOST[:PORT]`` (STARTTLS where the server has it) or ``smtps://...``."""
    dagster_public_url: str | None = None
    """Where people reach the Dagster UI, for links in alerts; unset: `host` and `dagster_port`."""

    vendors: Literal["simulator", "live"] = "simulator"
    first_day: date = date(2009, 1, 3)
    """First day of every partitioned asset; an observation of an earlier day is quarantined."""
    history_days: int = Field(default=0, ge=0)
    """So long what `unified_assets` said and no longer says is kept, for ``as_of``; 0, here and below: for good."""
    observation_days: int = Field(default=0, ge=0)
    """So long observations are kept, in whole months."""
    payload_days: int = Field(default=0, ge=0)
    """So long payloads are kept that nothing needs any more."""
    event_days: int = Field(default=90, ge=0)
    """So long Dagster keeps the log lines and steps of a run; what was materialized and checked stays."""
    run_days: int = Field(default=0, ge=0)
    """So long Dagster keeps runs, except those that a partition's newest materialization is of."""

    run_launcher: Literal["default", "celery", "docker"] = "default"
    """Where Dagster's runs run: in processes of this machine, on Celery's workers, in a container each.
    On Kubernetes it is Dagster's Helm chart that says so."""
    celery_broker: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    image: str | None = None
    """The image in which a run runs, where it is a container."""
    docker_network: str | None = None
    docker_volumes: str = ""
    """What a run's container has mounted, as ``/on/the/host:/drops:ro``, commas between."""

    check_coin_count: float = Field(default=0.5, ge=0, le=1)
    """A day on which a vendor's list has less than so much of the coins of the day before is not unified; 0: it is."""
    check_sources_agree: float = Field(default=0.5, ge=0, le=1)
    """A day on which more than so much of the coins have prices far from each other is not unified; 1: it is."""

    @field_validator("observation_days")
    @classmethod
    def _leaves_what_is_being_unified(cls, days: int) -> int:
        if 0 < days < MIN_OBSERVATION_DAYS:
            raise ValueError(f"observations are kept for {MIN_OBSERVATION_DAYS} days or more, or (0) for good")
        return days

    @model_validator(mode="after")
    def _code_beside_its_webserver(self) -> Self:
        above = self.dagster_port + 1000
        self.code_port = self.code_port or (above if above < 2**16 else self.dagster_port - 1000)
        return self

    @field_validator("home", "drop_dir")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @property
    def is_private(self) -> bool:
        """Whether only this machine reaches what listens on `host`."""
        with suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost"

    @property
    def uses_simulator(self) -> bool:
        """Whether any vendor is answered by the simulator, so that it has to run."""
        return self.vendors == "simulator" and not all(map(self.vendor_url, SIMULATED))

    def vendor_url(self, source: str) -> str | None:
        """``KASPARRO_<SOURCE>_URL``: the vendor's base URL, such as one up to and including ``/api/v3``."""
        return os.environ.get(f"KASPARRO_{source.upper()}_URL") or None

    def vendor_key(self, source: str) -> SecretStr | None:
        """``KASPARRO_<SOURCE>_API_KEY``: what the vendor knows us by."""
        key = os.environ.get(f"KASPARRO_{source.upper()}_API_KEY")
        return SecretStr(key) if key else None

    @property
    def simulator_url(self) -> str:
        """Where the simulator answers."""
        return f"http://{self.simulator_host}:{self.simulator_port}"


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()

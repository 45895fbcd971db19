"""The way to the database: its URL, an engine on it, and whether it can serve us."""

from __future__ import annotations

from functools import lru_cache

import sqlalchemy as sa
from pydantic import SecretStr

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.settings import Settings, settings
from kasparro_pipeline.warehouse.embedded import EmbeddedPostgres

DRIVER = "postgresql+psycopg"
MINIMUM_VERSION = 17
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
"""Seconds without a word, seconds between questions, unanswered questions; libpq and PostgreSQL name them alike."""


def database_url(settings: Settings) -> sa.URL:
    """The URL of the database, with psycopg 3 as its driver: ``DATABASE_URL``, else the embedded server's.

    Raises:
        KasparroError: ``DATABASE_URL`` is no PostgreSQL URL, or the embedded server was never started.
    """
    if settings.database_url is None:
        return embedded(settings).url
    return _url("DATABASE_URL", settings.database_url)


def read_url(settings: Settings) -> sa.URL:
    """Where the API reads: ``KASPARRO_READ_URL``, else what `database_url` says and raises."""
    if settings.read_url is None:
        return database_url(settings)
    return _url("KASPARRO_READ_URL", settings.read_url)


def _url(name: str, value: SecretStr) -> sa.URL:
    try:
        url = sa.make_url(value.get_secret_value())
    except sa.exc.ArgumentError:
        raise KasparroError(f"{name} is not a URL; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE") from None
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        raise KasparroError(
            f"{name} starts with {url.drivername}://; Kasparro needs PostgreSQL {MINIMUM_VERSION} or newer "
            "(postgresql://USER:PASSWORD@HOST:PORT/DATABASE)"
        )
    return url.set(drivername=DRIVER)


def embedded(settings: Settings) -> EmbeddedPostgres:
    """The embedded server of these settings, whether it runs or not."""
    return EmbeddedPostgres(settings.home, binaries=settings.postgres_bin)


def create_engine(url: sa.URL) -> sa.Engine:
    """An engine on `url` whose sessions speak UTC; connections are checked before they are used.

    Either side notices within a minute that the other's machine is gone, so that no session keeps its locks for hours.
    """
    theirs = " ".join(f"-c tcp_{name}={value}" for name, value in _KEEPALIVES.items())
    return sa.create_engine(
        url,
        pool_pre_ping=True,
        connect_args={
            "options": f"-c timezone=UTC {theirs}",
            "application_name": "kasparro",
            "connect_timeout": 10,
            **_KEEPALIVES,
        },
    )


def ensure_database(settings: Settings) -> sa.URL:
    """Start the embedded server where none is named and none runs, check what answers, and return its URL.

    Raises:
        KasparroError: the server cannot be reached, or is older than PostgreSQL 17.
    """
    if settings.database_url is None:
        embedded(settings).start()
    url = database_url(settings)
    check_server(url)
    return url


def check_server(url: sa.URL) -> None:
    """Raise a `KasparroError` unless a PostgreSQL of `MINIMUM_VERSION` or newer answers at `url`."""
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": 10})
    try:
        with engine.connect() as connection:
            number = int(connection.scalar(sa.text("SHOW server_version_num")) or 0)
    except sa.exc.OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise KasparroError(
            f"no PostgreSQL answers at {url.host}:{url.port or 5432}/{url.database}: {reason}; "
            "check DATABASE_URL, or unset it to use the embedded server"
        ) from None
    if number // 10000 < MINIMUM_VERSION:
        raise KasparroError(
            f"DATABASE_URL leads to PostgreSQL {number // 10000}.{number % 10000}; Kasparro needs {MINIMUM_VERSION} "
            "or newer: upgrade the server, or unset DATABASE_URL to use the embedded one"
        )


def current_engine() -> sa.Engine:
    """The one engine of this process on the database of the settings."""
    return _shared_engine(database_url(settings()))


@lru_cache(maxsize=8)
def _shared_engine(url: sa.URL) -> sa.Engine:
    return create_engine(url)

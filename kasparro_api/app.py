"""The application: what is wired to what."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from kasparro_api import accounts, identity, lineage, problems
from kasparro_api.database import Database
from kasparro_api.frame import RequestFrame
from kasparro_api.routes import router
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.settings import settings as settings_of_process

_DESCRIPTION = """
Crypto market data of several vendors as one table: one row a coin and day, every number traceable to its source.

Numbers that must be exact (prices, caps, volumes, supplies) are JSON **strings** with all their digits.
Every error is a problem document (RFC 9457, `application/problem+json`).
Every answer carries `X-Request-ID`; a request may bring its own.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The REST service over the database that `settings` (default: the environment's) leads to.

    It starts without the database, answers 503 while that is away, and recovers by itself.
    """
    database = Database(settings or settings_of_process())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Database]]:
        await database.open()
        try:
            yield {"database": database}
        finally:
            await database.close()

    app = FastAPIOffline(  # its documentation page loads nothing from elsewhere
        title="Kasparro", version=version("kasparro"), description=_DESCRIPTION, lifespan=lifespan, redoc_url=None
    )
    problems.install(app)
    app.add_middleware(RequestFrame)
    app.include_router(router)
    app.include_router(accounts.router)
    app.include_router(identity.router)
    app.include_router(lineage.router)
    return app

"""The application: what is wired to what."""

from __future__ import annotations

from asyncio import to_thread
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from starlette_compress import CompressMiddleware, add_compress_type

from kasparro_api import documentation, explorer, graph, launch, lineage, problems
from kasparro_api.dagster import Dagster
from kasparro_api.database import Database
from kasparro_api.export import Exporter
from kasparro_api.formats import FORMATS
from kasparro_api.frame import RequestFrame
from kasparro_api.gate import Gate
from kasparro_api.metrics import Metrics
from kasparro_api.routes import router
from kasparro_api.spool import Spool
from kasparro_api.tracing import telemetry, trace_provider
from kasparro_api.versions import DataVersions
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.settings import settings as settings_of_process

_DESCRIPTION = """
Crypto market data of several vendors as one table: one row a coin and day, every number traceable to its source.

Numbers that must be exact (prices, caps, volumes, supplies) are JSON **strings** with all their digits.
Every error is a problem document (RFC 9457, `application/problem+json`).
Every answer carries `X-Request-ID`; a request may bring its own.
A listing's answer carries an `ETag`; with that in `If-None-Match` the answer is 304 as long as nothing has changed.
Every path is also there under `/v1`, HEAD wherever there is GET.
What starts something needs a key with the scope `operate`.
Where a key is needed, give it as `Authorization: Bearer KEY` or `X-API-Key: KEY`.
"""

for _name in ("csv", "ndjson", "arrow"):
    add_compress_type(FORMATS[_name].media_type)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The REST service over the database that `settings` (default: the environment's) leads to.

    It starts without the database, answers 503 while that is away, and recovers by itself.
    """
    chosen = settings or settings_of_process()
    primary = Database(chosen)
    database = primary if chosen.read_url is None else Database(chosen, reads=True)
    traces = trace_provider()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, object]]:
        spool = Spool()
        dagster = Dagster(chosen)
        for each in {primary, database}:
            await each.open()
        try:
            yield {
                "database": database,
                "primary": primary,
                "versions": DataVersions(database),
                "exporter": Exporter(database, chosen.api_export_rows),
                "spool": spool,
                "dagster": dagster,
            }
        finally:
            spool.close()
            await dagster.close()
            if traces:
                await to_thread(traces.shutdown)  # sends the last ones
            for each in {primary, database}:
                await each.close()

    app = FastAPIOffline(  # its documentation page loads nothing from elsewhere
        title="Kasparro",
        version=version("kasparro"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        servers=[{"url": "/"}, {"url": "/v1", "description": "The same, and stays when there is another version."}],
        root_path_in_servers=False,
        telemetry=telemetry(traces),
    )
    problems.install(app)
    app.router.routes[:0] = [
        *router.routes,
        *launch.router(chosen.first_day).routes,
        *graph.router.routes,
        *lineage.router.routes,
        *explorer.router(chosen).routes,
    ]  # `include_router` looks for the route twice on every request
    documentation.document(app, chosen)
    # the last one added is the first to see a request
    app.add_middleware(CompressMiddleware)
    app.add_middleware(Gate, settings=chosen, database=primary)
    if chosen.api_cors_origins:
        origins = [origin.strip() for origin in chosen.api_cors_origins.split(",")]
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "HEAD"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "If-None-Match"],
            expose_headers=["ETag", "Link", "RateLimit", "RateLimit-Policy", "X-Request-ID"],
        )
    app.add_middleware(RequestFrame, metrics=Metrics(), traced=traces is not None)
    return app

"""The routes: each takes checked parameters, asks once, and wraps the answer."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from kasparro_api import operations
from kasparro_api.database import Database
from kasparro_api.frame import elapsed_ms
from kasparro_api.pages import unified_page
from kasparro_api.parameters import DataQuery
from kasparro_api.problems import documented
from kasparro_api.schemas import DataPage, Health, Stats

router = APIRouter()


def _database(request: Request) -> Database:
    database: Database = request.state.database
    return database


def _metadata(request: Request, **more: object) -> dict[str, object]:
    return {"request_id": request.state.request_id, "api_latency_ms": elapsed_ms(request.state.started), **more}


@router.get("/", include_in_schema=False)
async def index() -> Response:
    """Where to begin."""
    return RedirectResponse("/docs")


@router.get(
    "/data",
    tags=["data"],
    summary="The unified asset table",
    responses={200: {"model": DataPage}, **documented(422, 503)},
    openapi_extra=DataQuery.documentation(),
)
async def data(request: Request) -> Response:
    """One row a coin and day, newest day first, then by `coin_id`.

    Prices, caps, supplies and volumes are **strings** that hold exact decimals, with every digit the source gave.
    Days are UTC days, times are RFC 3339 in UTC. Parameters are joined by AND, names in a list by OR.

    `next_cursor` leads to the next page. It names a place in the order, not a number of rows: while rows arrive,
    no row that was there is skipped or given twice.
    """
    query = DataQuery.read(request)
    page = await unified_page(_database(request), query)
    metadata = _metadata(request, count=page.count, limit=query.limit, next_cursor=page.next_cursor)
    body = b'{"metadata":%b,"data":[%b]}\n' % (json.dumps(metadata).encode(), page.rows)
    return Response(body, media_type="application/json")


@router.get(
    "/health",
    tags=["operations"],
    summary="Whether data is served, and how each source's last run went",
    responses={200: {"model": Health}, 503: {"model": Health, "description": "The database is away."}},
)
async def health(request: Request) -> Response:
    """200 while the database answers, also when a source's last run or a check failed (`degraded`); 503 otherwise.

    Answers within three seconds.
    """
    report = await operations.health(_database(request))
    status = 503 if report["status"] == "unavailable" else 200
    return JSONResponse({**report, "metadata": _metadata(request)}, status, {"Cache-Control": "no-store"})


@router.get(
    "/stats",
    tags=["operations"],
    summary="What was processed, by source",
    responses={200: {"model": Stats}, **documented(503)},
)
async def stats(request: Request) -> Response:
    """Records, payloads, quarantine, durations, last success and last failure of every source.

    Large tables are not counted but estimated; `exact` says which.
    """
    report = await operations.stats(_database(request))
    return JSONResponse({"metadata": _metadata(request), **report})

"""The routes: each takes checked parameters, asks once, and wraps the answer."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from kasparro_api import launch, listings, operations, queries
from kasparro_api.metrics import Metrics
from kasparro_api.parameters import QueryParameters
from kasparro_api.problems import documented
from kasparro_api.schemas import (
    Alive,
    CoinAnswer,
    Comparison,
    Health,
    RunAnswer,
    Stats,
)
from kasparro_api.serve import NOT_CHANGED, add_listing, database_of, metadata, one_object

router = APIRouter()

add_listing(router, "/data", listings.DATA, tag="data", summary="The unified asset table")
add_listing(router, "/latest", listings.LATEST, tag="data", summary="The newest day, greatest market cap first")
add_listing(router, "/coins", listings.COINS, tag="data", summary="All coins")
add_listing(router, "/coins/{coin_id}/history", listings.HISTORY, tag="data", summary="The days of a coin")
add_listing(
    router,
    "/coins/{coin_id}/observations",
    listings.OBSERVATIONS,
    tag="data",
    summary="What the sources said of a coin",
)
add_listing(router, "/sources", listings.SOURCES, tag="operations", summary="The sources")
add_listing(router, "/identity/review", listings.REVIEW, tag="data", summary="Coins that may be one")
add_listing(router, "/quarantine", listings.QUARANTINE, tag="operations", summary="Records that could not be read")
add_listing(router, "/drift", listings.DRIFT, tag="operations", summary="Changes in the sources' fields")
add_listing(router, "/runs", listings.RUNS, tag="operations", summary="What ran")


class _Nothing(QueryParameters):
    """A route without parameters."""


class _TwoRuns(QueryParameters):
    a: str = Field(description="A run, the earlier one.", examples=["0b1c9f0e-6a52-4a5d-9a3e-1f6d5a7f4d10"])
    b: str = Field(description="The run to compare with it.", examples=["5f3f2c39-51c2-4a0e-8d22-5f2c8f8a9f11"])


@router.get(
    "/coins/{coin_id}",
    tags=["data"],
    summary="One coin",
    responses={200: {"model": CoinAnswer}, **NOT_CHANGED, **documented(404, 422, 503)},
)
async def coin(request: Request, coin_id: str) -> Response:
    """Who calls it what, by which evidence, and its newest row."""
    _Nothing.read(request.query_params)
    return await _one(request, queries.COIN, {"coin_id": coin_id}, "there is no such coin; /coins lists them")


@router.get(
    "/runs/{run_id}",
    tags=["operations"],
    summary="One run, step by step",
    responses={200: {"model": RunAnswer}, **NOT_CHANGED, **documented(404, 422, 503)},
)
async def run(request: Request, run_id: str) -> Response:
    """What a Dagster run did for each asset and source; also of one that `POST /runs` started and that is queued."""
    _Nothing.read(request.query_params)
    try:
        return await _one(request, queries.RUN, {"run_id": run_id}, "there is no such run; /runs lists them")
    except HTTPException:
        if "\x00" in run_id or (told := await launch.unbegun(request, run_id)) is None:
            raise
    return JSONResponse({"metadata": metadata(request), "data": told}, headers={"Cache-Control": "no-store"})


@router.get(
    "/compare-runs",
    tags=["operations"],
    summary="Two runs side by side",
    responses={200: {"model": Comparison}, **NOT_CHANGED, **documented(404, 422, 503)},
    openapi_extra=_TwoRuns.documentation(),
)
async def compare_runs(request: Request) -> Response:
    """Counts by outcome and durations, coins that are new in `b` or no longer there, and prices, caps and volumes that
    moved unlike the others.

    The coins of a run are those of the payloads it fetched or parsed. A number is an anomaly when its logarithmic
    change lies more than six scaled median absolute deviations, and more than one percent, from the median change of
    its kind.
    """
    asked = _TwoRuns.read(request.query_params)
    return await _one(request, queries.COMPARED_RUNS, asked.model_dump(), "no such run as a or b; /runs lists them")


async def _one(request: Request, query: str, values: dict[str, Any], missing: str) -> Response:
    """The one JSON object that `query` gives, in the frame of every answer."""
    if any("\x00" in value for value in values.values()):
        raise HTTPException(404, missing)
    async with database_of(request).connection() as connection:
        found = await (await connection.execute(query, values, binary=True)).fetchone()
    if found is None or found[0] is None:
        raise HTTPException(404, missing)
    return one_object(request, b'"data":' + found[0])


@router.get(
    "/health/live", tags=["operations"], summary="Whether the process answers", responses={200: {"model": Alive}}
)
async def alive() -> Response:
    """200 as long as the process lives; whether it is of use, `/health` tells."""
    return JSONResponse({"status": "ok"}, headers={"Cache-Control": "no-store"})


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
    report = await operations.health(database_of(request))
    status = 503 if report["status"] == "unavailable" else 200
    return JSONResponse({**report, "metadata": metadata(request)}, status, {"Cache-Control": "no-store"})


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
    report = await operations.stats(database_of(request))
    return JSONResponse({"metadata": metadata(request), **report})


@router.get(
    "/metrics",
    tags=["operations"],
    summary="For Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"example": "kasparro_database_up 1.0\n"}}}, **documented()},
)
async def metrics(request: Request) -> Response:
    """By source: lag, age of the last success, observations, quarantine, and the vendor's calls: made, allowed, left of
    the day and the month. Rows by table, days that wait to be unified, failed checks, request latency.

    `kasparro_database_up` is 0 while the database is away.
    """
    measured: Metrics = request.state.metrics
    return Response(await measured.text(database_of(request)), media_type=measured.media_type)

"""``POST /runs``: loads that somebody asks for, such as the scheduler of a cloud."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import JSONResponse

from kasparro_api.dagster import Dagster, dagster_of
from kasparro_api.database import Database
from kasparro_api.problems import documented, problem
from kasparro_api.run_plan import PlannedRun, RunRequest, planned
from kasparro_api.run_requests import KEPT_HOURS, AnotherRequestError, Asked, RunRequests, UnderWayError
from kasparro_api.schemas import Launched
from kasparro_api.serve import metadata, primary_of
from kasparro_pipeline.ranges import RANGE_END, RANGE_START, SOURCE_TAG, range_tags

REQUEST_TAG = "kasparro/request"
"""Of a run: the request it was launched for."""
SECONDS_A_RUN = 10
"""More than a launch may take before it is given up."""

_FOLDERS = r"""
SELECT source, array_agg(partition ORDER BY partition) FROM kasparro.checkpoint
WHERE source LIKE 'csv\_%' GROUP BY source
"""
_STATUSES = {
    "STARTED": "running",
    "CANCELING": "running",
    "SUCCESS": "success",
    "FAILURE": "failure",
    "CANCELED": "failure",
}
"""Dagster's word to ours; all others are queued."""

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description=f"The same key and body answer with the same runs for {KEPT_HOURS} hours, and start nothing more. "
        "A new one for each load that is wanted.",
        examples=["nightly-2026-11-01"],
    ),
]


def router(first_day: date) -> APIRouter:
    """The route; no day before `first_day` may be asked for."""
    routes = APIRouter(tags=["operations"])

    @routes.post(
        "/runs",
        status_code=202,
        summary="Load sources now",
        responses={
            202: {
                "model": Launched,
                "headers": {
                    "Location": {"schema": {"type": "string"}, "description": "Where to see how the runs go."},
                    "Idempotency-Replayed": {
                        "schema": {"type": "string"},
                        "description": "`true`: these runs were started before.",
                    },
                },
            },
            **documented(400, 409, 413, 422, 502, 503),
        },
    )
    async def launch(
        request: Request, body: RunRequest | None = None, idempotency_key: IdempotencyKey = None
    ) -> JSONResponse:
        """Start one Dagster run a source, or a range of drops: what is due is fetched and parsed. The days that this
        touches are unified by a run that follows by itself.

        Needs a key with the scope `operate`, always. Drops are those that Dagster knows; new files are taken in by
        the sensor of the drop folder. Loading the same again changes nothing.
        """
        body = body or RunRequest.model_validate({})
        asked = Asked.of(request.state.key.key_id, idempotency_key, body.model_dump_json())
        requests = RunRequests(primary_of(request))
        try:
            if (known := await requests.answered(asked)) is not None:
                return _answer(request, known, replayed=True)
            runs = await planned(body, first_day, dagster_of(request), await _folders(requests.database))
            request_id = await requests.claim(asked, SECONDS_A_RUN * (len(runs) + 1))
            if request_id is None:  # the same was asked at the same time
                known = await requests.answered(asked)
                if known is None:
                    raise UnderWayError
                return _answer(request, known, replayed=True)
        except AnotherRequestError:
            detail = "Idempotency-Key: it belongs to a request with another body; give a new key"
            return problem(request, 422, "idempotency-key-reused", detail)
        except UnderWayError:
            detail = "the same request is under way; ask again"
            return problem(request, 409, "request-under-way", detail, {"Retry-After": "2"})
        return _answer(request, await _launch(requests, request_id, runs, dagster_of(request)))

    return routes


async def unbegun(request: Request, run_id: str) -> dict[str, Any] | None:
    """A run that was launched here and has done nothing yet, as `schemas.Run`; None: none is known.

    Raises:
        DagsterUnavailableError: how it is can not be told.
    """
    launched = await RunRequests(primary_of(request)).launched(run_id)
    told = await dagster_of(request).run_status(run_id) if launched else None
    if launched is None or told is None:
        return None
    status = _STATUSES.get(told["status"], "queued")
    failed = f"Dagster: {told['status'].lower()}; see the run in its UI" if status == "failure" else None
    times = {"started_at": _time(told["startTime"]), "ended_at": _time(told["endTime"]), "duration_s": None}
    counts = dict.fromkeys(("records", "inserted", "updated", "unchanged", "quarantined"))
    about = {"run_id": run_id, "status": status, "sources": [launched["source"]]}
    return {**about, **times, **counts, "error": failed, "steps": []}


async def _launch(
    requests: RunRequests, request_id: str, runs: Sequence[PlannedRun], dagster: Dagster
) -> list[dict[str, Any]]:
    """Launch what was not launched for this request before."""
    try:
        before = await dagster.runs_tagged(REQUEST_TAG, request_id)
        launched = [_told(run_id, tags[SOURCE_TAG], *_ends(tags)) for run_id, tags in before.items()]
        there = {(run["source"], run["first_partition"]) for run in launched}
        for run in runs:
            if (run.source, run.first) not in there:
                tags = {**range_tags(run.first, run.last), REQUEST_TAG: request_id}
                run_id = await dagster.launch(run.source, run.repository, tags)
                launched.append(_told(run_id, run.source, run.first, run.last))
        launched.sort(key=lambda run: (run["source"], run["first_partition"]))
        await requests.answer(request_id, launched)
    except BaseException:
        await requests.release(request_id)
        raise
    return launched


def _told(run_id: str, source: str, first: str, last: str) -> dict[str, Any]:
    return {"run_id": run_id, "source": source, "first_partition": first, "last_partition": last}


def _ends(tags: dict[str, str]) -> tuple[str, str]:
    return tags[RANGE_START], tags[RANGE_END]


def _answer(request: Request, runs: Sequence[dict[str, Any]], *, replayed: bool = False) -> JSONResponse:
    root = request.scope.get("root_path", "")
    ids = ",".join(run["run_id"] for run in runs)
    headers = {}
    request.state.also_logged = {"run_id": ids or "-"}
    if runs:
        headers["Location"] = f"{root}/runs/{ids}" if len(runs) == 1 else f"{root}/runs?run_id={ids}"
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse({"metadata": metadata(request), "data": list(runs)}, 202, headers)


async def _folders(database: Database) -> dict[str, list[str]]:
    async with database.connection() as connection:
        return dict(await (await connection.execute(_FOLDERS)).fetchall())


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")

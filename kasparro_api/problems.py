"""RFC 9457 problem details for every error, each with the request's id; never a traceback or SQL."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Match

from kasparro_api.copying import TooManyRowsError
from kasparro_api.dagster import DagsterRefusedError, DagsterUnavailableError
from kasparro_api.database import STATEMENT_TIMEOUT_S, DatabaseUnavailableError, QueryTimeoutError

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "2"}  # seconds

logger = logging.getLogger(__name__)


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(examples=["urn:kasparro:problem:invalid-request"])
    title: str = Field(examples=["Unprocessable Entity"])
    status: int = Field(examples=[422])
    detail: str = Field(description="What to do about it.", examples=["from: not a day: write YYYY-MM-DD"])
    instance: str = Field(description="The path that was asked for.", examples=["/data"])
    request_id: str = Field(description="As in the header `X-Request-ID` and in the log.")


def problem(
    request: Request, status: int, kind: str, detail: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that failed."""
    body = Problem(
        type=f"urn:kasparro:problem:{kind}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=request.url.path,
        request_id=request.state.request_id,
    )
    return JSONResponse(body.model_dump(), status, headers, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    refusals = (401, 403, 429)  # by the gate, whatever the route
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, *refusals})
    }


def install(app: FastAPI) -> None:
    """Answer every error that a route of `app` may meet with a problem."""

    @app.exception_handler(RequestValidationError)
    async def invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        return problem(request, 422, "invalid-request", "; ".join(map(_told, error.errors())))

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if "Allow" in headers:  # Starlette tells those of the first route alone
            methods = _methods(request) | {"OPTIONS"}
            headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
            if request.method == "OPTIONS":
                return Response(status_code=204, headers=headers)
        # one name whatever the version of Python calls it
        phrase = "Content Too Large" if error.status_code == 413 else HTTPStatus(error.status_code).phrase
        kind = phrase.lower().replace(" ", "-")
        nowhere = error.status_code == 404 and error.detail == HTTPStatus.NOT_FOUND.phrase
        detail = "nothing is here; /docs lists what there is" if nowhere else error.detail
        return problem(request, error.status_code, kind, detail, headers)

    @app.exception_handler(DatabaseUnavailableError)
    async def database_unavailable(request: Request, error: DatabaseUnavailableError) -> Response:
        return unavailable(request, error)

    @app.exception_handler(QueryTimeoutError)
    async def query_timeout(request: Request, _error: QueryTimeoutError) -> Response:
        return query_timed_out(request)

    @app.exception_handler(DagsterUnavailableError)
    async def dagster_unavailable(request: Request, error: DagsterUnavailableError) -> Response:
        logger.warning("%s (request_id=%s): %r", error, request.state.request_id, error.__cause__)
        return problem(request, 503, "dagster-unavailable", str(error), {"Retry-After": "10"})

    @app.exception_handler(DagsterRefusedError)
    async def dagster_refused(request: Request, error: DagsterRefusedError) -> Response:
        return problem(request, 502, "dagster-refused", f"Dagster: {error}")

    @app.exception_handler(TooManyRowsError)
    async def too_many_rows(request: Request, error: TooManyRowsError) -> Response:
        detail = f"an export has {error} rows at most: ask for fewer days or coins, or give a limit"
        return problem(request, 422, "too-many-rows", detail)


def unavailable(request: Request, error: DatabaseUnavailableError) -> JSONResponse:
    """The answer while the database is away."""
    if error.__cause__:
        reason = str(error.__cause__).partition("\n")[0]  # the rest is the statement
        logger.warning("%s (request_id=%s): %s", error, request.state.request_id, reason)
    return problem(request, 503, "database-unavailable", str(error), RETRY_AFTER)


def query_timed_out(request: Request) -> JSONResponse:
    """The answer to a query that took too long."""
    detail = f"the query took more than {STATEMENT_TIMEOUT_S} s and was stopped: ask for fewer days or coins"
    return problem(request, 503, "query-timeout", detail, RETRY_AFTER)


def internal_error(request: Request) -> JSONResponse:
    """The answer to a request that met a defect of ours; the log has the traceback under the same request id."""
    return problem(request, 500, "internal-error", "the service failed; its log has the reason under this request_id")


def _methods(request: Request) -> set[str]:
    """What any route takes at the request's path."""
    there = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in there for method in getattr(route, "methods", None) or ()}


def _told(item: Mapping[str, Any]) -> str:
    parameter = ".".join(str(part) for part in item["loc"][1:])
    message = str(item["msg"]).removeprefix("Value error, ")
    told = f"{parameter}: {message}" if parameter else message
    return told.encode("utf-8", "replace").decode()  # half a surrogate pair may stand in a body's names

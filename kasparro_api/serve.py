"""From a listing to a route: what is asked, what has not changed since, and the answer in its format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from functools import partial
from importlib.metadata import version
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from psycopg import errors
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from kasparro_api import cursor, listing_sql
from kasparro_api.database import Database
from kasparro_api.export import Exporter
from kasparro_api.formats import FORMATS
from kasparro_api.frame import elapsed_ms
from kasparro_api.listing import Listing
from kasparro_api.listing_query import PAGE, ListingQuery, query_model
from kasparro_api.parameters import refused
from kasparro_api.problems import documented
from kasparro_api.schemas import Page, example_of
from kasparro_api.spool import Spool
from kasparro_api.versions import DataVersions

_NO_COIN = "there is no such coin; /coins lists and searches them"
_CODE = version("kasparro").encode()

_CACHED = {"Cache-Control": "private, no-cache", "Vary": "Accept"}
"""An answer may be kept, and has to be asked for again with its ETag."""


class _Direct(APIRoute):
    """A route whose endpoint is called with the request: it reads and checks its parameters itself.

    It has no dependencies, so nothing of what FastAPI puts around them; its errors are the application's to handle.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as FastAPI's
        super().__init__(*args, **kwargs)
        self.app = self._answer

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        response: Response = await self.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)


def add_listing(router: APIRouter, path: str, listing: Listing, *, tag: str, summary: str) -> None:
    """Serve `listing` at `path`, whose path parameters are bound as ``in_<name>``, and document it."""
    model = query_model(listing)
    statuses = (404, 422, 503) if "{" in path else (422, 503)

    async def answer(request: Request) -> Response:
        given = {f"in_{name}": value for name, value in request.path_params.items()}
        if any("\x00" in value for value in given.values()):  # PostgreSQL has no such text
            raise HTTPException(404, _NO_COIN)
        return await _answer(request, model.asked(request), given)

    documentation = model.documentation()
    documentation["parameters"] += [_path_parameter(name) for name in _path_names(path)]
    router.add_api_route(
        path,
        answer,
        tags=[tag],
        summary=summary,
        description=listing.description,
        operation_id=listing.name,
        responses={
            200: {"model": Page[listing.row], "content": _content(listing), "headers": _HEADERS},  # type: ignore[name-defined]
            **NOT_CHANGED,
            **documented(*statuses),
        },
        response_class=Response,
        openapi_extra=documentation,
        route_class_override=_Direct,
    )


def metadata(request: Request, **more: object) -> dict[str, object]:
    """What every JSON answer of ours tells about itself."""
    return {"request_id": request.state.request_id, "api_latency_ms": elapsed_ms(request.state.started), **more}


NOT_CHANGED: dict[int | str, dict[str, Any]] = {
    304: {"description": "Not changed since the answer whose ETag the request's If-None-Match has."}
}


def one_object(request: Request, members: bytes) -> Response:
    """One JSON object of these `members`, after the metadata that every answer has; 304 where the caller has it."""
    etag = f'W/"{hashlib.blake2b(members, digest_size=12).hexdigest()}"'
    headers = {**_CACHED, "ETag": etag}
    if not_changed(request, etag):
        return Response(status_code=304, headers=headers)
    body = b'{"metadata":%b,%b}\n' % (json.dumps(metadata(request)).encode(), members)
    return Response(body, media_type="application/json", headers=headers)


def not_changed(request: Request, etag: str) -> bool:
    """Whether the caller has what `etag` stands for."""
    return _matches(request.headers.get("if-none-match", ""), etag)


def database_of(request: Request) -> Database:
    """Where what is served is read."""
    database: Database = request.state.database
    return database


def primary_of(request: Request) -> Database:
    """The database itself, where there is a replica that is read."""
    primary: Database = request.state.primary
    return primary


async def _answer(request: Request, query: ListingQuery, given: Mapping[str, Any]) -> Response:
    try:
        return await _checked_answer(request, query, given)
    except errors.InvalidParameterValue as error:  # raised by kasparro.history_reaches
        raise refused("as_of", error.diag.message_primary or "is before the history that is kept") from None


async def _checked_answer(request: Request, query: ListingQuery, given: Mapping[str, Any]) -> Response:
    asked = request.headers.get("if-none-match")
    exporter: Exporter = request.state.exporter
    streamed = query.format != "json"
    if streamed:
        exporter.check(query)
    held = await _version(request, query.listing) if asked or streamed else None
    if asked and (etag := _etag(request, query, held)) and _matches(asked, etag):
        return Response(status_code=304, headers={"ETag": etag, **_CACHED})
    if streamed:
        return await _export(request, query, given, _etag(request, query, held))
    return await _page(request, query, given)


async def _page(request: Request, query: ListingQuery, given: Mapping[str, Any]) -> Response:
    statement, values = listing_sql.page(query, given)
    async with database_of(request).connection() as connection:
        ((rows, count, place, held),) = await (await connection.execute(statement, values, binary=True)).fetchall()
        if not rows:
            await _require(connection, given)
        total = await _total(connection, query, given)
    rows = rows or b""
    limit = query.limit or PAGE
    following = None
    if count > limit:
        # JSON escapes line ends, so they stand between rows only
        rows, count = rows.rpartition(b",\n")[0], limit
        following = cursor.encode(query.order, json.loads(place) if place else _place(query, rows))
    told = metadata(request, count=count, limit=limit, next_cursor=following, **total)
    headers = dict(_CACHED)
    if etag := _etag(request, query, held):
        headers["ETag"] = etag
    if following:
        headers["Link"] = f'<{_following(request, following)}>; rel="next"'
    body = b'{"metadata":%b,"data":[%b]}\n' % (json.dumps(told).encode(), rows)
    return Response(body, media_type="application/json", headers=headers)


def _place(query: ListingQuery, rows: bytes) -> list[str]:
    last = json.loads(rows.rpartition(b"\n")[2])
    columns = listing_sql.place_columns(query.listing.orders[query.order], query.columns) or []
    return [str(last[name]) for name in columns]


async def _require(connection: Any, given: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Tell nothing from an empty listing: a coin that there is not is a 404."""
    if "in_coin_id" not in given:
        return
    found = await connection.execute("SELECT FROM kasparro.coin WHERE coin_id = %(in_coin_id)s", given)
    if not found.rowcount:
        raise HTTPException(404, _NO_COIN)


async def _total(connection: Any, query: ListingQuery, given: Mapping[str, Any]) -> dict[str, object]:  # noqa: ANN401
    if query.count == "none":
        return {}
    exact = query.count == "exact"
    statement, values = (listing_sql.counted if exact else listing_sql.estimated)(query, given)
    (found,) = await (await connection.execute(statement, values)).fetchone()
    return {"total": found if exact else int(found[0]["Plan"]["Plan Rows"]), "total_exact": exact}


async def _export(request: Request, query: ListingQuery, given: Mapping[str, Any], etag: str | None) -> Response:
    format_ = FORMATS[query.format or ""]
    headers = {
        **_CACHED,
        **({"ETag": etag} if etag else {}),
        "Content-Disposition": f'attachment; filename="{query.listing.name}.{format_.suffix}"',
    }
    if "in_coin_id" in given:
        async with database_of(request).connection() as connection:
            await _require(connection, given)
    exporter: Exporter = request.state.exporter
    if query.format == "parquet":
        return await _file(request, partial(exporter.begin, query, given), headers)
    if request.state.head:
        return Response(headers=headers, media_type=format_.media_type)
    return _Streamed(await exporter.begin(query, given), headers=headers, media_type=format_.media_type)


async def _file(
    request: Request, make: Callable[[], Awaitable[AsyncGenerator[bytes, None]]], headers: dict[str, str]
) -> Response:
    """A file that can be asked for in parts, as readers of Parquet do."""
    spool: Spool = request.state.spool
    asked = f"{request.scope['path']}?{request.scope['query_string'].decode()}"
    file = await spool.file(asked, headers.get("ETag"), make, part="range" in request.headers)
    if file.etag:
        headers["ETag"] = file.etag
    media_type = FORMATS["parquet"].media_type
    if request.state.head:
        size = {"Accept-Ranges": "bytes", "Content-Length": str(file.path.stat().st_size)}
        return Response(headers={**headers, **size}, media_type=media_type)
    return FileResponse(file.path, headers=headers, media_type=media_type)


class _Streamed(StreamingResponse):
    """A stream that is closed when it ends, also when the client has gone."""

    body_iterator: AsyncGenerator[bytes, None]

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            await self.body_iterator.aclose()


# -- what has not changed -----------------------------------------------------------------------------------------


async def _version(request: Request, listing: Listing) -> str:
    versions: DataVersions = request.state.versions
    found = await versions.now()
    ids = [int(one) for table in listing.tables for one in found.get(table, "").split(".") if one]
    return ".".join(map(str, sorted(ids)))


def _etag(request: Request, query: ListingQuery, held: str | None) -> str | None:
    """Weak, since latency and request id differ between equal answers."""
    if not query.listing.tables:
        return None
    scope = request.scope
    asked = b"\n".join((scope["path"].encode(), scope["query_string"], (query.format or "").encode()))
    told = hashlib.blake2b(b"%b\n%b\n%b" % (_CODE, (held or "").encode(), asked), digest_size=12)
    return f'W/"{told.hexdigest()}"'


def _matches(asked: str, etag: str) -> bool:
    return asked.strip() == "*" or etag.removeprefix("W/") in [
        one.strip().removeprefix("W/") for one in asked.split(",")
    ]


def _following(request: Request, place: str) -> str:
    asked = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    path = request.scope["raw_path"].decode("latin-1")  # percent-encoded, as a header has to be
    return f"{path}?{urlencode([*asked, ('cursor', place)])}"


# -- documentation ------------------------------------------------------------------------------------------------

_HEADERS = {
    "ETag": {"schema": {"type": "string"}, "description": "Give it back as If-None-Match."},
    "Link": {"schema": {"type": "string"}, "description": 'The next page, `rel="next"`; not on the last.'},
}


def _content(listing: Listing) -> dict[str, Any]:
    place = cursor.encode(listing.default_order, ["…"])
    row = example_of(listing.row)
    told = {"request_id": "6f1c0d3f5b0e4f51", "api_latency_ms": 2.417, "count": 1, "limit": 1, "next_cursor": place}
    binary = {"schema": {"type": "string", "format": "binary"}}
    others = {format_.media_type: binary for name, format_ in FORMATS.items() if name != "json"}
    return {"application/json": {"example": {"metadata": told, "data": [row]}}, **others}


def _path_names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "example": "bitcoin"}

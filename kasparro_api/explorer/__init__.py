"""The explorer: one page over the API, its files served by this process and asking no other host for anything."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from kasparro_pipeline.settings import Settings

PAGE = "index.html"
ASSETS = "/explorer/"
"""Below it are the files of the page."""

_MEDIA_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "explorer.css": "text/css; charset=utf-8",
    "api.js": "text/javascript; charset=utf-8",
    "chart.js": "text/javascript; charset=utf-8",
    "coin.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "explorer.js": "text/javascript; charset=utf-8",
    "lineage.js": "text/javascript; charset=utf-8",
    "operations.js": "text/javascript; charset=utf-8",
    "spark.js": "text/javascript; charset=utf-8",
    "uplot/uPlot.iife.min.js": "text/javascript; charset=utf-8",
    "uplot/uPlot.min.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-cache",  # kept, and asked for again with its ETag
}


def router(settings: Settings) -> APIRouter:
    """The page at ``/``, its files, and what it has to know of `settings`; nothing of it needs a key."""
    routes = APIRouter(include_in_schema=False)
    for name in _MEDIA_TYPES:
        routes.add_api_route("/" if name == PAGE else f"{ASSETS}{name}", _serving(name))

    @routes.get(f"{ASSETS}places.json")
    async def places() -> Response:
        """Where the Dagster UI is; a null `host` is the one that the page itself came from."""
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        everywhere = host in ("0.0.0.0", "[::]")  # noqa: S104 - compared, not listened on
        dagster = {"host": None if everywhere else host, "port": settings.dagster_port}
        return JSONResponse({"dagster": dagster}, headers={"Cache-Control": "no-store"})

    return routes


def _serving(name: str) -> Callable[[Request], Awaitable[Response]]:
    body = files(__package__).joinpath(name).read_bytes()
    etag = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'  # weak: the answer may be compressed
    headers = {**_HEADERS, "ETag": etag}

    async def serve(request: Request) -> Response:
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=_MEDIA_TYPES[name])

    return serve

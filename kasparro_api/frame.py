"""What surrounds every request: its id, its time, security headers, one log line, and the answer to a defect."""

from __future__ import annotations

import logging
import re
import uuid
from time import perf_counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kasparro_api.problems import internal_error

_SAFE_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")

logger = logging.getLogger("kasparro_api.access")


class RequestFrame:
    """ASGI middleware; sets `request.state.request_id` and `request.state.started` (of `perf_counter`)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {}).update(request_id=request_id, started=started)
        status = 0

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                headers["X-Content-Type-Options"] = "nosniff"
            await send(message)

        try:
            await self._app(scope, receive, send_framed)
        except Exception:
            logger.exception("request failed request_id=%s", request_id)
            if status:  # half an answer is out: only the server can break it off
                raise
            await internal_error(Request(scope))(scope, receive, send_framed)
        finally:
            # the path as it came, still percent-encoded, so that no line can be forged; the query may hold anything
            path = scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "backslashreplace")
            logger.info(
                "method=%s path=%s status=%d latency_ms=%.1f request_id=%s",
                scope["method"],
                path,
                status,
                elapsed_ms(started),
                request_id,
            )


def elapsed_ms(started: float) -> float:
    """Milliseconds since `started`, rounded to a microsecond."""
    return round((perf_counter() - started) * 1000, 3)


def _request_id(scope: Scope) -> str:
    given = Headers(scope=scope).get("x-request-id", "")
    return given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex

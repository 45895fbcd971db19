"""What surrounds every request: its id, its time, its version, headers, one log line, and the answer to a defect."""

from __future__ import annotations

import logging
import re
from secrets import token_hex
from time import perf_counter

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kasparro_api import tracing
from kasparro_api.metrics import Metrics
from kasparro_api.problems import internal_error, problem

_TOO_LARGE = "a request body may have a megabyte"
_SAFE_ID = re.compile(r"[A-Za-z0-9._:+/=-]{1,128}")

logger = logging.getLogger("kasparro_api.access")


MAX_BODY_BYTES = 1 << 20

_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
)
_VERSION = "/v1"


class RequestFrame:
    """ASGI middleware; sets `request.state.request_id`, `.started` (of `perf_counter`) and `.head`.

    What a route leaves in `request.state.also_logged`, a mapping of words, stands in the log line.

    ``/v1/…`` is what it is without ``/v1``. HEAD is GET without its body. A request body may have `MAX_BODY_BYTES`.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, *, traced: bool = False) -> None:
        self._app = app
        self._metrics = metrics
        self._traced = traced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        method = scope["method"]
        given = dict(scope["headers"])
        request_id = _request_id(given)
        scope = _plain(scope)
        scope["state"].update(request_id=request_id, started=started, head=method == "HEAD", metrics=self._metrics)
        if self._traced:
            tracing.tell(request_id)
        status = 0

        async def send_framed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), *_HEADERS]
            await send(message)

        try:
            if _is_too_large(given):
                refusal = problem(Request(scope), 413, "content-too-large", _TOO_LARGE)
                await refusal(scope, receive, send_framed)
            else:
                await self._app(scope, _limited(receive), send_framed)
        except Exception:
            logger.exception("request failed request_id=%s", request_id)
            if status:  # half an answer is out: only the server can break it off
                raise
            await internal_error(Request(scope))(scope, receive, send_framed)
        finally:
            self._tell(scope, method, status)

    def _tell(self, scope: Scope, method: str, status: int) -> None:
        state = scope["state"]
        took = elapsed_ms(state["started"])
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.answered(route, method, status, took / 1000)
        # the path as it came, still percent-encoded, so that no line can be forged; the query may hold anything
        path = scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "backslashreplace")
        key = state.get("key")
        fields = {
            "method": method,
            "path": path,
            "status": status,
            "latency_ms": round(took, 1),
            "request_id": state["request_id"],
            **({"key_id": key.key_id} if key else {}),
            **state.get("also_logged", {}),
        }
        line = " ".join(f"{name}=%s" for name in fields)
        logger.info(line, *fields.values(), extra={"fields": fields})


def _plain(scope: Scope) -> Scope:
    """The request that is meant: without the version, and GET for HEAD."""
    scope = {**scope, "state": {**scope.get("state", {})}}
    if scope["path"].startswith(f"{_VERSION}/"):
        scope["root_path"] = scope.get("root_path", "") + _VERSION
    if scope["method"] == "HEAD":
        scope["method"] = "GET"
    return scope


def _is_too_large(headers: dict[bytes, bytes]) -> bool:
    length = headers.get(b"content-length", b"")
    return length.isdigit() and int(length) > MAX_BODY_BYTES


def _limited(receive: Receive) -> Receive:
    """A body that does not tell its length is counted as it comes."""
    count = 0

    async def receive_limited() -> Message:
        nonlocal count
        message = await receive()
        count += len(message.get("body", b""))
        if count > MAX_BODY_BYTES:
            raise HTTPException(413, _TOO_LARGE)
        return message

    return receive_limited


def elapsed_ms(started: float) -> float:
    """Milliseconds since `started`, rounded to a microsecond."""
    return round((perf_counter() - started) * 1000, 3)


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if _SAFE_ID.fullmatch(given) else token_hex(16)

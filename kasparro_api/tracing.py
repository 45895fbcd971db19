"""Traces for OpenTelemetry, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says where to send them (over HTTP).

A span a request, with the caller's trace (``traceparent``) as its parent, our request id, and the route as its name.
Further settings are OpenTelemetry's own, such as ``OTEL_SERVICE_NAME`` or ``OTEL_TRACES_SAMPLER``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kasparro_pipeline.errors import KasparroError

if TYPE_CHECKING:
    from opentelemetry.trace import Span

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
REQUEST_ID = "kasparro.request_id"


def trace(app: FastAPI) -> Callable[[], None]:
    """Have `app` send traces where the environment asks for it; returns what sends the last ones and ends it.

    Raises:
        KasparroError: it is asked for, and the packages are not installed.
    """
    if not os.environ.get(ENDPOINT):
        return lambda: None
    try:  # half a second and 15 MB that a service without traces does without
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise KasparroError(f"{ENDPOINT} is set, which takes pip install 'kasparro[otel]': {error}") from None
    ours = Resource({"service.name": "kasparro-api", "service.version": version("kasparro")})
    provider = TracerProvider(resource=Resource.create().merge(ours).merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    app.add_middleware(_NamedByRoute)
    app.add_middleware(
        OpenTelemetryMiddleware,
        tracer_provider=provider,
        server_request_hook=_told,
        exclude_spans=["receive", "send"],
    )
    return provider.shutdown


def _told(span: Span, scope: dict[str, Any]) -> None:
    span.set_attribute(REQUEST_ID, scope["state"]["request_id"])


class _NamedByRoute:
    """ASGI middleware; names the span by the route, known when the answer begins, so that there are few names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry.trace import get_current_span  # noqa: PLC0415

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                span, route = get_current_span(), getattr(scope.get("route"), "path", None)
                span.update_name(f"{scope['method']} {route}" if route else scope["method"])
                if route:
                    span.set_attribute("http.route", route)
            await send(message)

        await self._app(scope, receive, send_named)

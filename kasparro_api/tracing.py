"""Traces for OpenTelemetry, where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says where to send them (over HTTP).

The spans are FastAPI's own: one a request, named by its route, with the caller's ``traceparent`` as its parent. Further
settings are OpenTelemetry's, such as ``OTEL_SERVICE_NAME`` or ``OTEL_TRACES_SAMPLER``.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING

from kasparro_pipeline.errors import KasparroError

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
REQUEST_ID = "kasparro.request_id"


def trace_provider() -> TracerProvider | None:
    """What takes the spans and sends them; None where the environment does not ask for it.

    Raises:
        KasparroError: it is asked for, and the packages are not installed.
    """
    if not os.environ.get(ENDPOINT):
        return None
    try:  # half a second and 15 MB that a service without traces does without
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise KasparroError(f"{ENDPOINT} is set, which takes pip install 'kasparro[otel]': {error}") from None
    ours = Resource({"service.name": "kasparro-api", "service.version": version("kasparro")})
    provider = TracerProvider(resource=Resource.create().merge(ours).merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def telemetry(provider: TracerProvider | None) -> TelemetryConfig:
    """What FastAPI is told: traces to `provider`, if anywhere; of metrics and logs there are our own."""
    return {
        "tracing": provider is not None,
        "tracer_provider": provider,
        "operation_spans": False,
        "metrics": False,
        "logs": False,
        "auto_configure": False,
    }


def tell(request_id: str) -> None:
    """Note the request's id on its span, if there is one."""
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - nothing where nothing is traced

    get_current_span().set_attribute(REQUEST_ID, request_id)

"""Traces, as a collector receives them."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import sqlalchemy as sa
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from kasparro_api.tracing import ENDPOINT
from kasparro_pipeline.errors import KasparroError
from kasparro_tests.api.serving import app_on, served

NOWHERE = sa.make_url("postgresql://nobody@127.0.0.1:1/none")


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[ExportTraceServiceRequest]]:
    """What a collector on this machine was sent."""
    exports: list[ExportTraceServiceRequest] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                exports.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{http.server_address[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        yield exports
        http.shutdown()


def test_a_request_is_a_span_with_its_request_id_and_route(received: list[ExportTraceServiceRequest]) -> None:
    parent = "0af7651916cd43dd8448eb211c80319c"
    with served(app_on(NOWHERE)) as client:
        traced = {"traceparent": f"00-{parent}-b7ad6b7169203331-01", "X-Request-ID": "mine-1"}
        assert client.get("/v1/coins/bitcoin?x=secret", headers=traced).status_code == 422
        assert client.get("/nowhere").status_code == 404
    resources = [resource for export in received for resource in export.resource_spans]
    named = {one.key: one.value.string_value for one in resources[0].resource.attributes}
    assert named["service.name"] == "kasparro-api"
    first, second = (span for resource in resources for scope in resource.scope_spans for span in scope.spans)
    told: dict[str, Any] = {one.key: one.value for one in first.attributes}
    assert (first.name, first.trace_id.hex()) == ("GET /coins/{coin_id}", parent)
    assert told["kasparro.request_id"].string_value == "mine-1"
    assert told["http.route"].string_value == "/coins/{coin_id}"
    assert second.name == "GET"


def test_nothing_is_imported_where_it_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.delenv(ENDPOINT, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with served(app_on(NOWHERE)) as client:
        assert client.get("/health/live").status_code == 200
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    with pytest.raises(KasparroError, match=r"takes pip install 'kasparro\[otel\]'"):
        app_on(NOWHERE)


def test_a_collector_that_is_away_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with served(app_on(NOWHERE)) as client:
        assert client.get("/health/live").status_code == 200

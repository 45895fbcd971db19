"""A vendor on a free port of this machine that answers as it is told, faults included."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True)
class Reply:
    body: bytes = b"[]"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    sent: int | None = None
    """Break off after so many bytes of the body; -1: without an answer."""
    pause: float = 0.0
    """Seconds before the body."""


@dataclass
class Vendor:
    url: str
    replies: list[Reply]
    """Given one after the other; the last one for ever."""
    requests: list[dict[str, str]] = field(default_factory=list)
    """The parameters of each request, its path as ``path``."""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


@contextmanager
def running_vendor(*replies: Reply) -> Iterator[Vendor]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            split = urlsplit(self.path)
            vendor.times.append(time.monotonic())
            vendor.headers.append(dict(self.headers))
            vendor.requests.append({"path": split.path, **{k: v[0] for k, v in parse_qs(split.query).items()}})
            reply = vendor.replies.pop(0) if len(vendor.replies) > 1 else vendor.replies[0]
            if reply.sent == -1:
                return self.hang_up()
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            time.sleep(reply.pause)
            self.wfile.write(reply.body[: reply.sent])
            if reply.sent is not None:
                self.hang_up()
            return None

        def hang_up(self):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, *arguments):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            """A client that went away is what some tests want."""

    with Server(("127.0.0.1", 0), Handler) as server:
        vendor = Vendor(f"http://127.0.0.1:{server.server_address[1]}/v1", list(replies))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield vendor
        finally:
            server.shutdown()
            thread.join()

"""A vendor on a free port of this machine that speaks HTTP/2 over TLS, and gives it up in the ways there are."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

import h2.config
import h2.connection
import h2.events
import trustme

Act = Literal["answer", "reset the stream", "go away", "hang up", "send rubbish", "answer half and hang up"]


@dataclass
class Http2Vendor:
    url: str
    authority: trustme.CA
    acts: list[Act]
    """What it does at each request, one after the other; the last one for ever."""
    body: bytes
    requests: list[dict[str, str]] = field(default_factory=list)
    """The headers of each request."""
    connections: int = 0

    def speak(self, stream: ssl.SSLSocket) -> None:
        """Answer on one connection until it ends."""
        h2_connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        h2_connection.initiate_connection()
        stream.sendall(h2_connection.data_to_send())
        while data := stream.recv(65_536):
            for event in h2_connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived):
                    self.requests.append({name.decode(): value.decode() for name, value in event.headers})
                    act = self.acts.pop(0) if len(self.acts) > 1 else self.acts[0]
                    if not self._do(act, stream, h2_connection, event.stream_id):
                        return
            stream.sendall(h2_connection.data_to_send())

    def _do(self, act: Act, stream: ssl.SSLSocket, connection: h2.connection.H2Connection, stream_id: int) -> bool:
        """Whether the connection goes on."""
        if act == "reset the stream":
            connection.reset_stream(stream_id)
        elif act == "go away":
            connection.close_connection(last_stream_id=0)
        elif act == "send rubbish":
            stream.sendall(b"\xff" * 200)
            return False
        elif act != "hang up":
            connection.send_headers(stream_id, [(":status", "200"), ("content-type", "application/json")])
            half = act == "answer half and hang up"
            connection.send_data(stream_id, self.body[: len(self.body) // 2] if half else self.body, not half)
            stream.sendall(connection.data_to_send())
            return not half
        stream.sendall(connection.data_to_send())
        return act == "reset the stream"


@contextmanager
def running_http2_vendor(body: bytes, *acts: Act) -> Iterator[Http2Vendor]:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    authority.issue_cert("localhost").configure_cert(context)
    with socket.create_server(("127.0.0.1", 0)) as server:
        vendor = Http2Vendor(f"https://localhost:{server.getsockname()[1]}/v1", authority, list(acts), body)

        def serve(connection: socket.socket) -> None:
            with suppress(OSError), connection, context.wrap_socket(connection, server_side=True) as stream:
                vendor.connections += 1
                vendor.speak(stream)

        def accept() -> None:
            with suppress(OSError):  # closed below
                while True:
                    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield vendor
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)

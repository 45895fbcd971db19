"""A load generator for machines without wrk: ``python -m kasparro_tests.bench.client URL CONNECTIONS SECONDS``.

A fourth argument is sent as If-None-Match, and every answer has to be a 304. Prints requests a second.
A process of its own, raw sockets, no parsing beyond Content-Length.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from urllib.parse import urlsplit

import uvloop

_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


async def _ask(url: str, until: float, etag: str) -> int:
    target = urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    condition = f"If-None-Match: {etag}\r\n" if etag else ""
    request = f"GET {target.path}?{target.query} HTTP/1.1\r\nHost: {target.netloc}\r\n{condition}\r\n".encode()
    status = b"HTTP/1.1 304" if etag else b"HTTP/1.1 200"
    answers = 0
    while time.perf_counter() < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not head.startswith(status) or (length is None and not etag):
            raise SystemExit(f"error: {url} answered {head!r}")
        if length is not None and not etag:
            await reader.readexactly(int(length[1]))
        answers += 1
    writer.close()
    return answers


async def _main(url: str, connections: int, seconds: float, etag: str = "") -> float:
    started = time.perf_counter()
    answers = await asyncio.gather(*(_ask(url, started + seconds, etag) for _ in range(connections)))
    return sum(answers) / (time.perf_counter() - started)


if __name__ == "__main__":
    print(uvloop.run(_main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:])))  # noqa: T201

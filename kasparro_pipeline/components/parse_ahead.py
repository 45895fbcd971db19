"""Parsing a few deliveries ahead, beside the merging of those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from types import TracebackType

from kasparro_pipeline.io_managers.raw_payload import Kept
from kasparro_pipeline.sources.records import ParsedPayload

AHEAD = 3
"""Deliveries that are parsed, or being parsed, before they are asked for: what they hold is in memory."""


class ParseAhead:
    """Parses deliveries in a thread of its own, in the order in which they are asked for.

    Args:
        parse: called in that thread, and for a delivery that was not foreseen in the caller's.
        due: the deliveries that will be asked for, in that order; some may not be.
    """

    def __init__(self, parse: Callable[[Kept], ParsedPayload], due: Iterable[Kept]) -> None:
        self._parse = parse
        self._due = iter(due)
        self._started: deque[tuple[Kept, Future[ParsedPayload]]] = deque()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="parse")

    def __enter__(self) -> ParseAhead:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._worker.shutdown(cancel_futures=True)

    def parsed(self, kept: Kept) -> ParsedPayload:
        """What the delivery holds.

        Raises:
            whatever `parse` raises.
        """
        while self._started and _order(self._started[0][0]) < _order(kept):
            self._started.popleft()
        self._start_from(kept)
        if not self._started or self._started[0][0] != kept:
            return self._parse(kept)
        return self._started.popleft()[1].result()

    def _start_from(self, kept: Kept) -> None:
        """Have `AHEAD` under way, none of them from before `kept`: those were passed over."""
        while len(self._started) < AHEAD and (due := next(self._due, None)) is not None:
            if _order(due) >= _order(kept):
                self._started.append((due, self._worker.submit(self._parse, due)))


def _order(kept: Kept) -> tuple[datetime, str, str, int]:
    """Of `Deliveries.find`."""
    return (kept.fetched_at, kept.source, kept.partition, kept.position)

"""Deliveries parsed beside the work of who asks for them."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kasparro_pipeline.components.parse_ahead import AHEAD, ParseAhead
from kasparro_pipeline.io_managers.raw_payload import Kept
from kasparro_pipeline.sources.collect import nothing
from kasparro_pipeline.sources.records import ParsedPayload

FIRST = Kept("csv_a", "a.csv", 0, datetime(2026, 11, 1, tzinfo=UTC), "0", "a.csv", 1, False, None, None, None)
DUE = [replace(FIRST, position=number) for number in range(4 * AHEAD)]


class Parser:
    def __init__(self) -> None:
        self.parsed: list[int] = []
        self.threads: list[threading.Thread] = []

    def parse(self, kept: Kept) -> ParsedPayload:
        self.parsed.append(kept.position)
        self.threads.append(threading.current_thread())
        if kept.position == 1:
            raise ValueError("bad")
        return nothing()


@pytest.mark.parametrize("passed_over", [0, 1, AHEAD, 2 * AHEAD])
def test_each_is_parsed_once_and_beside_even_after_some_were_passed_over(passed_over: int) -> None:
    parser = Parser()
    asked = [DUE[0], *DUE[passed_over + 2 :]]
    with ParseAhead(parser.parse, iter(DUE)) as ahead:
        for kept in asked:
            ahead.parsed(kept)
    assert {kept.position for kept in asked} <= set(parser.parsed)
    assert len(parser.parsed) == len(set(parser.parsed))
    assert threading.main_thread() not in parser.threads


def test_an_error_comes_where_its_delivery_is_asked_for_and_the_unforeseen_are_parsed_all_the_same() -> None:
    parser = Parser()
    with ParseAhead(parser.parse, iter(DUE[:2])) as ahead:
        ahead.parsed(DUE[0])
        with pytest.raises(ValueError, match="bad"):
            ahead.parsed(DUE[1])
        assert ahead.parsed(DUE[2]).records == 0
    assert parser.parsed == [0, 1, 2]

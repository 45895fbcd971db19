"""What a CSV file would be read as, without a database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

from kasparro_pipeline.sources.csv.blocks import read_blocks
from kasparro_pipeline.sources.csv.parse import parse_csv
from kasparro_pipeline.sources.csv.reading import CsvReading
from kasparro_pipeline.sources.drops import source_of
from kasparro_pipeline.sources.records import Delivery, Payload, Quarantined

SHOWN_ROWS = 5
SHOWN_EXAMPLES = 3


@dataclass
class Explanation:
    """The dialect, the first observations, and what would be quarantined."""

    request: str
    source: str
    dialect: dict[str, object]
    records: int = 0
    observations: int = 0
    duplicates: int = 0
    """Records equal to another one of the same block."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """The first observations."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """Reason code to the number of records."""
    examples: list[dict[str, str]] = field(default_factory=list)
    """The first quarantined records of each reason: ``code``, ``location``, ``reason``, ``record``."""


def explain(path: Path, request: str, reading: CsvReading, first_day: date, now: datetime) -> Explanation:
    """What the file at `path` would be read as, were it dropped as `request` and loaded `now`.

    Raises:
        KasparroError: the file cannot be read.
    """

    def blocks() -> Iterator[Payload]:
        return read_blocks(path, source=source_of(request), partition=request, request=request, fetched_at=now)

    problem = next(blocks()).problem
    dialect = reading.dialect(lambda: (block.body for block in blocks()), request, now.year, problem)
    told = Explanation(request, source_of(request), dialect.described())
    for block in blocks():
        parsed = parse_csv(_delivery(block), dialect, first_day)
        told.records += parsed.records
        told.observations += parsed.observations.num_rows
        told.duplicates += parsed.duplicates
        told.rows += parsed.observations.slice(0, SHOWN_ROWS - len(told.rows)).to_pylist()
        for refused in parsed.quarantined:
            _count(told, refused)
    return told


def _count(told: Explanation, refused: Quarantined) -> None:
    code = refused.reason_code
    told.quarantined[code] = told.quarantined.get(code, 0) + 1
    if told.quarantined[code] <= SHOWN_EXAMPLES:
        told.examples.append(
            {"code": code, "location": refused.location, "reason": refused.reason, "record": refused.record}
        )


def _delivery(block: Payload) -> Delivery:
    digest = hashlib.sha256(block.body).hexdigest()
    return Delivery(
        *(block.source, block.partition, block.position, block.fetched_at, digest),
        *(block.request, block.first_record, block.body),
    )

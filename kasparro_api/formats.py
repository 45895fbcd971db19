"""The formats of an answer: their names, media types, and which of them a client asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write rows."""

    media_type: str
    suffix: str
    description: str


FORMATS: Mapping[str, Format] = {
    "json": Format("application/json", "json", "A page."),
    "csv": Format("text/csv", "csv", "With a header line; NULL is an empty cell, lists have commas between."),
    "ndjson": Format("application/x-ndjson", "ndjson", "The rows of the JSON page, one a line."),
    "parquet": Format("application/vnd.apache.parquet", "parquet", "zstd."),
    "arrow": Format("application/vnd.apache.arrow.stream", "arrows", "An Arrow IPC stream."),
}


@lru_cache(maxsize=256)
def accepted(header: str) -> str:
    """The format that an Accept header likes best; JSON where it names none of ours."""
    found = "json"
    best = 0.0
    for entry in header.split(","):
        media_type, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = _weight(parameters)
        for name, told in FORMATS.items():
            if told.media_type == media_type and weight > best:
                found, best = name, weight
    return found


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0

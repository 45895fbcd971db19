"""How CSV files are read: the mapping of defs.yaml and what it says of some files, together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kasparro_pipeline.sources.csv.dialect import Blocks, CsvDialect, read_dialect, refused_file
from kasparro_pipeline.sources.csv.formats import CsvFormat, read_formats
from kasparro_pipeline.sources.csv.header import CsvMapping


@dataclass(frozen=True, slots=True)
class CsvReading:
    """Finds out how each file is to be read."""

    mapping: CsvMapping
    formats: tuple[CsvFormat, ...] = ()

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[str]], formats: Sequence[Mapping[str, Any]] = ()) -> CsvReading:
        """From what defs.yaml says.

        Raises:
            KasparroError: it names something that there is not.
        """
        return cls(CsvMapping({column: tuple(names) for column, names in columns.items()}), read_formats(formats))

    @property
    def decides(self) -> object:
        """All that decides what is made of the same bytes; has a stable repr."""
        return sorted(self.mapping.columns.items()), self.formats

    def dialect(
        self,
        blocks: Blocks,
        request: str,
        latest_year: int,
        problem: str | None = None,
        *,
        beyond_ascii: Blocks | None = None,
    ) -> CsvDialect:
        """How to read the file with these blocks; see `read_dialect` and, for `problem`, `Payload.problem`."""
        if problem is not None:
            return refused_file(problem)
        return read_dialect(blocks, self.mapping, request, self.formats, latest_year, beyond_ascii=beyond_ascii)

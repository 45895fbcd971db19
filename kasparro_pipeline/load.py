"""The main job, once, in this process: fetch what is due, parse, unify the days touched.

What belongs here: which runs are due, in which order, and what came of them. What does not: how anything is done, which
is the assets' matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import dagster as dg
import sqlalchemy as sa

from kasparro_pipeline.components import ApiSource, CsvSource
from kasparro_pipeline.components.csv_source import drop_ranges, due_drops
from kasparro_pipeline.components.partitions import day_ranges, drops, key_ranges, range_tags, today
from kasparro_pipeline.components.unify import UNIFY, touched_days
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.drops import source_of
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import delivery, raw_payload, source_run

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""What a run has to say is in Dagster's event log; the terminal gets the report."""

Progress = Callable[[str], None]
"""Called with what is done next."""


@dataclass(slots=True)
class SourceReport:
    """What a load did for one source."""

    source: str
    payloads_new: int = 0
    payloads_known: int = 0
    records: int = 0
    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    quarantined: int = 0
    error: str | None = None


@dataclass(slots=True)
class LoadReport:
    """What a load did."""

    sources: list[SourceReport] = field(default_factory=list)
    days_unified: int = 0
    error: str | None = None
    """Why days could not be unified."""

    @property
    def failed(self) -> bool:
        """Whether anything failed; what the others did is kept."""
        return self.error is not None or any(source.error for source in self.sources)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {"ok": not self.failed, **asdict(self)}


class Loader:
    """Runs the assets' jobs in this process, recorded in Dagster's instance like any other run."""

    def __init__(self, progress: Progress | None = None) -> None:
        # Loading the definitions takes a second or two, so that only a command that needs them pays for it.
        from kasparro_pipeline.definitions import defs  # noqa: PLC0415

        self._definitions: dg.Definitions = defs()
        self._progress = progress or (lambda _: None)
        self._instance = dg.DagsterInstance.get()
        tree = self._definitions.component_tree
        if tree is None:
            raise KasparroError("no components below kasparro_pipeline/defs; is the installation complete?")
        self._api = {source.source: source for source in tree.get_all_components(ApiSource)}
        self._files = {source.name: source for source in tree.get_all_components(CsvSource)}
        self._runs: list[str] = []
        self._broken: dict[str, str] = {}

    def load(
        self, sources: Sequence[str] | None = None, first: date | None = None, last: date | None = None
    ) -> LoadReport:
        """Fetch what is due, parse it, and unify the days touched; loading the same again changes nothing.

        Args:
            sources: names of API sources, ``csv_drops``, or of one drop folder (``csv_<folder>``); None: all.
            first, last: days of the API sources' partitions, both included; by default today alone.

        Raises:
            KasparroError: a source or a range of days that there is not.
        """
        chosen = self._chosen(sources)
        start, end = _range(first, last)
        for name in self._api:
            if name in chosen:
                self._attempt(name, lambda name=name: self._load_api(name, start, end))  # type: ignore[misc]
        for name in self._files:
            folders = None if name in chosen else {source for source in chosen if source not in self._api}
            if folders is None or folders:
                self._attempt(name, lambda name=name, folders=folders: self._load_files(name, folders))  # type: ignore[misc]
        return self._unify(self._report())

    def reprocess(self) -> LoadReport:
        """Parse again, from kept payloads, what another version of a parser has parsed; unify the days touched.

        No vendor is asked.
        """
        for name, source in self._api.items():
            self._attempt(name, lambda name=name, source=source: self._parse_api(name, source.parser_version))  # type: ignore[misc]
        for name, files in self._files.items():
            self._attempt(name, lambda name=name, files=files: self._parse_files(name, files.parser_version))  # type: ignore[misc]
        return self._unify(self._report())

    # -- sources ------------------------------------------------------------------------------------------------

    def _chosen(self, sources: Sequence[str] | None) -> set[str]:
        known = {*self._api, *self._files}
        folders = {drop.source for drop in self._all_drops()} if self._files else set()
        unknown = set(sources or ()) - known - folders
        if unknown:
            names = ", ".join(sorted(known | folders))
            raise KasparroError(f"no source {', '.join(sorted(unknown))}; there are {names}")
        return set(sources) if sources else known

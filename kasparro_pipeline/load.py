"""The main job, once, in this process: fetch what is due, parse, unify the days touched.

What belongs here: which runs are due, in which order, and what came of them. What does not: how anything is done, which
is the assets' matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from typing import Any

import dagster as dg
import sqlalchemy as sa

from kasparro_pipeline.components import ApiSource, CsvSource
from kasparro_pipeline.components.all_sources import priorities_of
from kasparro_pipeline.components.csv_source import drop_ranges, due_drops
from kasparro_pipeline.components.partitions import ONLY_WAITING, day_ranges, drops, today
from kasparro_pipeline.defs.unified_assets.definitions import ONLY_WHAT_IS_DUE, touched_ranges
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.ranges import key_ranges, range_tags
from kasparro_pipeline.run_health import PROCESS_TAG, this_process
from kasparro_pipeline.settings import settings
from kasparro_pipeline.sources.drops import find_drops
from kasparro_pipeline.warehouse import quarantine
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import delivery, payload, source_run, touched_day
from kasparro_pipeline.warehouse.touched import touch_days_of_other_rules
from kasparro_pipeline.warehouse.unify import rule_version

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""What a run has to say is in Dagster's event log; people get the report. Machines, which read JSON, get every line."""

UNIFY = "unify"
UNIFY_ROUNDS = 3
"""A coin that became another one touches more days, and a day that fails a check is set apart from the others, so
unifying may have to go round again."""


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
    withdrawn: int = 0
    """Observations that no file of the source holds any more."""
    error: str | None = None


@dataclass(slots=True)
class LoadReport:
    """What a load did."""

    sources: list[SourceReport] = field(default_factory=list)
    days_unified: int = 0
    resolved: int | None = None
    """Records that left the quarantine; of `Loader.retry` only."""
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
    """Runs the assets' jobs in this process, recorded in Dagster's instance like any other run.

    `progress` is called with what comes next.
    """

    def __init__(self, progress: Callable[[str], None] | None = None) -> None:
        # The definitions take seconds to load, and only a command that needs them should pay for it.
        from kasparro_pipeline.definitions import defs  # noqa: PLC0415

        self._definitions: dg.Definitions = defs()
        self._progress = progress or (lambda _: None)
        self._instance = dg.DagsterInstance.get()
        tree = self._definitions.component_tree
        if tree is None:
            raise KasparroError("no component was found in kasparro_pipeline/defs; is the installation whole?")
        self._api = {source.source: source for source in tree.get_all_components(ApiSource)}
        self._lists = {source.listing.name: source.listing for source in self._api.values() if source.listing}
        self._files = {source.name: source for source in tree.get_all_components(CsvSource)}
        self._asked = set(self._api)
        self._priorities = priorities_of(self._api.values(), self._files.values())
        self._runs: list[str] = []
        self._errors: dict[str, str] = {}

    def load(
        self, sources: Sequence[str] | None = None, first: date | None = None, last: date | None = None
    ) -> LoadReport:
        """Fetch what is due, parse it, and unify the days touched; loading the same again changes nothing.

        `sources` are names of API sources, of their lists (``<source>_list``, which its source brings along), of drop
        folders (``csv_<folder>``), or ``csv_drops`` for all drops; None: everything. `first` and `last` (both included)
        name days of the API sources; by default today, and before it those on which nothing asked a vendor that has
        a history.

        Raises:
            KasparroError: a source that there is not, or days that are none.
        """
        chosen = self._chosen(sources)
        self._asked &= chosen
        _range(first, last)
        for name, source in self._api.items():
            if name in chosen:
                start, end = _range(first, last)
                if first is None and last is None:
                    start = min(start, source.first_due())  # midnight may have come in between
                self._run(name, start, end)
                if last is None and end != (now := today()):
                    # Midnight came before the vendor was asked: the day had become a past one, without a snapshot.
                    self._run(name, now, now)
                self._parse_waiting(name, [name], delivery.c.parser_version.is_(None))
        for name, listing in self._lists.items():
            # After the snapshots: prices do not wait for a list that fails.
            if {name, listing.vendor} & chosen:
                if last in (None, date.fromisoformat(today())) and listing.is_due():
                    self._run(name, today(), today())
                self._parse_waiting(name, [name], delivery.c.parser_version.is_(None), asset=listing.asset_key)
        for name in self._files:
            folders = None if name in chosen else chosen - set(self._api) - set(self._lists)
            if folders is None or folders:
                self._load_files(name, folders)
        return self.unify()

    def reprocess(self) -> LoadReport:
        """Parse from kept payloads what another version of its parser has parsed, and unify; no vendor is asked."""
        for name, source in self._api.items():
            self._parse_waiting(name, [name], _stale(source.parser_version))
        for name, listing in self._lists.items():
            self._parse_waiting(name, [name], _stale(listing.parser_version), asset=listing.asset_key)
        for name, files in self._files.items():
            self._parse_waiting(name, None, _stale(files.parser_version))
        with current_engine().begin() as connection:
            touch_days_of_other_rules(connection, rule_version(self._priorities))
        return self.unify()

    def retry(self, source: str | None = None, reason_code: str | None = None) -> LoadReport:
        """Parse again, from kept payloads, those with records in quarantine, and unify; no vendor is asked.

        What can be read by now leaves the quarantine in the transaction that stores it. What never was in quarantine
        stays as it was read, whether the parser has changed or not.
        """
        with current_engine().begin() as connection:
            before = quarantine.held_ids(connection, source, reason_code)
            quarantine.parse_again(connection, source, reason_code)
        waits = delivery.c.parser_version.is_(None)
        for name in self._api:
            if source in (None, name):
                self._parse_waiting(name, [name], waits, {ONLY_WAITING: "true"})
        for name, listing in self._lists.items():
            if source in (None, name):
                self._parse_waiting(name, [name], waits, {ONLY_WAITING: "true"}, listing.asset_key)
        for name in self._files:
            if source is None or source not in {*self._api, *self._lists}:
                self._parse_waiting(name, None, waits, {ONLY_WAITING: "true"})
        report = self.unify()
        with current_engine().connect() as connection:
            report.resolved = len(before) - quarantine.still_held(connection, before)
        return report

    def _chosen(self, sources: Sequence[str] | None) -> set[str]:
        known = {*self._api, *self._lists, *self._files}
        if not sources:
            return known
        known |= {drop.source for drop in find_drops(settings().drop_dir)}
        unknown = set(sources) - known
        if unknown:
            raise KasparroError(f"no source {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
        return set(sources)

    def _load_files(self, name: str, folders: set[str] | None) -> None:
        try:
            due = [drop for drop in due_drops() if folders is None or drop.source in folders]
        except KasparroError as error:
            self._errors[name] = str(error)
            return
        ranges, added = drop_ranges(self._instance, due)
        if added:
            self._instance.add_dynamic_partitions(drops().name or "", added)
        for start, end in ranges:
            self._run(name, start, end)
        self._parse_waiting(name, None, delivery.c.parser_version.is_(None))

    def _parse_waiting(
        self,
        name: str,
        sources: list[str] | None,
        waiting: sa.ColumnElement[bool],
        tags: dict[str, str] | None = None,
        asset: dg.AssetKey | None = None,
    ) -> None:
        """Parse what was kept and never parsed: what a run that died, or failed half way, has left behind."""
        ours = delivery.c.source.in_(sources) if sources else delivery.c.source.startswith("csv_", autoescape=True)
        with current_engine().connect() as connection:
            keys = connection.scalars(sa.select(delivery.c.partition).where(ours, waiting).distinct()).all()
        if sources:
            ranges = [(a.isoformat(), b.isoformat()) for a, b in day_ranges(map(date.fromisoformat, keys))]
        else:
            ranges = key_ranges(keys, list(self._instance.get_dynamic_partitions(drops().name or "")))
        for start, end in ranges:
            self._run(name, start, end, [asset or dg.AssetKey([name, "observations"])], tags)

    def unify(self) -> LoadReport:
        """Unify the days touched; nothing is fetched or parsed."""
        report = LoadReport()
        days = _touched()
        tried: list[tuple[str, str]] = []
        for _ in range(UNIFY_ROUNDS):
            ranges = touched_ranges()
            if ranges == tried:  # none are left, or they failed just now
                break
            self._errors.pop(UNIFY, None)
            for first, last in ranges:
                self._run(UNIFY, first, last, tags=ONLY_WHAT_IS_DUE)
            days |= _touched()
            tried = ranges
        report.error = self._errors.pop(UNIFY, None)
        report.days_unified = len(days - _touched())
        report.sources = self._source_reports()
        return report

    def _run(
        self,
        job: str,
        start: str,
        end: str,
        selection: list[dg.AssetKey] | None = None,
        tags: dict[str, str] | None = None,
    ) -> bool:
        self._progress(f"{job} {start}" if start == end else f"{job} {start} … {end}")
        result = self._definitions.resolve_job_def(job).execute_in_process(
            instance=self._instance,
            run_config=None if settings().log_format == "json" else QUIET,
            tags=range_tags(start, end) | {PROCESS_TAG: this_process()} | (tags or {}),
            asset_selection=selection,
            raise_on_error=False,
        )
        self._runs.append(result.run_id)
        if not result.success:
            self._errors.setdefault(job, _first_error(result))
        return bool(result.success)

    def _source_reports(self) -> list[SourceReport]:
        reports: dict[str, SourceReport] = {}
        with current_engine().connect() as connection:
            for row in connection.execute(_counts_query(self._runs)):
                reports[row.source] = SourceReport(*row)
            failed = sa.select(source_run.c.source, source_run.c.error).where(
                source_run.c.run_id.in_(self._runs), source_run.c.status == "failure"
            )
            for source, error in connection.execute(failed):
                reports.setdefault(source, SourceReport(source)).error = error
        told = {report.source for report in reports.values() if report.error}
        for name, error in self._errors.items():
            is_told = name in told or (name in self._files and any(source.startswith("csv_") for source in told))
            if not is_told:
                reports.setdefault(name, SourceReport(name)).error = error
        for name in self._asked:
            reports.setdefault(name, SourceReport(name))
        return sorted(reports.values(), key=lambda report: report.source)


def _touched() -> set[date]:
    with current_engine().connect() as connection:
        return set(connection.scalars(sa.select(touched_day.c.day).distinct()))


def _range(first: date | None, last: date | None) -> tuple[str, str]:
    newest = date.fromisoformat(today())
    start, end = first or last or newest, last or newest
    if start > end or end > newest or start < settings().first_day:
        raise KasparroError(
            f"no days from {start} to {end}; --from and --to lie between {settings().first_day} and {newest}"
        )
    return start.isoformat(), end.isoformat()


def _stale(parser_version: str) -> sa.ColumnElement[bool]:
    return delivery.c.parser_version.is_distinct_from(sa.null()) & ~delivery.c.parser_version.startswith(
        parser_version, autoescape=True
    )


def _counts_query(runs: Sequence[str]) -> sa.Select[Any]:
    """One row a source in the order of `SourceReport`'s fields, over what these runs fetched or parsed."""
    fetched = delivery.c.run_id.in_(runs)
    parsed = delivery.c.parse_run_id.in_(runs)
    new = fetched & (payload.c.first_fetched_at == delivery.c.fetched_at)
    sums = [
        sa.func.coalesce(sa.func.sum(delivery.c[name]).filter(parsed), 0).cast(sa.BigInteger)
        for name in ("records", "inserted", "updated", "unchanged", "quarantined", "withdrawn")
    ]
    return (
        sa.select(
            delivery.c.source,
            sa.func.count().filter(new),
            sa.func.count().filter(fetched & (payload.c.first_fetched_at != delivery.c.fetched_at)),
            *sums,
        )
        .join(payload, (payload.c.source == delivery.c.source) & (payload.c.sha256 == delivery.c.sha256))
        .where(fetched | parsed)
        .group_by(delivery.c.source)
    )


def _first_error(result: dg.ExecuteInProcessResult) -> str:
    """The innermost cause of the first failed step, in one line."""
    for event in result.all_events:
        data: Any = event.event_specific_data
        error = getattr(data, "error", None)
        if event.is_failure and error is not None:
            causes = [error]
            while causes[-1].cause is not None:
                causes.append(causes[-1].cause)
            line = str(causes[-1].message).strip().splitlines()[0]
            if any(cause.cls_name == sa.exc.OperationalError.__name__ for cause in causes):
                return f"PostgreSQL could not be asked ({line}); what was committed stays, load again once it answers"
            ours = line.startswith(f"{__package__}.")  # the name of the class says nothing that the sentence does not
            return line.partition(f"{causes[-1].cls_name}: ")[2] if ours else line
    return f"run {result.run_id} failed; see it in the Dagster UI"

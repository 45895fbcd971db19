"""Commands that load: what a load is at, and what came of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from kasparro_pipeline.cli.show import console, table

if TYPE_CHECKING:
    from kasparro_pipeline.load import Loader, LoadReport

_COUNTS = ("payloads_new", "payloads_known", "records", "inserted", "updated", "unchanged", "quarantined")


def with_progress(work: Callable[[Loader], LoadReport]) -> LoadReport:
    """Do `work` and show what it is at."""
    # Dagster takes seconds to import; `status` and `down` do without it.
    from kasparro_pipeline.load import Loader  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading the definitions")
        return work(Loader(lambda step: progress.update(task, description=step)))


def finish(report: LoadReport, as_json: bool) -> None:
    """Show what a load did, as JSON or for people; exit with 1 when anything failed."""
    if as_json:
        sys.stdout.write(json.dumps(report.as_dict(), indent=2) + "\n")
    else:
        show_report(report)
    raise typer.Exit(report.failed)


def show_report(report: LoadReport) -> None:
    """A row a source, and what failed."""
    counts = table("source", *(name.removeprefix("payloads_") for name in _COUNTS))
    for source in report.sources:
        counts.add_row(source.source, *(f"{getattr(source, name):,}" for name in _COUNTS))
    console.print(counts)
    console.print(f"new and known are payloads, the rest records; days unified: {report.days_unified:,}")
    if withdrawn := sum(source.withdrawn for source in report.sources):
        console.print(f"no longer delivered, kept and marked: {withdrawn:,}")
    if report.resolved is not None:
        console.print(f"out of quarantine: {report.resolved:,}")
    failed = {source.source: source.error for source in report.sources} | {"unified_assets": report.error}
    for name, error in failed.items():
        if error:
            console.print(f"[red]{name}: {escape(error)}[/]")

"""The command line. A command is a few lines: it reads its options, calls what does the work, and shows the result."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import typer
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from kasparro_pipeline import cli_identity
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.services import local_url
from kasparro_pipeline.settings import Settings, settings
from kasparro_pipeline.simulator.drops import write_today
from kasparro_pipeline.stack import Stack, enter
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.quarantine import held
from kasparro_pipeline.warehouse.retention import prune_unified_history

if TYPE_CHECKING:
    from kasparro_pipeline.load import Loader, LoadReport
    from kasparro_pipeline.sources.csv.explain import Explanation

app = typer.Typer(
    help="One table of crypto market data you can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
quarantine = typer.Typer(help="Records that could not become observations.", no_args_is_help=True)
app.add_typer(quarantine, name="quarantine")
app.add_typer(cli_identity.app, name="identity")
csv_app = typer.Typer(help="CSV drops.", no_args_is_help=True)
app.add_typer(csv_app, name="csv")
console = Console(highlight=False)
MAX_SHOWN = 200
_COUNTS = ("payloads_new", "payloads_known", "records", "inserted", "updated", "unchanged", "quarantined")
_OBSERVED = (
    *("observed_at", "source_coin_id", "symbol", "name", "price_usd", "market_cap_usd", "volume_24h_usd"),
    *("circulating_supply", "total_supply", "max_supply", "rank"),
)
_SHOWN_COLUMNS = ("day", "coin_id", "symbol", "price_usd", "market_cap_usd", "source_count")


def main() -> None:
    """Run the command line; an error that a person can act on is one line on stderr and exit code 1."""
    try:
        app()
    except KasparroError as error:
        sys.exit(f"error: {error}")
    except ValidationError as error:
        sys.exit("error: " + "; ".join(_setting_error(dict(detail)) for detail in error.errors()))


@app.command()
def up() -> None:
    """Start everything in the background, load what is due, and show where to look."""
    chosen = settings()
    Stack(chosen).up(load=lambda: _first_load(chosen), say=lambda line: console.print(f"[green]✓[/] {line}"))
    _show_places(chosen)


@app.command()
def down() -> None:
    """Stop everything, the embedded database too."""
    Stack(settings()).down()
    console.print("[green]✓[/] everything stopped")


@app.command()
def load(
    source: Annotated[list[str] | None, typer.Option(help="A source or drop folder; may be given again.")] = None,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Run the main job once: fetch what is due, parse it, unify the days touched; exit code 1 when a source failed."""
    enter(settings())
    days = (first.date() if first else None, last.date() if last else None)
    _finish(_with_progress(lambda loader: loader.load(source, *days)), as_json)


@app.command()
def reprocess(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Parse and unify again what another version of parser or rule has made; no vendor is asked."""
    enter(settings())
    _finish(_with_progress(lambda loader: loader.reprocess()), as_json)


@quarantine.command(name="list")
def list_quarantine(
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only with this reason code.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what is in quarantine, newest first: where each record came from, why, and the record itself."""
    enter(settings())
    with current_engine().connect() as connection:
        records = held(connection, source, reason, limit)
    if as_json:
        sys.stdout.write(json.dumps([asdict(record) for record in records], indent=2, default=str) + "\n")
        return
    table = Table("since", "source", "location", "reason code", "reason", "record")
    for record in records:
        texts = (record.source, record.location, record.reason_code, record.reason, record.record)
        table.add_row(f"{record.created_at:%Y-%m-%d %H:%M}", *(escape(_printable(text)) for text in texts))
    console.print(table if records else "nothing is in quarantine")


@quarantine.command()
def retry(
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only with this reason code.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Parse quarantined records' payloads again, after a mapping was mended; no vendor is asked."""
    enter(settings())
    _finish(_with_progress(lambda loader: loader.retry(source, reason)), as_json)


def _printable(text: str) -> str:
    """`text` on one line, cut to a length that can be read, without what a terminal would obey."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)


@app.command()
def prune(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Remove superseded rows of unified_assets that are older than KASPARRO_HISTORY_DAYS."""
    chosen = settings()
    enter(chosen)
    before = datetime.now(UTC) - timedelta(days=chosen.history_days)
    removed = prune_unified_history(current_engine(), before)
    if as_json:
        told = {"kept_since": before.isoformat(), "removed": {"unified_assets_history": removed}}
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
    else:
        console.print(f"unified_assets_history: {removed:,} rows removed, kept since {before:%Y-%m-%d %H:%M} UTC")


def _finish(report: LoadReport, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps(report.as_dict(), indent=2) + "\n")
    else:
        _show_report(report)
    raise typer.Exit(report.failed)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show how each service is; exit code 1 unless all of them run."""
    states = Stack(settings()).status()
    if as_json:
        sys.stdout.write(json.dumps([asdict(state) for state in states], indent=2) + "\n")
    else:
        table = Table("service", "state", "pid", "running for")
        for state in states:
            uptime = str(timedelta(seconds=state.uptime_seconds)) if state.pid else ""
            table.add_row(state.name, state.state.lower(), str(state.pid or ""), uptime)
        console.print(table)
    raise typer.Exit(any(state.state != "RUNNING" for state in states))


@app.command()
def logs(
    name: Annotated[str | None, typer.Argument(help="A service; all of them when left out.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines arrive.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", help="How many of the last lines.")] = 50,
) -> None:
    """Show the services' logs."""
    folder = settings().home / "logs"
    files = sorted(folder.glob("*.log"))
    if name is not None:
        files = [file for file in files if file.stem == name]
    if not files:
        raise KasparroError(f"no log {'of ' + name if name else 'yet'} in {folder}; `kasparro status` lists services")
    os.execvp("tail", ["tail", "-n", str(lines), *(["-F"] if follow else []), *map(str, files)])  # noqa: S606


@app.command(name="exec", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def execute(command: Annotated[list[str], typer.Argument(help="After --, such as: -- dg dev")]) -> None:
    """Run a command with the database started and the environment set."""
    enter(settings())
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        raise KasparroError(f"cannot run {command[0]}: {error.strerror}") from None


@csv_app.command()
def explain(
    file: Annotated[Path, typer.Argument(help="A CSV file, in the drop folder or anywhere else.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what would be read of a file and what would be quarantined; no database is needed, nothing is stored."""
    # Dagster takes seconds to import; other commands do without it.
    from kasparro_pipeline.components.csv_source import explain_drop  # noqa: PLC0415

    told = explain_drop(file.absolute(), datetime.now(UTC))
    if as_json:
        sys.stdout.write(json.dumps(asdict(told), indent=2, default=str) + "\n")
    else:
        _show_explanation(told)


def _show_explanation(told: Explanation) -> None:
    console.print(f"{told.request} as {told.source}", markup=False)
    dialect = Table.grid(padding=(0, 2))
    for name, value in told.dialect.items():
        lines = [f"{key}: {entry}" for key, entry in value.items()] if isinstance(value, dict) else [str(value)]
        dialect.add_row(name, escape("\n".join(lines)))
    console.print(dialect)
    if told.rows:
        columns = [name for name in _OBSERVED if any(row[name] is not None for row in told.rows)]
        rows = Table(*columns, title=f"the first of {told.observations:,} observations")
        for row in told.rows:
            rows.add_row(*(escape(str("" if row[name] is None else row[name])) for name in columns))
        console.print(rows)
    console.print(
        f"{told.records:,} records: {told.observations:,} observations, {told.duplicates:,} duplicates, "
        f"{sum(told.quarantined.values()):,} quarantined"
    )
    for code, count in told.quarantined.items():
        console.print(f"[yellow]{code}[/]: {count:,}")
        for example in told.examples:
            if example["code"] == code:
                console.print(f"  {example['location']}: {example['reason']}\n    {example['record']}", markup=False)


def _first_load(chosen: Settings) -> None:
    """The first load of `kasparro up`; loading again changes nothing."""
    enter(chosen)
    if chosen.uses_simulator and chosen.drop_dir == Settings.model_fields["drop_dir"].default:
        write_today(chosen.drop_dir)
    report = _with_progress(lambda loader: loader.load())
    _show_report(report)
    if report.failed:
        console.print("[yellow]![/] what failed above is tried again by the schedules; `kasparro load` tries at once")


def _with_progress(work: Callable[[Loader], LoadReport]) -> LoadReport:
    """Do `work` and show what it is at."""
    # Dagster takes seconds to import; `status` and `down` do without it.
    from kasparro_pipeline.load import Loader  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("loading the definitions")
        return work(Loader(lambda step: progress.update(task, description=step)))


def _show_report(report: LoadReport) -> None:
    table = _table("source", *(name.removeprefix("payloads_") for name in _COUNTS))
    for source in report.sources:
        table.add_row(source.source, *(f"{getattr(source, name):,}" for name in _COUNTS))
    console.print(table)
    console.print(f"new and known are payloads, the rest records; days unified: {report.days_unified:,}")
    if withdrawn := sum(source.withdrawn for source in report.sources):
        console.print(f"no longer delivered, kept and marked: {withdrawn:,}")
    if report.resolved is not None:
        console.print(f"out of quarantine: {report.resolved:,}")
    failed = {source.source: source.error for source in report.sources} | {"unified_assets": report.error}
    for name, error in failed.items():
        if error:
            console.print(f"[red]{name}: {escape(error)}[/]")


def _show_places(chosen: Settings) -> None:
    api = local_url(chosen.host, chosen.api_port)
    answer = httpx.get(f"{api}/data", params={"limit": 5}, timeout=30, trust_env=False)
    if not answer.is_success:
        raise KasparroError(f"{answer.url} answers {answer.status_code}; look into it with: kasparro logs api")
    _show_rows(answer.json()["data"])
    places = Table.grid(padding=(0, 2))
    places.add_row("Dagster UI", local_url(chosen.host, chosen.dagster_port))
    places.add_row("API", f"{api}/data")
    places.add_row("API documentation", f"{api}/docs")
    places.add_row("CSV drops", str(chosen.drop_dir))
    console.print(places)


def _show_rows(rows: list[dict[str, object]]) -> None:
    table = _table(*_SHOWN_COLUMNS, texts=3)
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in _SHOWN_COLUMNS))
    console.print(table)


def _table(*columns: str, texts: int = 1) -> Table:
    """A table whose columns are numbers but for the first `texts`, narrow enough for 80 characters."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < texts else "right")
    return table


def _setting_error(detail: dict[str, object]) -> str:
    """One line for a setting that does not parse."""
    location = detail["loc"]
    name = str(location[0] if isinstance(location, tuple) and location else "")
    variable = name if name.isupper() else f"KASPARRO_{name.upper()}"
    return f"{variable}={detail['input']!r}: {detail['msg']}"

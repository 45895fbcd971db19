"""Starting and stopping, loading, and everything else that is no group of its own.

A command is a few lines: it reads its options, calls what does the work, and shows the result.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated

import httpx
import typer
from pydantic import ValidationError
from rich.markup import escape
from rich.table import Table

from kasparro_pipeline.cli import alerts, backups, csv_files, identity, keys, quarantine
from kasparro_pipeline.cli.loading import finish, show_report, with_progress
from kasparro_pipeline.cli.show import console, table
from kasparro_pipeline.doctor import examine
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.services import local_url
from kasparro_pipeline.settings import Settings, settings
from kasparro_pipeline.simulator.drops import write_today
from kasparro_pipeline.stack import Stack, enter
from kasparro_pipeline.warehouse.database import current_engine

app = typer.Typer(
    help="One table of crypto market data you can trust.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _group in (alerts, csv_files, identity, keys, quarantine):
    app.add_typer(_group.app, name=_group.__name__.rpartition(".")[2].removesuffix("_files"))
for _command in (backups.backup, backups.restore):
    app.command()(_command)
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
    finish(with_progress(lambda loader: loader.load(source, *days)), as_json)


@app.command()
def reprocess(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Parse and unify again what another version of parser or rule has made; no vendor is asked."""
    enter(settings())
    finish(with_progress(lambda loader: loader.reprocess()), as_json)


@app.command()
def prune(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Remove what is older than the settings say, KASPARRO_HISTORY_DAYS and those for other things."""
    chosen = settings()
    enter(chosen)
    import dagster as dg  # noqa: PLC0415 - takes seconds

    from kasparro_pipeline import retention  # noqa: PLC0415

    with dg.DagsterInstance.get() as instance:
        removed = retention.prune(current_engine(), instance, chosen).as_dict()
    if as_json:
        sys.stdout.write(json.dumps({"removed": removed}, indent=2) + "\n")
    else:
        console.print("removed: " + ", ".join(f"{name} {rows:,}" for name, rows in removed.items()))


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show how each service is; exit code 1 unless all of them run."""
    states = Stack(settings()).status()
    if as_json:
        sys.stdout.write(json.dumps([asdict(state) for state in states], indent=2) + "\n")
    else:
        services = Table("service", "state", "pid", "running for")
        for state in states:
            uptime = str(timedelta(seconds=state.uptime_seconds)) if state.pid else ""
            services.add_row(state.name, state.state.lower(), str(state.pid or ""), uptime)
        console.print(services)
    raise typer.Exit(any(state.state != "RUNNING" for state in states))


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Look for what may be wrong, and say what to do; changes nothing; exit code 1 when something is wrong."""
    findings = []
    for finding in examine(settings()):
        findings.append(finding)
        if not as_json:
            sign = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[yellow]-[/]"}[finding.ok]
            console.print(f"{sign} {finding.check}: {escape(finding.detail)}", soft_wrap=True)
    if as_json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings], indent=2) + "\n")
    raise typer.Exit(any(finding.ok is False for finding in findings))


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


def _first_load(chosen: Settings) -> None:
    """The first load of `kasparro up`; loading again changes nothing."""
    enter(chosen)
    if chosen.uses_simulator and chosen.drop_dir == Settings.model_fields["drop_dir"].default:
        write_today(chosen.drop_dir)
    report = with_progress(lambda loader: loader.load())
    show_report(report)
    if report.failed:
        console.print("[yellow]![/] what failed above is tried again by the schedules; `kasparro load` tries at once")


def _show_places(chosen: Settings) -> None:
    api = local_url(chosen.host, chosen.api_port)
    answer = httpx.get(f"{api}/latest", params={"limit": 5}, timeout=30, trust_env=False)
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        console.print("[yellow]![/] reading needs a key: make one with `kasparro keys create NAME`")
    elif not answer.is_success:
        raise KasparroError(f"{answer.url} answers {answer.status_code}; look into it with: kasparro logs api")
    else:
        _show_rows(answer.json()["data"])
    places = Table.grid(padding=(0, 2))
    places.add_row("Dagster UI", local_url(chosen.host, chosen.dagster_port))
    places.add_row("Explorer", f"{api}/")
    places.add_row("API", f"{api}/data")
    places.add_row("API documentation", f"{api}/docs")
    places.add_row("CSV drops", str(chosen.drop_dir))
    console.print(places)


def _show_rows(rows: list[dict[str, object]]) -> None:
    shown = table(*_SHOWN_COLUMNS, texts=3)
    for row in rows:
        shown.add_row(*("" if row[column] is None else str(row[column]) for column in _SHOWN_COLUMNS))
    console.print(shown)


def _setting_error(detail: dict[str, object]) -> str:
    """One line for a setting that does not parse."""
    location = detail["loc"]
    name = str(location[0] if isinstance(location, tuple) and location else "")
    variable = name if name.isupper() else f"KASPARRO_{name.upper()}"
    return f"{variable}={detail['input']!r}: {detail['msg']}"

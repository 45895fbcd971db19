"""``kasparro alerts``: the incidents that are open, and whether people would be told."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kasparro_pipeline.alerts.channels import Message, channels
from kasparro_pipeline.alerts.record import open_incidents
from kasparro_pipeline.cli.show import console, printable
from kasparro_pipeline.defs.alerts.definitions import NOT_SET
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.settings import settings
from kasparro_pipeline.stack import enter
from kasparro_pipeline.warehouse.database import current_engine

app = typer.Typer(help="Who is told when something fails.", no_args_is_help=True)


@app.command()
def test() -> None:
    """Send a test message by every channel that is set; exit code 1 when one does not take it."""
    chosen = channels(settings())
    if not chosen:
        raise KasparroError(NOT_SET)
    problems = []
    for channel in chosen:
        try:
            channel.send(Message("Kasparro: a test message", ("If you read this, alerts reach you.",)))
            console.print(f"[green]✓[/] {channel.name}: sent")
        except KasparroError as error:
            problems.append(f"{channel.name}: {error}")
    if problems:
        raise KasparroError("; ".join(problems))


@app.command(name="list")
def list_open(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show the open incidents, as the sensor `alerts` found them last."""
    enter(settings())
    with current_engine().connect() as connection:
        rows = open_incidents(connection)
    if as_json:
        sys.stdout.write(json.dumps([dict(row._mapping) for row in rows], indent=2, default=str) + "\n")
        return
    table = Table("since", "kind", "what")
    for row in rows:
        table.add_row(f"{row.opened_at:%Y-%m-%d %H:%M}", row.kind, escape(printable(row.summary)))
    console.print(table if rows else "no incident is open")

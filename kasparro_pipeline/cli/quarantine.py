"""``kasparro quarantine``: records that could not become observations."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kasparro_pipeline.cli.loading import finish, with_progress
from kasparro_pipeline.cli.show import console, printable
from kasparro_pipeline.settings import settings
from kasparro_pipeline.stack import enter
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.quarantine import held

app = typer.Typer(help="Records that could not become observations.", no_args_is_help=True)


@app.command(name="list")
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
        table.add_row(f"{record.created_at:%Y-%m-%d %H:%M}", *(escape(printable(text)) for text in texts))
    console.print(table if records else "nothing is in quarantine")


@app.command()
def retry(
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    reason: Annotated[str | None, typer.Option(help="Only with this reason code.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Parse quarantined records' payloads again, after a mapping was mended; no vendor is asked."""
    enter(settings())
    finish(with_progress(lambda loader: loader.retry(source, reason)), as_json)

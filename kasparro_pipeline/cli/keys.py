"""``kasparro keys``: the API's keys on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.console import Console
from rich.table import Table

from kasparro_pipeline.settings import settings
from kasparro_pipeline.stack import enter
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.keys import create_key, list_keys, revoke_key, rotate_key

app = typer.Typer(help="API keys: create, list, rotate, revoke.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whom or what it is for.")],
    scope: Annotated[list[str] | None, typer.Option(help="read, operate or admin; may be given again.")] = None,
    days: Annotated[int | None, typer.Option(min=1, help="Good for so many days; default: for good.")] = None,
) -> None:
    """Make a key and print it; it is not kept, so this is the only time it can be seen."""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    with _transaction() as connection:
        key = create_key(connection, name, scope or ["read"], expires_at=expires_at)
    sys.stdout.write(key + "\n")


@app.command(name="list")
def show(as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """Show every key, never its secret."""
    with _transaction() as connection:
        keys = list_keys(connection)
    told = [
        {
            "key_id": key.key_id,
            "name": key.name,
            "scopes": sorted(key.scopes),
            "state": key.state,
            "created_at": _told(key.created_at),
            "expires_at": _told(key.expires_at),
            "revoked_at": _told(key.revoked_at),
        }
        for key in keys
    ]
    if as_json:
        sys.stdout.write(json.dumps(told, indent=2) + "\n")
        return
    table = Table("id", "name", "scopes", "state", "created", "expires")
    for key in told:
        columns = (key["key_id"], key["name"], " ".join(key["scopes"] or []), key["state"], key["created_at"])
        table.add_row(*map(str, columns), str(key["expires_at"] or "never"))
    Console(highlight=False).print(table)


@app.command()
def rotate(
    key_id: Annotated[str, typer.Argument(help="As `kasparro keys list` shows it.")],
    overlap_hours: Annotated[float, typer.Option(min=0, help="How long the old key stays good.")] = 24,
) -> None:
    """Make a key in place of another, which stays good for a while, and print it."""
    with _transaction() as connection:
        key = rotate_key(connection, key_id, timedelta(hours=overlap_hours))
    sys.stdout.write(key + "\n")


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(help="As `kasparro keys list` shows it.")]) -> None:
    """Make a key useless; a running API refuses it within seconds."""
    with _transaction() as connection:
        revoke_key(connection, key_id)


@contextmanager
def _transaction() -> Iterator[sa.Connection]:
    enter(settings())
    with current_engine().begin() as connection:
        yield connection


def _told(time: datetime | None) -> str | None:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if time else None

"""``kasparro backup`` and ``kasparro restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from kasparro_pipeline.cli.show import console
from kasparro_pipeline.settings import settings
from kasparro_pipeline.warehouse.backup import Backup
from kasparro_pipeline.warehouse.database import ensure_database

_waiting = Console(stderr=True)


def backup(file: Annotated[Path, typer.Argument(help="Where to; replaced when it is there.")]) -> None:
    """Write all that is in the database, Dagster's runs too, to a file; others go on working meanwhile."""
    chosen = settings()
    backup = Backup(ensure_database(chosen), chosen.postgres_bin)
    with _waiting.status(f"writing {file}"):
        size = backup.write(file.absolute())
    console.print(f"[green]✓[/] {file}: {size / 2**20:,.1f} MB")


def restore(
    file: Annotated[Path, typer.Argument(help="Written by `kasparro backup`.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what the database holds.")] = False,
) -> None:
    """Bring back what a backup holds, all of it or nothing; Kasparro must not be running."""
    chosen = settings()
    backup = Backup(ensure_database(chosen), chosen.postgres_bin)
    with _waiting.status(f"restoring {file}"):
        backup.restore(file.absolute(), replace=force)
    console.print(f"[green]✓[/] {file} restored; start with `kasparro up`")

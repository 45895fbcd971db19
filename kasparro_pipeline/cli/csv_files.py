"""``kasparro csv``: CSV files before they are loaded."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from kasparro_pipeline.cli.show import console

if TYPE_CHECKING:
    from kasparro_pipeline.sources.csv.explain import Explanation

app = typer.Typer(help="CSV drops.", no_args_is_help=True)
_OBSERVED = (
    *("observed_at", "source_coin_id", "symbol", "name", "price_usd", "market_cap_usd", "volume_24h_usd"),
    *("circulating_supply", "total_supply", "max_supply", "rank"),
)


@app.callback()
def files() -> None:
    """CSV drops."""


@app.command()
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

"""What the commands have in common in showing things."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

console = Console(highlight=False)
MAX_SHOWN = 200


def table(*columns: str, texts: int = 1) -> Table:
    """A table whose columns are numbers but for the first `texts`, narrow enough for 80 characters."""
    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for place, column in enumerate(columns):
        made.add_column(column, justify="left" if place < texts else "right")
    return made


def printable(text: str) -> str:
    """`text` on one line, cut to a length that can be read, without what a terminal would obey."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)

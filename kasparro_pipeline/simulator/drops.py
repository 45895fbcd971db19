"""CSV exports of a made-up exchange, from the simulated market: the sample drops, and a drop of today.

``python -m kasparro_pipeline.simulator.drops [FOLDER]`` writes both below FOLDER (default: the drop folder).
"""

from __future__ import annotations

import csv
import io
import os
import sys
from calendar import monthrange
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.settings import settings
from kasparro_pipeline.simulator import wire
from kasparro_pipeline.simulator.coins import Coin, listed
from kasparro_pipeline.simulator.market import day_start, quote

SOURCE_FOLDER = "sample_exchange"
SAMPLE_MONTHS = ((2026, 10),)
COLUMNS = ("Name", "Symbol", "Date", "Price", "Volume", "Marketcap")


def write_samples(folder: Path) -> list[Path]:
    """Write the sample drops below `folder`, a file a month with a row a coin and day; return the files."""
    return [
        _write(folder / SOURCE_FOLDER / f"{year}-{month:02}.csv", export(_days(year, month)))
        for year, month in SAMPLE_MONTHS
    ]


def write_today(folder: Path, today: date | None = None) -> Path:
    """Write the drop of `today` (default: the UTC day) below `folder`, a row a coin at 00:00:00; return the file.

    A file that holds the same bytes already is left alone.

    Raises:
        KasparroError: the file cannot be written.
    """
    today = today or datetime.now(UTC).date()
    return _write(folder / SOURCE_FOLDER / f"today-{today}.csv", export([today]))


def export(days: Iterable[date]) -> bytes:
    """The exchange's CSV for `days`: UTF-8, LF, times in UTC, prices in US dollars."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_row(coin, day) for day in days for coin in listed("exchange").values())
    return text.getvalue().encode()


def _row(coin: Coin, day: date) -> tuple[str, ...]:
    listing = coin.listings["exchange"]
    said = quote(coin, "exchange", day_start(day))
    if said is None:
        raise ValueError(f"{listing.id} in coins.csv has no price; an exchange trades none without")
    return (
        listing.name,
        listing.symbol,
        f"{day} 00:00:00",
        f"{wire.significant(said.price, 8):f}",
        f"{said.volume_24h:.2f}",
        f"{said.market_cap or Decimal(0):.0f}",
    )


def _days(year: int, month: int) -> list[date]:
    return [date(year, month, day) for day in range(1, monthrange(year, month)[1] + 1)]


def _write(path: Path, content: bytes) -> Path:
    """Write whole or not at all: whoever watches the folder never sees half a file."""
    if path.is_file() and path.read_bytes() == content:
        return path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        return temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise KasparroError(
            f"cannot write {path}: {error.strerror}; make the folder writable or set KASPARRO_DROP_DIR"
        ) from None


def main() -> None:
    """Write the samples and today's drop, print their paths."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else settings().drop_dir
    try:
        for path in (*write_samples(folder), write_today(folder)):
            sys.stdout.write(f"{path}\n")
    except KasparroError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

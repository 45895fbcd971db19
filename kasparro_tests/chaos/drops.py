"""The CSV drops of each moment, made by its number alone: the same for every load that is to see them."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from random import Random

ROWS = 900
DAYS = 3
NEW_FILE_EVERY = 5
_HEADER = "coin_id,symbol,name,date,price,market_cap\n"


def write_drops(folder: Path, moment: int, today: date) -> None:
    """Restate ``desk/book.csv`` of several blocks, and now and then add a file that has rows in common with it.

    A restated file grows, changes some prices, loses some rows (they are withdrawn) and holds some that cannot be read.
    """
    folder = folder / "desk"
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "book.csv", _book(moment, today))
    if moment % NEW_FILE_EVERY == 0:
        random = Random(f"new {moment}")
        rows = [_row(random.randrange(ROWS), today, random) for _ in range(40)]
        _write(folder / f"trades-{moment:04}.csv", _HEADER + "".join(dict.fromkeys(rows)))


def _book(moment: int, today: date) -> str:
    lines = []
    for place in range(ROWS + moment):
        changed = Random(f"changed {place} {moment}").random() < 0.01
        lost = Random(f"lost {place} {moment}").random() < 0.005
        if not lost:
            lines.append(_row(place, today, Random(f"row {place} {moment if changed else ''}")))
    return _HEADER + "".join(lines)


def _row(place: int, today: date, random: Random) -> str:
    coin, day = divmod(place, DAYS)
    price = "n.n." if place % 97 == 0 else f"{random.randrange(1, 10**9)}.{random.randrange(10**6):06}"
    name = f"Desk Coin {coin}"
    return f"desk-{coin},D{coin},{name},{today - timedelta(days=day)},{price},{random.randrange(10**12)}\n"


def _write(path: Path, content: str) -> None:
    unfinished = path.with_name(f".{path.name}.new")
    unfinished.write_text(content)
    unfinished.replace(path)

"""The words that identity is spoken in: a source's coin, a ruling, an identity, a pair that is open."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path

from kasparro_pipeline.errors import KasparroError

Key = tuple[str, str]
"""Source and source_coin_id."""

SAME, DIFFERENT, RENAMED = "same", "different", "renamed"
RULINGS = (SAME, DIFFERENT, RENAMED)
COLUMNS = ("ruling", "source", "source_coin_id", "other_source", "other_source_coin_id", "who", "why")
"""The columns of an overrides file."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What a source said of a coin's worth on one day (UTC), in USD."""

    day: date
    price: Decimal
    market_cap: Decimal | None = None


@dataclass(frozen=True, slots=True)
class SourceCoin:
    """A coin as one source calls it, with what is at hand of it."""

    source: str
    source_coin_id: str
    symbol: str | None
    name: str | None
    contracts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Chain to its addresses there that are evidence (see `evidence_of`), equal ones written alike."""
    quote: Quote | None = None
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    was: tuple[str | None, str | None] | None = None
    """Symbol and name at the time it became the coin that it is."""

    @property
    def key(self) -> Key:
        """What identifies it."""
        return self.source, self.source_coin_id

    def __str__(self) -> str:
        return f"{self.source} {self.source_coin_id}"


@dataclass(frozen=True, slots=True)
class Ruling:
    """A person's word on two coins: ``same``, ``different``, or ``renamed`` (one source's id became another).

    The sources may hold ``*``: ``csv_*`` is every drop folder.
    """

    ruling: str
    source: str
    source_coin_id: str
    other_source: str
    other_source_coin_id: str
    who: str
    why: str

    def pairs(self, by_id: Mapping[str, list[SourceCoin]]) -> list[tuple[SourceCoin, SourceCoin]]:
        """The pairs of coins it speaks of, `by_id` being all coins."""
        ones = [c for c in by_id.get(self.source_coin_id, ()) if fnmatchcase(c.source, self.source)]
        others = [c for c in by_id.get(self.other_source_coin_id, ()) if fnmatchcase(c.source, self.other_source)]
        return [(one, other) for one in ones for other in others if one.key != other.key]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which coin a source's coin is, and why."""

    source: str
    source_coin_id: str
    coin_id: str
    method: str
    """How it was joined with the others: ``ruling``, the name of a rule, or ``own``: nothing joins it to another."""
    confidence: Decimal
    """Expected precision of the method, 0 to 1."""
    evidence: str


@dataclass(frozen=True, slots=True)
class OpenPair:
    """Two coins that may be one: plausible and not certain, so not joined (or, ``changed``, joined and in doubt)."""

    source: str
    source_coin_id: str
    other_source: str
    other_source_coin_id: str
    reason: str
    confidence: Decimal
    """Expected share of such pairs that are one."""
    evidence: str


@dataclass(frozen=True, slots=True)
class Matching:
    """What identity comes to."""

    identities: list[Identity]
    """One a coin, in the order of their keys."""
    open: list[OpenPair]
    """The likeliest first."""
    reused: list[tuple[Key, Key]] = field(default_factory=list)
    """Ids that have left their coin because their source gave them to another one, each with one that has stayed."""


def curated_rulings() -> list[Ruling]:
    """The rulings that come with Kasparro."""
    with resources.as_file(resources.files(__package__).joinpath("identity_overrides.csv")) as file:
        return read_rulings(file)


def read_rulings(file: Path) -> list[Ruling]:
    """The rulings of an overrides file.

    Raises:
        KasparroError: it cannot be read, or a line is no ruling; the message names the line.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            return list(_rulings(file, csv.DictReader(opened)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise KasparroError(f"{file}: cannot be read as CSV in UTF-8: {error}") from error


def _rulings(file: Path, rows: csv.DictReader[str]) -> Iterable[Ruling]:
    if missing := set(COLUMNS) - set(rows.fieldnames or ()):
        raise KasparroError(f"{file}: no column {', '.join(sorted(missing))}; there must be {','.join(COLUMNS)}")
    for row in rows:
        values = {name: (row[name] or "").strip() for name in COLUMNS}
        empty = [name for name in COLUMNS if not values[name]]
        if values["ruling"] not in RULINGS or empty:
            told = f"no {', '.join(empty)}" if empty else f"ruling {values['ruling']!r} is none of {', '.join(RULINGS)}"
            raise KasparroError(f"{file}:{rows.line_num}: {told}")
        yield Ruling(**values)


def write_rulings(file: Path, rulings: Iterable[Ruling]) -> int:
    """Write an overrides file that `read_rulings` reads; how many rulings.

    Raises:
        KasparroError: it cannot be written.
    """
    rows = [asdict(ruling) for ruling in rulings]
    try:
        with file.open("w", encoding="utf-8", newline="") as opened:
            writer = csv.DictWriter(opened, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise KasparroError(f"{file}: cannot be written: {error.strerror}") from error
    return len(rows)

"""Drift: what changed in the shape of a source's records since it was learned.

The shape of an API is learned from its first complete sweep, that of a file from its first delivery. A new file is
held against the file of its source whose header is likest, so that files of another layout beside it are no drift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, Protocol

import dagster as dg
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.io_managers.raw_payload import Kept
from kasparro_pipeline.sources.drops import DROPS
from kasparro_pipeline.sources.shape import Change, Field, Shape, changes, is_retyped, learn
from kasparro_pipeline.warehouse.database import current_engine
from kasparro_pipeline.warehouse.tables import delivery, drift, source_field

KEY_COLUMNS = frozenset({"source_coin_id", "observed_at", "price_usd"})
"""Without one of them no record can become an observation that says something."""
CHECK = "drift"
MIN_ALIKE = 0.5
"""Part of two headers' names that are the same, from which on they are of one layout."""

Severity = Literal["error", "warn", "info"]


class DriftError(KasparroError):
    """A key field is in no record of a source's newest payload."""


@dataclass(frozen=True, slots=True)
class Shaped:
    """What a parser has to say of the shape of one delivery."""

    scope: str
    """The file it belongs to; empty for an API."""
    shape: Shape
    records: int
    column_of: Callable[[str], str | None]
    """The column of an observation that a field is read as."""
    key_fields: Mapping[str, str]
    """Fields that must not be missing, and the column of each."""
    errors: frozenset[str] = KEY_COLUMNS
    """Columns whose field is no longer there for certain when it is missing: nothing else can be read in its place."""
    is_file: bool = False
    """What it lost is learned: its records are in quarantine, and the next one is held against it."""


class Shapes(Protocol):
    """Tells shapes."""

    def shaped(self, kept: Kept) -> Shaped | None:
        """The shape of the delivery; None where it has none to tell of."""


@dataclass(slots=True)
class _Scope:
    """What is known of one scope, and what of it has to be written."""

    fields: Shape = field(default_factory=dict)
    last_seen: datetime | None = None
    is_learning: bool = True
    open: dict[tuple[str, str], str | None] = field(default_factory=dict)
    """Path and kind of the drift that has not passed, and the column that the field was read as."""
    seen: dict[str, tuple[datetime, datetime]] = field(default_factory=dict)
    """When a field was first and last seen, as far as that has to be written."""


class DriftWatch:
    """Holds the shapes of a run's deliveries against what is known, and writes what came of it once.

    Deliveries older than what is known are left alone.
    """

    def __init__(self, parser: Shapes, run_id: str) -> None:
        self._parser = parser
        self._run_id = run_id
        self._scopes: dict[str, dict[str, _Scope]] = {}
        self._found: dict[tuple[str, str, str, str], dict[str, Any]] = {}
        self._passed: dict[tuple[str, str, str, str], datetime] = {}

    def look(self, connection: sa.Connection, kept: Kept) -> str | None:
        """Look at one delivery; a sentence where a key field is in none of its records."""
        shaped = self._parser.shaped(kept)
        if shaped is None:
            return None
        scope = self._scope(connection, kept, shaped)
        if scope.last_seen is not None and kept.fetched_at < scope.last_seen:
            return None
        found = [] if scope.is_learning else changes(scope.fields, shaped.shape)
        lost = _lost_keys(shaped, scope)
        told = {change.path for change in found}
        found += [
            Change("missing", path, None, f"the field {path!r} is in none of the records")
            for path in sorted(lost)
            if path not in told and all(path != drifting for drifting, _ in scope.open)
        ]
        for change in found:
            self._note(kept, shaped, change)
        self._pass(kept, shaped, scope)
        scope.open |= {(change.path, change.kind): shaped.column_of(change.path) for change in found}
        if not lost or shaped.is_file:
            self._learn(kept, shaped, scope, found)
        return _told(kept, lost, found) if lost else None

    def write(self, connection: sa.Connection) -> None:
        """Write what was found and learned."""
        self.write_found(connection)
        for source, scopes in self._scopes.items():
            for name, scope in scopes.items():
                _write_fields(connection, source, name, scope)
        for (source, name, path, kind), at in self._passed.items():
            connection.execute(
                sa.update(drift)
                .where(
                    drift.c.source == source,
                    drift.c.scope == name,
                    drift.c.path == path,
                    drift.c.kind == kind,
                    drift.c.resolved_at.is_(None),
                )
                .values(resolved_at=at)
            )

    def write_found(self, connection: sa.Connection) -> None:
        """Write the drift alone: what a run that fails leaves behind."""
        statement = insert(drift)
        kept = ("severity", "mapped_column", "last_seen", "detail")
        for values in self._found.values():
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["source", "scope", "path", "kind"],
                    index_where=drift.c.resolved_at.is_(None),
                    set_={name: statement.excluded[name] for name in kept},
                ),
                values,
            )

    def _scope(self, connection: sa.Connection, kept: Kept, shaped: Shaped) -> _Scope:
        if kept.source not in self._scopes:
            self._scopes[kept.source] = _known(connection, kept.source)
        scopes = self._scopes[kept.source]
        if shaped.scope not in scopes:
            scopes[shaped.scope] = _Scope(_likest(scopes, shaped.shape))
        scope = scopes[shaped.scope]
        learns_on = scope.is_learning and not shaped.scope and not _was_swept(connection, kept)
        scope.is_learning = not scope.fields or learns_on
        return scope

    def _note(self, kept: Kept, shaped: Shaped, change: Change) -> None:
        column = shaped.column_of(change.path)
        key = (kept.source, shaped.scope, change.path, change.kind)
        if key in self._found:
            self._found[key]["last_seen"] = kept.fetched_at
            return
        self._found[key] = {
            "source": kept.source,
            "scope": shaped.scope,
            "path": change.path,
            "kind": change.kind,
            "severity": _severity(shaped, column),
            "mapped_column": column,
            "renamed_to": change.renamed_to,
            "confidence": change.confidence,
            "example": change.example,
            "detail": change.detail,
            "first_seen": kept.fetched_at,
            "last_seen": kept.fetched_at,
            "payload_sha256": kept.sha256,
            "run_id": self._run_id,
        }

    def _pass(self, kept: Kept, shaped: Shaped, scope: _Scope) -> None:
        """Drift that has not passed goes on, or passes: what was missing is here, what was retyped is as before.

        It passes too where the mapping was mended: the field is wanted no more, or the same payload, parsed again, has
        another one in its place.
        """
        is_again = kept.fetched_at == scope.last_seen
        for (path, kind), column in sorted(scope.open.items()):
            now = shaped.shape.get(path)
            before = scope.fields.get(path)
            is_over = now is not None and (kind != "retyped" or before is None or not is_retyped(before, now))
            if kind == "new":
                is_over = now is None
            if column is not None and kind != "new":
                is_read = is_again and column in map(shaped.column_of, shaped.shape)
                is_over |= shaped.column_of(path) is None or is_read
            if is_over:
                self._passed[kept.source, shaped.scope, path, kind] = kept.fetched_at
                del scope.open[path, kind]

    def _learn(self, kept: Kept, shaped: Shaped, scope: _Scope, found: list[Change]) -> None:
        before = set(scope.fields)
        learn(scope.fields, shaped.shape, [change.path for change in found if change.kind == "retyped"])
        if scope.is_learning and before:
            for path in before ^ shaped.shape.keys():  # not on every page
                scope.fields[path].share = Decimal(0)
        for change in found:
            if change.kind in ("missing", "renamed"):
                scope.fields[change.path].present = False
        for path in shaped.shape:
            first, _ = scope.seen.get(path, (kept.fetched_at, None))
            scope.seen[path] = (first, kept.fetched_at)


def open_drift(source: str) -> dg.AssetCheckResult:
    """Whether the shape of a source (``csv_*``: of all drops) is as it was learned; lists what is not."""
    ours = drift.c.source.startswith("csv_", autoescape=True) if source == DROPS else drift.c.source == source
    query = sa.select(drift).where(ours, drift.c.resolved_at.is_(None)).order_by(drift.c.first_seen, drift.c.id)
    with current_engine().connect() as connection:
        rows = connection.execute(query).mappings().all()
    severities = {row["severity"] for row in rows}
    told = [
        f"- {row['severity']}: {row['scope'] or row['source']}: {row['detail']}"
        + (f" (read as {row['mapped_column']})" if row["mapped_column"] else "")
        for row in rows
    ]
    return dg.AssetCheckResult(
        passed=not severities & {"error", "warn"},
        severity=dg.AssetCheckSeverity.ERROR if "error" in severities else dg.AssetCheckSeverity.WARN,
        description=f"{len(rows)} fields changed" if rows else "every field is as it was learned",
        metadata={
            "fields": dg.MetadataValue.json([f"{row['kind']} {row['path']}" for row in rows]),
            "changes": dg.MetadataValue.md("\n".join(told) or "none"),
        },
    )


def report_drift(context: dg.AssetExecutionContext, source: str) -> None:
    """Tell the check's result of a run that fails, in which the check itself does not run."""
    result = open_drift(source)
    context.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=context.asset_key,
            check_name=CHECK,
            passed=result.passed,
            severity=result.severity,
            description=result.description,
            metadata=result.metadata,
        )
    )


def _severity(shaped: Shaped, column: str | None) -> Severity:
    if column is None:
        return "info"
    return "error" if column in shaped.errors else "warn"


def _lost_keys(shaped: Shaped, scope: _Scope) -> dict[str, str]:
    """The key fields that no record has, where it is more than one record's whim."""
    if shaped.records < 1 or (shaped.records < 2 and not scope.fields):
        return {}
    known = {path: shaped.column_of(path) for path in {*scope.fields, *(path for path, _ in scope.open)}}
    keys = {path: column for path, column in known.items() if column in shaped.errors} | dict(shaped.key_fields)
    return {path: column for path, column in keys.items() if path not in shaped.shape}


def _told(kept: Kept, lost: Mapping[str, str], found: Iterable[Change]) -> str:
    named = ", ".join(f"{path!r} ({column})" for path, column in sorted(lost.items()))
    guesses = [f"{c.path!r} may be {c.renamed_to!r} now" for c in found if c.kind == "renamed" and c.path in lost]
    hint = "mend the mapping, then load again"
    return "; ".join([f"{kept.request}: the key field {named} is in none of the records", *guesses, hint])


def _known(connection: sa.Connection, source: str) -> dict[str, _Scope]:
    """What is known of each scope of a source."""
    scopes: dict[str, _Scope] = {}
    for row in connection.execute(sa.select(source_field).where(source_field.c.source == source)):
        scope = scopes.setdefault(row.scope, _Scope())
        scope.fields[row.path] = Field(row.share, set(row.types), row.example, row.present)
        scope.last_seen = max(scope.last_seen or row.last_seen, row.last_seen)
    unresolved = sa.select(drift.c.scope, drift.c.path, drift.c.kind, drift.c.mapped_column).where(
        drift.c.source == source, drift.c.resolved_at.is_(None)
    )
    for name, path, kind, column in connection.execute(unresolved):
        scopes.setdefault(name, _Scope()).open[path, kind] = column
    return scopes


def _likest(scopes: Mapping[str, _Scope], shape: Shape) -> Shape:
    """The fields of the file whose header has most in common with this one, if that is enough.

    What such a file lost of its key fields is missing in this one, too.
    """
    layouts = {frozenset(_expected(scope)): scope.fields for scope in scopes.values()}

    def alike(names: frozenset[str]) -> float:
        return len(names & shape.keys()) / max(1, len(names | shape.keys()))

    best = max(layouts, key=lambda names: (alike(names), sorted(names)), default=frozenset[str]())
    return {path: replace(layouts[best][path], present=True) for path in best} if alike(best) >= MIN_ALIKE else {}


def _expected(scope: _Scope) -> Iterator[str]:
    """The fields that a file of this layout should have."""
    lost = {path for (path, _), column in scope.open.items() if column in KEY_COLUMNS}
    return (path for path, known in scope.fields.items() if known.present or path in lost)


def _was_swept(connection: sa.Connection, kept: Kept) -> bool:
    """Whether the vendor had been asked for all it has before."""
    swept = sa.exists().where(
        delivery.c.source == kept.source,
        delivery.c.fetched_at < kept.fetched_at,
        delivery.c.is_last,
        delivery.c.parser_version.is_not(None),
    )
    return bool(connection.scalar(sa.select(swept)))


def _write_fields(connection: sa.Connection, source: str, name: str, scope: _Scope) -> None:
    rows = [
        {
            "source": source,
            "scope": name,
            "path": path,
            "types": sorted(known.types),
            "share": known.share,
            "example": known.example,
            "present": known.present,
            "first_seen": scope.seen[path][0],
            "last_seen": scope.seen[path][1],
        }
        for path, known in scope.fields.items()
        if path in scope.seen
    ]
    statement = insert(source_field)
    kept = ("types", "share", "example", "present", "last_seen")
    if rows:
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["source", "scope", "path"], set_={column: statement.excluded[column] for column in kept}
            ),
            rows,
        )
    if gone := [path for path, known in scope.fields.items() if not known.present]:
        of_scope = (source_field.c.source == source, source_field.c.scope == name, source_field.c.present)
        connection.execute(
            sa.update(source_field).where(*of_scope, source_field.c.path.in_(gone)).values(present=False)
        )
    last = max((last for _, last in scope.seen.values()), default=None)
    if last is not None and scope.open:
        connection.execute(
            sa.update(drift)
            .where(drift.c.source == source, drift.c.scope == name, drift.c.resolved_at.is_(None))
            .values(last_seen=sa.func.greatest(drift.c.last_seen, last))
        )

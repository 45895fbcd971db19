"""The SQL of a listing. Values are always bound; text is only what a declaration or this module wrote.

JSON and CSV are built by PostgreSQL and passed through: decimals as text, so that no digit is lost on the way.
"""
# ruff: noqa: S608 - what is put into a statement as text stands in a declaration

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from kasparro_api.arrow_pipe import LIST_SEPARATOR
from kasparro_api.listing import Key, Kind, Listing, OneOf, Overlap
from kasparro_api.listing_query import PAGE, ListingQuery
from kasparro_api.values import first_instant, last_instant

Bound = tuple[str, dict[str, Any]]
"""A statement and the values bound to it."""


def utc(expression: str) -> str:
    """RFC 3339 with Z; the session speaks UTC."""
    return f"replace(replace({expression}::text, ' ', 'T'), '+00', 'Z')"


def page(query: ListingQuery, given: Mapping[str, Any]) -> Bound:
    """One page as one row: its rows, how many, the place of its last one, and the data version it was read at.

    The rows are one `bytea`, a JSON object each, with a comma and a line end between, and one row more than the page
    has tells that there is a next one; NULL when there are none. The place is a JSON array; NULL on a short page, and
    where the last row itself tells it (`place_columns`).
    """
    conditions, values = _conditions(query, given)
    limit = query.limit or PAGE
    statement = _page(
        query.listing, _relation(query), query.order, conditions, query.after is not None, query.columns, limit
    )
    return statement, values


def place_columns(keys: Sequence[Key], columns: Sequence[str]) -> list[str] | None:
    """The columns of the answer that hold a row's place in the order, where each of its keys is such a column."""
    names = [key.expression.removeprefix("t.") for key in keys]
    return names if set(names) <= set(columns) else None


def export(query: ListingQuery, given: Mapping[str, Any], format_: Callable[[str, Kind], str], limit: int) -> Bound:
    """The rows asked for, at most `limit`, each column written as `format_` says."""
    conditions, values = _conditions(query, given)
    rows = _rows(_relation(query), query.listing.orders[query.order], conditions, query.after is not None, limit)
    return f"SELECT {_selected(query.listing, query.columns, format_)} FROM ({rows}) t", values


def counted(query: ListingQuery, given: Mapping[str, Any]) -> Bound:
    """How many rows there are, without regard to cursor and limit."""
    conditions, values = _conditions(query, given)
    return f"SELECT count(*) FROM {_relation(query)} t {_where(conditions)}", values


def estimated(query: ListingQuery, given: Mapping[str, Any]) -> Bound:
    """The planner's word on how many rows there are."""
    conditions, values = _conditions(query, given)
    return f"EXPLAIN (FORMAT JSON) SELECT FROM {_relation(query)} t {_where(conditions)}", values


def digits(query: ListingQuery, given: Mapping[str, Any], columns: Sequence[str], limit: int) -> Bound:
    """For each of these columns the most digits after the point, then for each the greatest absolute value."""
    conditions, values = _conditions(query, given)
    rows = _rows(_relation(query), query.listing.orders[query.order], conditions, query.after is not None, limit)
    told = [f"max(scale(t.{name}))" for name in columns] + [f"max(abs(t.{name}))" for name in columns]
    return f"SELECT {', '.join(told)} FROM ({rows}) t", values


# -- how a column is written --------------------------------------------------------------------------------------


def as_json(column: str, kind: Kind) -> str:
    """For `row_to_json`."""
    if kind is Kind.NUMBER:
        return f"{column}::text"
    return utc(column) if kind is Kind.TIME else column


def as_cell(column: str, kind: Kind) -> str:
    """For CSV."""
    if kind is Kind.TEXTS:
        return f"array_to_string({column}, ',')"
    return utc(column) if kind is Kind.TIME else column


def as_guarded_cell(column: str, kind: Kind) -> str:
    """For CSV that a spreadsheet opens: a text that it would take for a formula has ' in front."""
    if kind not in (Kind.TEXT, Kind.TEXTS):
        return as_cell(column, kind)
    text = as_cell(column, kind)
    return f"CASE WHEN ascii({text}) IN (9, 13, 43, 45, 61, 64) THEN '''' || {text} ELSE {text} END"


def as_arrow(column: str, kind: Kind) -> str:
    """For `arrow_writer.py`."""
    if kind is not Kind.TEXTS:
        return column
    members = f"array_to_string({column}, E'{LIST_SEPARATOR}')"
    return f"CASE WHEN cardinality({column}) > 0 THEN E'{LIST_SEPARATOR}' || {members} ELSE {members} END"


def _selected(listing: Listing, columns: Sequence[str], format_: Callable[[str, Kind], str]) -> str:
    return ", ".join(f"{format_(f't.{name}', listing.columns[name])} AS {name}" for name in columns)


# -- which rows ---------------------------------------------------------------------------------------------------


def _relation(query: ListingQuery) -> str:
    if query.listing.as_of and query.value("as_of") is not None:
        return query.listing.as_of
    variant = query.listing.variant
    if variant is None:
        return query.listing.relation
    return variant.relations[query.value(variant.name) or next(iter(variant.relations))]


def _conditions(query: ListingQuery, given: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    texts: list[str] = []
    values = dict(given)
    for one in query.listing.filters:
        if (value := query.value(one.name)) is None:
            continue
        if isinstance(one, OneOf):
            names = [name.lower() for name in value] if one.lower else value
            # a single one as an equality, which an index answers in order
            texts.append(f"{one.expression} = " + (f"%({one.name})s" if len(names) == 1 else f"ANY(%({one.name})s)"))
            values[one.name] = names[0] if len(names) == 1 else names
        else:
            texts.append(f"{one.expression} && %({one.name})s" if isinstance(one, Overlap) else one.condition)
            values[one.name] = value
    for word, column in query.listing.bounds.items():
        for name, operator in ((f"min_{word}", ">="), (f"max_{word}", "<=")):
            if (value := query.value(name)) is not None:
                texts.append(f"t.{column} {operator} %({name})s")
                values[name] = value
    _range(query, texts, values)
    if query.listing.as_of:
        values["as_of"] = query.value("as_of")
    values |= {f"after_{number}": value for number, value in enumerate(query.after or ())}
    return tuple(texts), values


def _range(query: ListingQuery, texts: list[str], values: dict[str, Any]) -> None:
    column = query.listing.within
    if column is None:
        return
    of_days = query.listing.columns[column] is Kind.DAY
    for name, operator, instant in (("from", ">=", first_instant), ("to", "<=", last_instant)):
        if (value := query.value(name)) is not None:
            texts.append(f"t.{column} {operator} %({name})s")
            values[name] = instant(value).date() if of_days else instant(value)


def _where(conditions: Sequence[str]) -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _order(keys: Sequence[Key]) -> str:
    return "ORDER BY " + ", ".join(f"{key.expression}{' DESC' if key.descending else ''}" for key in keys)


@lru_cache(maxsize=512)
def _page(  # noqa: PLR0913, PLR0917
    listing: Listing,
    relation: str,
    order: str,
    conditions: tuple[str, ...],
    has_cursor: bool,
    columns: tuple[str, ...],
    limit: int,
) -> str:
    keys = listing.orders[order]
    rows = _rows(relation, keys, conditions, has_cursor, limit + 1)
    place = "NULL"
    if place_columns(keys, columns) is None:
        texts = ", ".join(f"({key.expression})::text" for key in keys)
        place = f"(array_agg(json_build_array({texts})::text))[{limit:d}]"
    tables = ", ".join(f"'{table}'" for table in listing.tables) or "NULL"
    return f"""
SELECT convert_to(string_agg(row_to_json(v)::text, E',\\n'), 'UTF8'), count(*),
       {place},
       (SELECT string_agg(id::text, '.' ORDER BY id) FROM kasparro.data_version WHERE part IN ({tables}))
FROM ({rows}) t, LATERAL (SELECT {_selected(listing, columns, as_json)}) v"""


def _rows(relation: str, keys: Sequence[Key], conditions: Sequence[str], has_cursor: bool, limit: int) -> str:
    # The limit stands in the text: were it bound, the planner would not know that only a page is wanted.
    end = f"{_order(keys)} LIMIT {limit:d}"
    if not has_cursor:
        return f"SELECT * FROM {relation} t {_where(conditions)} {end}"
    ranges = [f"SELECT * FROM {relation} t {_where([*conditions, *place])} {end}" for place in _after(keys)]
    if len(ranges) == 1:
        return ranges[0]
    return f"SELECT * FROM ({' UNION ALL '.join(f'({one})' for one in ranges)}) t {end}"


def _after(keys: Sequence[Key]) -> list[list[str]]:
    """The rows after the cursor's place as ranges that an index can answer, in their order."""
    if len({key.descending for key in keys}) == 1:
        place = ", ".join(f"%(after_{number})s" for number in range(len(keys)))
        return [[f"({', '.join(key.expression for key in keys)}) {_beyond(keys[0])} ({place})"]]
    ranges = []
    for last in reversed(range(len(keys))):
        same = [f"{keys[number].expression} = %(after_{number})s" for number in range(last)]
        ranges.append([*same, f"{keys[last].expression} {_beyond(keys[last])} %(after_{last})s"])
    return ranges


def _beyond(key: Key) -> str:
    return "<" if key.descending else ">"

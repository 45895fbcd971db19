"""What a listing is: rows of one shape that can be filtered, ordered, paged and exported.

To add one: a row model in `schemas`, a `Listing` over it, and one call of `serve.add_listing`. Columns, query
parameters, SQL, OpenAPI document and every format follow from the declaration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from functools import cached_property
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from kasparro_api import values
from kasparro_api.schemas import Decimal

MAX_LIMIT = 1000
"""Rows a page may have."""


class Kind(Enum):
    """What a column holds, found from its annotation in the row model."""

    TEXT = "text"
    TEXTS = "list of texts"
    NUMBER = "exact decimal"
    INTEGER = "integer"
    BOOLEAN = "true or false"
    DAY = "day"
    TIME = "time"


_KINDS: tuple[tuple[Any, Kind], ...] = (
    (Decimal, Kind.NUMBER),
    (str, Kind.TEXT),
    (list[str], Kind.TEXTS),
    (int, Kind.INTEGER),
    (bool, Kind.BOOLEAN),
    (date, Kind.DAY),
    (datetime, Kind.TIME),
)


@dataclass(frozen=True, slots=True)
class Key:
    """A part of an order; `expression` is never NULL."""

    expression: str
    read: Callable[[str], object]
    descending: bool = False


@dataclass(frozen=True, slots=True)
class OneOf:
    """``name=a,b``: rows where `expression` is one of the names."""

    name: str
    expression: str
    description: str
    example: str
    lower: bool = False
    """Compared in lower case; `expression` has to be in lower case itself."""
    allowed: tuple[str, ...] = ()
    """All values there are; none: whatever the rows hold."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """``name=a,b``: rows whose list `expression` has one of the names."""

    name: str
    expression: str
    description: str
    example: str


@dataclass(frozen=True, slots=True)
class Where:
    """``name=a,b``: rows that fulfil `condition`, in which ``%(name)s`` is the list of names."""

    name: str
    condition: str
    description: str
    example: str
    allowed: tuple[str, ...] = ()
    """All values there are; none: whatever the rows hold."""


@dataclass(frozen=True, slots=True)
class Search:
    """``name=words``: rows that fulfil `condition`, in which ``%(name)s`` is a tsquery in text."""

    name: str
    condition: str
    description: str
    example: str


@dataclass(frozen=True, slots=True)
class Variant:
    """A parameter whose value chooses what stands behind FROM; the first is the default."""

    name: str
    relations: Mapping[str, str]
    description: str


Filter = OneOf | Overlap | Where | Search


@dataclass(frozen=True, eq=False)
class Listing:
    """Rows to list.

    Attributes:
        name: of the file an export is saved as.
        row: the row model; its fields are the columns, in their order, each a column of `relation`.
        description: of the route, in Markdown.
        relation: what stands behind FROM, under the alias ``t``; may hold ``%(…)s`` of `filters` and of path
            parameters.
        orders: by the word that ``sort`` takes; the first is the default. Each ends in a key that is unique.
        filters: query parameters besides those that every listing has; a column of numbers has ``min_`` and ``max_``
            without being named here.
        within: the column that ``from`` and ``to`` look at.
        tables: whose data versions stand for the rows; none: answers have no ETag.
        variant: a parameter that chooses another `relation`.
        as_of: what stands behind FROM where the parameter ``as_of`` is given, bound as ``%(as_of)s``; None: there is no
            such parameter.
    """

    name: str
    row: type[BaseModel]
    relation: str
    description: str
    orders: Mapping[str, Sequence[Key]]
    filters: Sequence[Filter] = ()
    within: str | None = None
    tables: tuple[str, ...] = ()
    variant: Variant | None = None
    as_of: str | None = None

    @cached_property
    def columns(self) -> dict[str, Kind]:
        """The columns by name."""
        hints = get_type_hints(self.row, include_extras=True)
        return {name: _kind(hints[name]) for name in self.row.model_fields}

    @property
    def default_order(self) -> str:
        """The word for the order when none is asked for."""
        return next(iter(self.orders))

    @cached_property
    def bounds(self) -> dict[str, str]:
        """The columns that have ``min_<word>`` and ``max_<word>``, by that word."""
        numbers = {Kind.NUMBER, Kind.INTEGER}
        return {name.removesuffix("_usd"): name for name, kind in self.columns.items() if kind in numbers}


def _kind(annotation: Any) -> Kind:  # noqa: ANN401
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = [option for option in get_args(annotation) if option is not NoneType]
    literal = get_origin(annotation) is Literal
    return Kind.TEXT if literal else next(kind for told, kind in _KINDS if told == annotation)


def by(expression: str, kind: Kind, *, descending: bool = False) -> Key:
    """A key of an order, over a column of `kind`."""
    readers = {
        Kind.TEXT: values.word,
        Kind.NUMBER: values.sortable,
        Kind.INTEGER: values.integer,
        Kind.DAY: values.day,
        Kind.TIME: values.time,
    }
    return Key(expression, readers[kind], descending)

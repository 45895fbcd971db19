"""What a request asks of a listing: its query parameters, from the listing's declaration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property, lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self

from fastapi import Request
from pydantic import AfterValidator, BeforeValidator, Field, PrivateAttr, create_model, model_validator
from pydantic_core import PydanticCustomError
from starlette.datastructures import QueryParams

from kasparro_api import cursor
from kasparro_api.formats import FORMATS, accepted
from kasparro_api.listing import MAX_LIMIT, Filter, Kind, Listing, OneOf, Search, Where
from kasparro_api.parameters import QueryParameters, refused
from kasparro_api.values import ExactNumber, Moment, Names, Time, Words, first_instant, integer, last_instant

PAGE = 100
_AS_OF = "What the table said at this time; keep it while paging, and no later change moves a page."


class ListingQuery(QueryParameters):
    """The parameters that every listing has; `query_model` adds those of one."""

    listing: ClassVar[Listing]

    _after: list[object] | None = PrivateAttr(None)

    limit: int | None = Field(
        None, ge=1, description=f"Rows. JSON: {PAGE} unless told, {MAX_LIMIT} at most; other formats: all unless told."
    )
    cursor: str | None = Field(
        None, description="`next_cursor` of the page before; keep the other parameters as they were."
    )
    sort: str | None = None
    fields: Names | None = None
    count: Literal["none", "estimated", "exact"] = Field(
        "none",
        description="Whether `total` tells how many rows there are in all; `exact` counts them, which takes time.",
    )
    format: str | None = None
    cells: Literal["guarded", "exact"] = Field(
        "guarded",
        description="Of CSV: guarded puts ' before a text that a spreadsheet would take for a formula (= + - @).",
    )
    numbers: Literal["decimal", "text"] = Field(
        "decimal",
        description="Of Parquet and Arrow: decimal128 for each column whose numbers fit it without loss, text for the "
        "others; text for all of them.",
    )

    @classmethod
    def asked(cls, request: Request) -> Self:
        """The parameters of `request`, the format by its Accept header where no parameter names one.

        Raises:
            RequestValidationError: one is unknown or wrong.
        """
        found: Self = _asked(cls, request.scope["query_string"], accepted(request.headers.get("accept", "*/*")))
        return found

    @classmethod
    def checked(cls, text: bytes, accepted: str) -> Self:
        """The parameters of a query string, with the format that is accepted where it names none."""
        query = cls.read(QueryParams(text))
        query.format = query.format or accepted
        if query.format == "json" and query.limit is not None and query.limit > MAX_LIMIT:
            raise refused("limit", f"JSON pages have {MAX_LIMIT} rows at most; other formats have no such limit")
        return query

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for word in self.listing.bounds:
            low, high = self.value(f"min_{word}"), self.value(f"max_{word}")
            if low is not None and high is not None and low > high:
                raise PydanticCustomError("empty_range", f"min_{word} is above max_{word}: swap them")
        first, last = self.value("from"), self.value("to")
        if first is not None and last is not None and first_instant(first) > last_instant(last):
            raise PydanticCustomError("empty_range", "from is after to: swap them")
        return self

    @model_validator(mode="after")
    def _place(self) -> Self:
        if self.cursor is not None:
            readers = [key.read for key in self.listing.orders[self.order]]
            try:
                self._after = cursor.decode(self.cursor, self.order, readers)
            except ValueError as error:
                raise PydanticCustomError("cursor", "cursor: {why}", {"why": str(error)}) from None
        return self

    def value(self, name: str) -> Any:  # noqa: ANN401 - as the listing's filters say
        """The value of a parameter of the listing; None when it is not given."""
        return self.__dict__.get(name)

    @property
    def order(self) -> str:
        """The word for the order."""
        return self.sort or self.listing.default_order

    @property
    def after(self) -> list[object] | None:
        """The place after which to begin: a value for each key of the order."""
        return self._after

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns asked for, in the listing's order."""
        asked = self.fields or self.listing.columns
        return tuple(name for name in self.listing.columns if name in asked)


@lru_cache(maxsize=1024)
def _asked(model: type[ListingQuery], text: bytes, accepted: str) -> Any:  # noqa: ANN401 - of the model
    """The same question is read once; nobody changes what was read."""
    return model.checked(text, accepted)


def query_model(listing: Listing) -> type[ListingQuery]:
    """The model of a listing's parameters."""
    told: dict[str, Any] = {"sort": _choice(listing.orders, "The order; each is unique to the last row.")}
    told["fields"] = _fields(listing)
    told["format"] = (
        Literal[tuple(FORMATS)] | None,
        Field(None, description="Of the answer; without it the Accept header decides, then JSON."),
    )
    told |= {one.name: _filter(one) for one in listing.filters}
    if listing.variant:
        told[listing.variant.name] = _choice(listing.variant.relations, listing.variant.description)
    if listing.as_of:
        told["as_of"] = (Time | None, Field(None, description=_AS_OF, examples=["2026-11-01T00:00:00Z"]))
    if listing.within:
        told |= _range(listing, listing.within)
    for word, column in listing.bounds.items():
        exact = Annotated[int, BeforeValidator(integer)] if listing.columns[column] is Kind.INTEGER else ExactNumber
        for name, which in ((f"min_{word}", "Lowest"), (f"max_{word}", "Highest")):
            told[name] = (exact | None, Field(None, description=f"{which} `{column}`, inclusive; compared exactly."))
    model = create_model(f"{listing.row.__name__}Query", __base__=ListingQuery, **told)
    model.listing = listing
    return model


def _choice(of: Mapping[str, object], description: str) -> tuple[Any, Any]:
    return Literal[tuple(of)] | None, Field(None, description=f"{description} Default: `{next(iter(of))}`.")


def _fields(listing: Listing) -> tuple[Any, Any]:
    example = ",".join(list(listing.columns)[:3])
    told = Field(None, description="Columns, comma list; all unless told.", examples=[example])
    return _some_of(listing.columns) | None, told


def _filter(one: Filter) -> tuple[Any, Any]:
    kind: Any = Words if isinstance(one, Search) else Names
    description = one.description
    if isinstance(one, OneOf | Where) and one.allowed:
        kind = _some_of(one.allowed)
        description = f"{description} One or more of {', '.join(one.allowed)}."
    return kind | None, Field(None, description=description, examples=[one.example])


def _some_of(allowed: Iterable[str]) -> Any:  # noqa: ANN401 - a type
    allowed = tuple(allowed)

    def known(names: list[str]) -> list[str]:
        if unknown := [name for name in names if name not in allowed]:
            raise ValueError(f"no {', '.join(unknown)}; allowed: {', '.join(allowed)}")
        return names

    return Annotated[Names, AfterValidator(known)]


def _range(listing: Listing, column: str) -> dict[str, Any]:
    told = "a day (UTC; the whole of it) or a time (UTC unless it has an offset)"
    if listing.columns[column] is Kind.DAY:
        told += ", which stands for its day"
    return {
        "from": (Moment | None, Field(None, description=f"First `{column}`, inclusive: {told}.")),
        "to": (Moment | None, Field(None, description=f"Last `{column}`, inclusive: {told}.")),
    }

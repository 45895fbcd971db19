"""What a request may ask for: query parameters, checked before they come near a query.

They are read here and not by FastAPI, whose own reading of such a model takes a third of the time of a request.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Self

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from kasparro_api.cursor import Cursor

MAX_LIMIT = 1000
MAX_NAMES = 500
MAX_DIGITS = 1000


def _day(text: str) -> date:
    try:
        if len(text) == len("YYYY-MM-DD"):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueError("not a day: write YYYY-MM-DD")


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text)
        if number.is_finite() and len(text) <= MAX_DIGITS and abs(number.adjusted()) <= MAX_DIGITS:
            return number
    except InvalidOperation:
        pass
    raise ValueError("not a decimal number such as 0.25 or 1e-9")


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if any(not name or "\x00" in name for name in names):
        raise ValueError("a list with an empty or unreadable name: write a,b,c")
    if len(names) > MAX_NAMES:
        raise ValueError(f"a list of {len(names)} names: give {MAX_NAMES} at most")
    return names


def _cursor(text: str) -> str:
    Cursor.decode(text)
    return text


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment
    except ValueError:
        pass
    raise ValueError("not a time with a zone: write 2026-11-01T00:00:00Z")


Moment = Annotated[datetime, BeforeValidator(_moment)]
Day = Annotated[date, BeforeValidator(_day)]
ExactNumber = Annotated[Decimal, BeforeValidator(_decimal, json_schema_input_type=str)]
Names = Annotated[list[str], BeforeValidator(_names, json_schema_input_type=str)]


class QueryParameters(BaseModel):
    """Query parameters of a route; a parameter that is none of them is refused."""

    @classmethod
    def read(cls, request: Request) -> Self:
        """The parameters of `request`; a repeated one counts as a comma list.

        Raises:
            RequestValidationError: one is unknown or wrong.
        """
        given: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            given[name] = f"{given[name]},{value}" if name in given else value
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise RequestValidationError(
                [{**item, "loc": ("query", *item["loc"])} for item in error.errors()]
            ) from None

    @classmethod
    def documentation(cls) -> dict[str, Any]:
        """The parameters as part of an OpenAPI operation."""
        properties = cls.model_json_schema()["properties"]
        return {"parameters": [_documented(name, schema) for name, schema in properties.items()]}

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: dict[str, str]) -> dict[str, str]:
        allowed = {field.alias or name for name, field in cls.model_fields.items()}
        if unknown := given.keys() - allowed:
            raise PydanticCustomError(
                "unknown_parameter",
                "unknown parameter {unknown}; allowed: {allowed}",
                {"unknown": ", ".join(sorted(unknown)), "allowed": ", ".join(sorted(allowed))},
            )
        return given


def _documented(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    (kind,) = [option for option in schema.pop("anyOf", [{}]) if option.get("type") != "null"]
    told = {"name": name, "in": "query", "required": False, "description": schema.pop("description")}
    del schema["title"]
    if schema.get("default", ...) is None:
        del schema["default"]
    return {**told, "schema": {**schema, **kind}}


class DataQuery(QueryParameters):
    """Which rows of the unified asset table, and how many."""

    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Rows on a page.")
    cursor: Annotated[str, AfterValidator(_cursor)] | None = Field(
        None, description="`next_cursor` of the page before; keep the other parameters as they were."
    )
    symbol: Names | None = Field(None, description="Symbols, comma list, upper or lower case alike.", examples=["BTC"])
    coin_id: Names | None = Field(None, description="Coins, comma list.", examples=["bitcoin,ethereum"])
    source: Names | None = Field(
        None, description="Only rows to which one of these sources contributed; comma list.", examples=["coingecko"]
    )
    first_day: Day | None = Field(None, alias="from", description="First day (UTC), inclusive.")
    last_day: Day | None = Field(None, alias="to", description="Last day (UTC), inclusive.")
    min_price: ExactNumber | None = Field(None, description="Lowest `price_usd`, inclusive; compared exactly.")
    max_price: ExactNumber | None = Field(None, description="Highest `price_usd`, inclusive; compared exactly.")

    as_of: Moment | None = Field(
        None,
        description="What the table said at this moment; keep it while paging, and no later change moves a page.",
        examples=["2026-11-01T00:00:00Z"],
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.first_day and self.last_day and self.first_day > self.last_day:
            raise PydanticCustomError("empty_range", "from is after to: swap them")
        if self.min_price is not None and self.max_price is not None and self.min_price > self.max_price:
            raise PydanticCustomError("empty_range", "min_price is above max_price: swap them")
        return self

    @property
    def after(self) -> Cursor | None:
        """The row after which the page begins."""
        return Cursor.decode(self.cursor) if self.cursor else None

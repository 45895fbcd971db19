"""``/quarantine`` and ``/drift``: what could not be read, and what changed in the sources' records."""
# ruff: noqa: S608 - what is put into a statement as text was written in this module

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

import sqlalchemy as sa
from fastapi import APIRouter, Request
from pydantic import AfterValidator, BeforeValidator, Field
from starlette.responses import Response

from kasparro_api.database import Database
from kasparro_api.frame import elapsed_ms
from kasparro_api.parameters import MAX_LIMIT, Names, QueryParameters
from kasparro_api.problems import documented
from kasparro_api.schemas import Answer, Decimal, PageMetadata
from kasparro_pipeline.warehouse import tables

router = APIRouter(tags=["operations"])


@dataclass(frozen=True, slots=True)
class Place:
    """The place after one row, newest first."""

    at: datetime
    id: int

    def encode(self) -> str:
        """The cursor as clients carry it."""
        text = json.dumps([self.at.isoformat(), self.id], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what `encode` wrote.

        Raises:
            ValueError: `encode` did not write this.
        """
        try:
            at, number = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            place = cls(datetime.fromisoformat(at), number)
            if type(number) is int and abs(number) < 2**63 and place.at.tzinfo and place.encode() == text:
                return place
        except (ValueError, TypeError, RecursionError):
            pass
        raise ValueError("not a cursor: give `next_cursor` of the page before, unchanged")


def _cursor(text: str) -> str:
    Place.decode(text)
    return text


def _moment(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that was not encoded arrives as a blank
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not a time: write 2026-11-01 or 2026-11-01T12:00:00Z") from None


Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=str)]


class _Listing(QueryParameters):
    """Which rows, and how many."""

    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Rows on a page.")
    cursor: Annotated[str, AfterValidator(_cursor)] | None = Field(
        None, description="`next_cursor` of the page before; keep the other parameters as they were."
    )
    source: Names | None = Field(None, description="Sources, comma list.", examples=["coingecko"])


class QuarantineQuery(_Listing):
    """Which quarantined records."""

    reason_code: Names | None = Field(None, description="Reason codes, comma list.", examples=["bad_number"])
    since: Moment | None = Field(None, description="Quarantined at this time or later; UTC where it names no zone.")


class DriftQuery(_Listing):
    """Which changes."""

    kind: Names | None = Field(
        None, description="`new`, `missing`, `retyped`, `renamed`; comma list.", examples=["missing"]
    )
    since: Moment | None = Field(None, description="Last seen at this time or later; UTC where it names no zone.")


class QuarantinedRecord(Answer):
    """A record that could not become an observation."""

    id: int
    source: str = Field(examples=["csv_exchange"])
    payload_sha256: str = Field(description="The payload that holds it.")
    position: int = Field(description="Record in the payload, from 1; 0: the payload as a whole.")
    location: str = Field(description="File and line, or request and record.", examples=["exchange/2026-10.csv:17"])
    reason_code: str = Field(examples=["bad_number"])
    reason: str
    record: str = Field(description="As it came, at most 16 KiB of it; bytes that are no text are escaped.")
    parser_version: str
    created_at: datetime = Field(description="UTC.")


class FieldDrift(Answer):
    """A change in the fields of a source's records."""

    id: int
    source: str = Field(examples=["coinpaprika"])
    scope: str = Field(description="The file whose header it is; empty for an API.")
    path: str = Field(description="Dotted path in a record, or header name.", examples=["quotes.USD.price"])
    kind: Literal["new", "missing", "retyped", "renamed"]
    severity: Literal["error", "warn", "info"] = Field(
        description="error: a key field; warn: another one that is read; info: one that is not read."
    )
    mapped_column: str | None = Field(description="What the field is read as.", examples=["price_usd"])
    renamed_to: str | None = Field(description="What it became, as far as can be guessed.")
    confidence: Decimal | None = Field(description="Of that guess, 0 to 1.", examples=["0.87"])
    example: str | None = Field(description="A value of the field.")
    detail: str
    first_seen: datetime = Field(description="When the payload that showed it first was fetched; UTC.")
    last_seen: datetime = Field(description="The same of the last one; UTC.")
    payload_sha256: str
    resolved_at: datetime | None = Field(description="When it was as before again; null while it is not.")


class QuarantinePage(Answer):
    """A page of quarantined records."""

    metadata: PageMetadata
    data: list[QuarantinedRecord]


class DriftPage(Answer):
    """A page of changes."""

    metadata: PageMetadata
    data: list[FieldDrift]


@router.get(
    "/quarantine",
    summary="Records that could not become observations",
    responses={200: {"model": QuarantinePage}, **documented(422, 503)},
    openapi_extra=QuarantineQuery.documentation(),
)
async def quarantine(request: Request) -> Response:
    """Newest first: the record, where it came from, and why. Parameters are joined by AND, names in a list by OR.

    `kasparro quarantine retry` parses them again after a mapping was mended.
    """
    query = QuarantineQuery.read(request)
    return await _page(request, query, _QUARANTINE, {"reason_code": query.reason_code})


@router.get(
    "/drift",
    summary="What changed in the fields of the sources' records",
    responses={200: {"model": DriftPage}, **documented(422, 503)},
    openapi_extra=DriftQuery.documentation(),
)
async def drift(request: Request) -> Response:
    """By the time a change was seen first, newest first. Parameters are joined by AND, names in a list by OR."""
    query = DriftQuery.read(request)
    return await _page(request, query, _DRIFT, {"kind": query.kind})


def _statement(row: type[Answer], table: sa.Table, order: str, since: str, name: str) -> str:
    """A page's rows as JSON objects, and what the cursor after each is made of."""
    columns = ", ".join(_as_json(table.c[column]) for column in row.model_fields)
    return f"""
        SELECT (SELECT row_to_json(o)::text FROM (SELECT {columns}) o), r.{order}, r.id FROM (
            SELECT * FROM {table.fullname}
            WHERE (%(source)s::text[] IS NULL OR source = ANY(%(source)s))
              AND (%({name})s::text[] IS NULL OR {name} = ANY(%({name})s))
              AND (%(since)s::timestamptz IS NULL OR {since} >= %(since)s)
              AND (%(at)s::timestamptz IS NULL OR ({order}, id) < (%(at)s, %(id)s::bigint))
            ORDER BY {order} DESC, id DESC LIMIT %(rows)s) r
        ORDER BY r.{order} DESC, r.id DESC
    """


def _as_json(column: sa.Column[Any]) -> str:
    if isinstance(column.type, sa.Numeric):
        return f"r.{column.name}::text AS {column.name}"
    if isinstance(column.type, sa.DateTime):
        return f"replace(replace(r.{column.name}::text, ' ', 'T'), '+00', 'Z') AS {column.name}"
    return f"r.{column.name}"


_QUARANTINE = _statement(QuarantinedRecord, tables.quarantine, "created_at", "created_at", "reason_code")
_DRIFT = _statement(FieldDrift, tables.drift, "first_seen", "last_seen", "kind")


async def _page(
    request: Request, query: QuarantineQuery | DriftQuery, statement: str, filters: dict[str, Any]
) -> Response:
    after = Place.decode(query.cursor) if query.cursor else None
    values = {
        **filters,
        "source": query.source,
        "since": query.since,
        "at": after and after.at,
        "id": after and after.id,
        "rows": query.limit + 1,
    }
    database: Database = request.state.database
    async with database.connection() as connection:
        # never prepared: which filters are given decides the plan
        found = await (await connection.execute(statement, values, prepare=False)).fetchall()
    rows = found[: query.limit]
    following = Place(*rows[-1][1:]).encode() if len(found) > query.limit else None
    metadata = {
        "request_id": request.state.request_id,
        "api_latency_ms": elapsed_ms(request.state.started),
        "count": len(rows),
        "limit": query.limit,
        "next_cursor": following,
    }
    data = ",\n".join(row for row, _, _ in rows)
    body = f'{{"metadata":{json.dumps(metadata)},"data":[{data}]}}\n'
    return Response(body, media_type="application/json")

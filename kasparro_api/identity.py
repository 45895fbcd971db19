"""``GET /identity/review``: pairs of coins that may be one and wait for a person."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal as Exact
from decimal import InvalidOperation
from typing import Annotated, Any, Self

from fastapi import APIRouter, Request
from pydantic import AfterValidator, Field
from starlette.responses import Response

from kasparro_api.database import Database
from kasparro_api.frame import elapsed_ms
from kasparro_api.parameters import MAX_LIMIT, Names, QueryParameters
from kasparro_api.problems import documented
from kasparro_api.schemas import Answer, Decimal, PageMetadata

router = APIRouter()

MAX_ID = 2**63 - 1
_PAGE = """
SELECT id, source, source_coin_id, other_source, other_source_coin_id, reason, confidence::text AS confidence, evidence,
       replace(replace(created_at::text, ' ', 'T'), '+00', 'Z') AS created_at
FROM kasparro.identity_review r
WHERE (%(source)s::text[] IS NULL OR source = ANY(%(source)s) OR other_source = ANY(%(source)s))
  AND (%(reason)s::text[] IS NULL OR reason = ANY(%(reason)s))
  AND (%(confidence)s::numeric IS NULL OR r.confidence < %(confidence)s
       OR r.confidence = %(confidence)s AND id > %(id)s)
ORDER BY r.confidence DESC, id
LIMIT %(limit)s
"""


@dataclass(frozen=True, slots=True)
class ReviewCursor:
    """The place after one pair, in the order likeliest first, then by number."""

    confidence: Exact
    number: int

    def encode(self) -> str:
        """The cursor as clients carry it."""
        text = json.dumps([str(self.confidence), self.number], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read what `encode` wrote.

        Raises:
            ValueError: `encode` did not write this.
        """
        try:
            confidence, number = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            cursor = cls(Exact(confidence), number)
            is_ours = cursor.confidence.is_finite() and type(number) is int and 0 <= number <= MAX_ID
            if is_ours and cursor.encode() == text:
                return cursor
        except (ValueError, TypeError, InvalidOperation, RecursionError):
            pass
        raise ValueError("not a cursor: give `next_cursor` of the page before, unchanged")


def _cursor(text: str) -> str:
    ReviewCursor.decode(text)
    return text


class ReviewQuery(QueryParameters):
    """Which pairs, and how many."""

    limit: int = Field(100, ge=1, le=MAX_LIMIT, description="Pairs on a page.")
    cursor: Annotated[str, AfterValidator(_cursor)] | None = Field(
        None, description="`next_cursor` of the page before; keep the other parameters as they were."
    )
    source: Names | None = Field(
        None, description="Only pairs with a coin of one of these sources; comma list.", examples=["coingecko"]
    )
    reason: Names | None = Field(None, description="Only these reasons; comma list.", examples=["ambiguous,price"])


class ReviewPair(Answer):
    """Two coins that may be one: plausible and not certain, so not joined."""

    id: int = Field(description="Its number, for `kasparro identity review --accept`.", examples=[7])
    source: str = Field(examples=["coingecko"])
    source_coin_id: str = Field(examples=["bitcoin"])
    other_source: str = Field(examples=["csv_exchange"])
    other_source_coin_id: str = Field(examples=["BTC"])
    reason: str = Field(description="Why they were not joined.", examples=["ambiguous"])
    confidence: Decimal = Field(description="Expected share of such pairs that are one coin.", examples=["0.5"])
    evidence: str
    created_at: datetime = Field(description="Since when it waits; UTC.")


class ReviewPage(Answer):
    """A page of pairs."""

    metadata: PageMetadata
    data: list[ReviewPair]


@router.get(
    "/identity/review",
    tags=["identity"],
    summary="Pairs of coins that may be one and wait for a person",
    responses={200: {"model": ReviewPage}, **documented(422, 503)},
    openapi_extra=ReviewQuery.documentation(),
)
async def review(request: Request) -> Response:
    """The likeliest first. They are decided with `kasparro identity review`.

    `next_cursor` leads to the next page; it names a place in the order, so pairs that come or go meanwhile neither
    hide nor repeat another.
    """
    query = ReviewQuery.read(request)
    after = ReviewCursor.decode(query.cursor) if query.cursor else None
    values: dict[str, Any] = {
        "source": query.source,
        "reason": query.reason,
        "confidence": after and after.confidence,
        "id": after and after.number,
        "limit": query.limit + 1,
    }
    database: Database = request.state.database
    async with database.connection() as connection:
        result = await connection.execute(_PAGE, values)
        names = [column.name for column in result.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in await result.fetchall()]
    page = rows[: query.limit]
    last = ReviewCursor(Exact(page[-1]["confidence"]), page[-1]["id"]) if len(rows) > query.limit else None
    metadata = {
        "request_id": request.state.request_id,
        "api_latency_ms": elapsed_ms(request.state.started),
        "count": len(page),
        "limit": query.limit,
        "next_cursor": last and last.encode(),
    }
    body = json.dumps({"metadata": metadata, "data": page}, ensure_ascii=False)
    return Response(body.encode(), media_type="application/json")

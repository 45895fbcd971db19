"""Where a row came from: which source's word became which column and why, down to payloads, bytes and runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any

import sqlalchemy as sa
import zstandard
from fastapi import APIRouter, Path, Request
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from sqlalchemy.dialects import postgresql
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from kasparro_api.database import Database
from kasparro_api.parameters import QueryParameters
from kasparro_api.problems import documented
from kasparro_api.queries import UNIFIED_COLUMNS
from kasparro_api.schemas import Lineage
from kasparro_api.serve import NOT_CHANGED, database_of, not_changed, one_object
from kasparro_pipeline.warehouse.touched import HISTORY_DAYS
from kasparro_pipeline.warehouse.unify import RULE

router = APIRouter(tags=["provenance"])

PIECE_BYTES = 65_536
"""Of a stored payload that are in memory at a time, compressed."""
MAX_DELIVERIES = 20
"""Of one payload that are told: the newest. Some vendors send the same bytes all day."""

_MISSING = "nothing of that name is kept; /data lists the rows, and their lineage the payloads"
_DIALECT = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]
_WHY = str(sa.text(f"SELECT why FROM (\n{RULE}) AS rule WHERE day = :day").compile(dialect=_DIALECT))  # noqa: S608

_ROW = f"""
SELECT row_to_json(r)::jsonb, EXISTS (
    SELECT FROM kasparro.kept_since k
    WHERE k.table_name = 'observation' AND %(day)s < (k.since AT TIME ZONE 'UTC')::date + %(history)s) AS pruned
FROM (
    SELECT {UNIFIED_COLUMNS} FROM kasparro.unified_assets u WHERE u.coin_id = %(coin_id)s AND u.day = %(day)s
) r"""  # noqa: S608

_MADE_BY = """
SELECT d.rule_version, d.run_id, d.unified_at, d.priorities,
       EXISTS (SELECT FROM kasparro.touched_day t
               WHERE t.day BETWEEN %(day)s - CASE WHEN t.by_history THEN 0 ELSE %(history)s END AND %(day)s
                 AND (t.source_coin_ids IS NULL OR EXISTS (
                     SELECT FROM kasparro.coin_identity_span i
                     WHERE i.coin_id = %(coin_id)s AND i.source = t.source
                       AND i.source_coin_id = ANY (t.source_coin_ids)))) AS changing
FROM kasparro.unified_day d WHERE d.day = %(day)s"""

_OBSERVATIONS = """
SELECT o.source, o.source_coin_id, o.observed_at, o.symbol, o.name, o.price_usd::text, o.market_cap_usd::text,
       o.volume_24h_usd::text, o.circulating_supply::text, o.total_supply::text, o.max_supply::text, o.rank,
       o.fetched_at, o.payload_sha256, o.position,
       jsonb_build_object(
           'method', coalesce(h.method, i.method), 'confidence', coalesce(h.confidence, i.confidence)::text,
           'evidence', coalesce(h.evidence, i.evidence)) AS identity
FROM unnest(%(sources)s::text[], %(coins)s::text[], %(times)s::timestamptz[])
    WITH ORDINALITY AS w (source, source_coin_id, observed_at, turn)
JOIN kasparro.observation o USING (source, source_coin_id, observed_at)
JOIN kasparro.coin_identity i USING (source, source_coin_id)
LEFT JOIN LATERAL ( -- of an id that was given to another coin since: why it was this one
    SELECT method, confidence, evidence FROM kasparro.coin_identity_history
    WHERE source = i.source AND source_coin_id = i.source_coin_id
      AND coin_id = %(coin_id)s AND i.coin_id <> %(coin_id)s
    ORDER BY valid_from DESC LIMIT 1
) h ON true
WHERE o.observed_at >= %(start)s AND o.observed_at < %(end)s -- as all of them are: so only one month is planned for
ORDER BY w.turn"""

_PAYLOADS = """
SELECT p.source, p.sha256, p.size_bytes, d.deliveries
FROM unnest(%(sources)s::text[], %(hashes)s::text[]) AS w (source, sha256)
JOIN kasparro.payload USING (source, sha256)
JOIN kasparro.raw_payload p USING (source, sha256, first_fetched_at)
CROSS JOIN LATERAL (
    SELECT array_agg(to_jsonb(n) ORDER BY n.fetched_at DESC) AS deliveries FROM (
        SELECT partition, position, fetched_at, request, first_record, run_id, parser_version, parsed_at, parse_run_id
        FROM kasparro.delivery WHERE source = p.source AND sha256 = p.sha256
        ORDER BY fetched_at DESC LIMIT %(deliveries)s) n
) d
GROUP BY p.source, p.sha256, p.size_bytes, d.deliveries ORDER BY p.source, p.sha256"""

_PAYLOAD = """
SELECT p.source, p.first_fetched_at, p.size_bytes,
       (SELECT d.request FROM kasparro.delivery d WHERE d.source = p.source AND d.sha256 = p.sha256 LIMIT 1) AS request
FROM kasparro.payload k JOIN kasparro.raw_payload p USING (source, sha256, first_fetched_at)
WHERE k.sha256 = %(sha256)s LIMIT 1"""

_PIECE = """
SELECT substring(body FROM %(start)s FOR %(length)s) FROM kasparro.raw_payload
WHERE source = %(source)s AND sha256 = %(sha256)s AND first_fetched_at = %(first_fetched_at)s"""

_ANY_CONTENT = {
    "application/json": {"example": [{"id": "bitcoin", "current_price": 67187.3358936566}]},
    "text/csv": {"example": "symbol,name,date,price\nBTC,Bitcoin,2026-11-01,67187.3358936566\n"},
    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
}
CoinId = Annotated[str, Path(description="As in `/data`.", examples=["bitcoin"])]
Day = Annotated[date, Path(description="UTC.", examples=["2026-11-01"])]
Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="As in a lineage's `payload_sha256`.")]


@router.get(
    "/data/{coin_id}/{day}/lineage",
    summary="Where one row came from, and why",
    responses={200: {"model": Lineage}, **NOT_CHANGED, **documented(404, 422, 503)},
)
async def lineage(request: Request, coin_id: CoinId, day: Day) -> Response:
    """The row, the observations it was chosen from, what became of every source's every field, the payloads that
    held them, and the Dagster runs and versions that fetched, parsed and unified them.

    The verdicts are the rule's own, given by the same SQL statement that makes the rows. `changing` says that something
    of the day has arrived since the row was made, so that verdicts may be ahead of the row. `pruned` says that
    observations it rests on are no longer kept: the row stays as it is, and less or nothing is told of its origin.
    """
    QueryParameters.read(request.query_params)
    database = database_of(request)
    if "\x00" in coin_id:
        raise HTTPException(404, _MISSING)
    async with database.connection() as connection:
        told = await _told(connection, coin_id, day)
    return one_object(request, json.dumps(told, default=_text)[1:-1].encode())


@router.get(
    "/payloads/{sha256}",
    summary="The bytes a source sent",
    response_class=Response,
    responses={200: {"content": _ANY_CONTENT}, **NOT_CHANGED, **documented(404, 422, 503)},
)
async def payload(request: Request, sha256: Sha256) -> Response:
    """One answer of a vendor, or one block of a CSV file, exactly as it came; their SHA-256 is the address."""
    QueryParameters.read(request.query_params)
    database = database_of(request)
    async with database.connection() as connection:
        row = await _one(connection, _PAYLOAD, {"sha256": sha256})
    if row is None:
        raise HTTPException(404, _MISSING)
    kept = {"Cache-Control": "private, max-age=31536000, immutable", "ETag": f'"{sha256}"'}
    if not_changed(request, kept["ETag"]):
        return Response(status_code=304, headers=kept)
    pieces = _pieces(database, {"sha256": sha256, **{name: row[name] for name in ("source", "first_fetched_at")}})
    first = await anext(pieces, b"")
    media_type, ending = _kind(first)
    headers = {
        "Content-Length": str(row["size_bytes"]),
        "Content-Disposition": f'attachment; filename="{sha256}{ending}"',
        **kept,
    }
    return StreamingResponse(_chained(first, pieces), 200, headers, media_type)


async def _told(connection: AsyncConnection[Any], coin_id: str, day: date) -> dict[str, Any]:
    values: dict[str, Any] = {"coin_id": coin_id, "coin_ids": [coin_id], "day": day, "history": HISTORY_DAYS}
    row = await _one(connection, _ROW, values)
    if row is None:
        raise HTTPException(404, _MISSING)
    made_by = await _one(connection, _MADE_BY, values) or {"priorities": {}}
    priorities = made_by.pop("priorities")
    start = datetime.combine(day, time(), UTC)
    values |= {"since": start - timedelta(days=HISTORY_DAYS), "start": start, "end": start + timedelta(days=1)}
    values |= {"sources": list(priorities), "priorities": list(priorities.values())}
    why = (await _one(connection, _WHY, values) or {"why": []})["why"]
    observations = await _observations(connection, values, why)
    payloads = await _payloads(connection, observations)
    return {
        "row": row["row_to_json"],
        "fields": _by_field(why),
        "observations": observations,
        "payloads": payloads,
        "unified_by": made_by or None,
        "pruned": row["pruned"],
    }


def _by_field(why: list[dict[str, Any]]) -> dict[str, Any]:
    fields: dict[str, list[dict[str, Any]]] = {}
    for entry in why:
        told = {name: entry[name] for name in ("source", "value", "verdict", "median", "usual")}
        fields.setdefault(entry["field"], []).append(told)
    return fields


async def _observations(
    connection: AsyncConnection[Any], values: dict[str, Any], why: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Each source's word of the day, in the order in which they are taken."""
    words = list({(e["source"], e["source_coin_id"], e["observed_at"]): None for e in why})
    sources, coins, times = ([word[n] for word in words] for n in range(3))
    return await _all(connection, _OBSERVATIONS, {**values, "sources": sources, "coins": coins, "times": times})


async def _payloads(connection: AsyncConnection[Any], observations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    values = {
        "sources": [observation["source"] for observation in observations],
        "hashes": [observation["payload_sha256"] for observation in observations],
        "deliveries": MAX_DELIVERIES,
    }
    return await _all(connection, _PAYLOADS, values)


async def _pieces(database: Database, key: dict[str, Any]) -> AsyncIterator[bytes]:
    """The payload's bytes, a piece at a time; no connection is held while a piece is sent."""
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    start = 1
    while True:
        values = {"start": start, "length": PIECE_BYTES, **key}
        async with database.connection() as connection:
            row = await (await connection.execute(_PIECE, values, binary=True)).fetchone()
        if row is None or not row[0]:
            return
        start += len(row[0])
        if piece := decompressor.decompress(row[0]):
            yield piece


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _kind(start: bytes) -> tuple[str, str]:
    """Media type and file ending of what begins like this."""
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return "application/json", ".json"
    text = start[:-3].decode("utf-8", "replace") if len(start) > 3 else ""  # a piece may end within a character
    if text and "\0" not in text and "\ufffd" not in text:
        return "text/csv; charset=utf-8", ".csv"
    return "application/octet-stream", ".bin"


async def _one(connection: AsyncConnection[Any], query: str, values: dict[str, Any]) -> dict[str, Any] | None:
    rows = await _all(connection, query, values)
    return rows[0] if rows else None


async def _all(connection: AsyncConnection[Any], query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, values, prepare=False)
        return await cursor.fetchall()


def _text(value: object) -> str:
    """Times and days as JSON has them."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in an answer")

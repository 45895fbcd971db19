"""What can be listed: each declaration is columns, rows, orders and filters; the rest follows from it."""
# ruff: noqa: S608 - nothing but names written here goes into the texts

from __future__ import annotations

from kasparro_api.listing import Kind, Listing, OneOf, Overlap, Search, Variant, Where, by
from kasparro_api.schemas import (
    CoinRow,
    DriftRow,
    ObservationRow,
    QuarantineRow,
    ReviewRow,
    RunRow,
    SourceRow,
    UnifiedRow,
)

_COIN_WORDS = "to_tsvector('simple', coin_id || ' ' || coalesce(symbol, '') || ' ' || coalesce(name, ''))"
"""As in the index ``coin_words``: full text search needs no extension."""

_Q = "Words of name, symbol or id, or their beginnings; all have to be there."
_SYMBOL = OneOf("symbol", "lower(t.symbol)", "Symbols, comma list, upper or lower case alike.", "BTC", lower=True)
_OF_UNIFIED = (
    Overlap("source", "t.sources", "Only rows to which one of these sources contributed; comma list.", "coingecko"),
    Overlap("flags", "t.flags", "Only rows with one of these flags; comma list.", "wide_spread"),
)
_COIN = by("t.coin_id", Kind.TEXT)
_COIN_DOWN = by("t.coin_id", Kind.TEXT, descending=True)
_DAY = by("t.day", Kind.DAY)
_DAY_DOWN = by("t.day", Kind.DAY, descending=True)
_BY_DAY = {"-day": (_DAY_DOWN, _COIN), "day": (_DAY, _COIN_DOWN)}

DATA = Listing(
    name="data",
    row=UnifiedRow,
    description="""One row a coin and day, newest day first, then by `coin_id`, unless `sort` says otherwise.

Prices, caps, supplies and volumes are **strings** that hold exact decimals, with every digit the source gave.
Days are UTC days, times are RFC 3339 in UTC. Parameters are joined by AND, names in a list by OR.

`next_cursor` (also in the header `Link`) leads to the next page. It names a place in the order, not a number of rows:
while rows arrive, no row that was there is skipped or given twice.""",
    relation="kasparro.unified_assets",
    orders={**_BY_DAY, "coin_id": (_COIN, _DAY), "-coin_id": (_COIN_DOWN, _DAY_DOWN)},
    filters=(
        OneOf("coin_id", "t.coin_id", "Coins, comma list.", "bitcoin,ethereum"),
        _SYMBOL,
        *_OF_UNIFIED,
        Search(
            "q",
            f"t.coin_id IN (SELECT coin_id FROM kasparro.coin WHERE {_COIN_WORDS} @@ to_tsquery('simple', %(q)s))",
            f"{_Q} As the coin is called now.",
            "bitcoin cash",
        ),
    ),
    within="day",
    tables=("unified_assets", "coin"),
    as_of="kasparro.unified_assets_as_of(%(as_of)s)",
)

LATEST = Listing(
    name="latest",
    row=UnifiedRow,
    description="Rows of the newest day there is; `limit=10` gives the ten greatest. Coins without a cap come last.",
    relation="(SELECT * FROM kasparro.unified_assets WHERE day = (SELECT max(day) FROM kasparro.unified_assets))",
    orders={
        "-market_cap": (
            by("coalesce(t.market_cap_usd, '-Infinity')", Kind.NUMBER, descending=True),
            _COIN,
        ),
        "-volume_24h": (
            by("coalesce(t.volume_24h_usd, '-Infinity')", Kind.NUMBER, descending=True),
            _COIN,
        ),
        "coin_id": (_COIN,),
    },
    filters=(_SYMBOL, *_OF_UNIFIED),
    tables=("unified_assets",),
)

_COIN_DAYS = "(SELECT * FROM kasparro.unified_assets WHERE coin_id = %(in_coin_id)s)"


def _last_of(interval: str) -> str:
    return f"""(
        SELECT DISTINCT ON (date_trunc('{interval}', day::timestamp)) * FROM kasparro.unified_assets
        WHERE coin_id = %(in_coin_id)s ORDER BY date_trunc('{interval}', day::timestamp), day DESC)"""


HISTORY = Listing(
    name="history",
    row=UnifiedRow,
    description="Rows of the unified asset table, newest first; what each source said is under `observations`.",
    relation=_COIN_DAYS,
    orders={"-day": (_DAY_DOWN,), "day": (_DAY,)},
    filters=_OF_UNIFIED,
    within="day",
    tables=("unified_assets", "coin"),
    variant=Variant(
        "interval",
        {"day": _COIN_DAYS, "week": _last_of("week"), "month": _last_of("month")},
        "One row a day, or the last row of each week (from Monday) or month.",
    ),
)

COINS = Listing(
    name="coins",
    row=CoinRow,
    description="One row a coin; `q` searches names, symbols and ids.",
    relation="""(
        SELECT c.*, ARRAY(SELECT DISTINCT i.source FROM kasparro.coin_identity i
                          WHERE i.coin_id = c.coin_id ORDER BY i.source) AS sources
        FROM kasparro.coin c)""",
    orders={"coin_id": (_COIN,), "-coin_id": (_COIN_DOWN,)},
    filters=(
        OneOf("coin_id", "t.coin_id", "Coins, comma list.", "bitcoin,ethereum"),
        _SYMBOL,
        Overlap("source", "t.sources", "Only coins that one of these sources knows; comma list.", "coingecko"),
        Search("q", f"{_COIN_WORDS} @@ to_tsquery('simple', %(q)s)", _Q, "bitcoin cash"),
    ),
    tables=("coin", "coin_identity"),
)

OBSERVATIONS = Listing(
    name="observations",
    row=ObservationRow,
    description="Every observation as it was read, newest first, with the payload it came from.",
    relation="""(
        SELECT o.* FROM kasparro.coin_identity_span i JOIN kasparro.observation o USING (source, source_coin_id)
        WHERE i.coin_id = %(in_coin_id)s AND o.observed_at >= i.since AND o.observed_at < i.until)""",
    orders={
        "-observed_at": (
            by("t.observed_at", Kind.TIME, descending=True),
            by("t.source", Kind.TEXT),
            by("t.source_coin_id", Kind.TEXT),
        ),
        "observed_at": (
            by("t.observed_at", Kind.TIME),
            by("t.source", Kind.TEXT),
            by("t.source_coin_id", Kind.TEXT),
        ),
    },
    filters=(OneOf("source", "t.source", "Sources, comma list.", "coingecko"),),
    within="observed_at",
    tables=("observation", "coin_identity", "coin"),
)

_HAS_STEP = "t.run_id IN (SELECT run_id FROM kasparro.source_run"

RUNS = Listing(
    name="runs",
    row=RunRow,
    description="""Dagster runs that have begun, newest first, with what they did for the sources.

A run of several sources is found under each of them; its status and counts are those of the whole run.""",
    # of each run its first step stands in an index in the order of the runs: no more runs are looked at than are told
    relation="""(
        SELECT f.run_id, r.status, r.sources, f.started_at, r.ended_at,
            round(extract(epoch FROM r.ended_at - f.started_at), 3) AS duration_s,
            r.records, r.inserted, r.updated, r.unchanged, r.quarantined, r.error
        FROM kasparro.source_run f, LATERAL (
            SELECT CASE WHEN bool_or(status = 'failure') THEN 'failure' WHEN bool_or(status = 'running') THEN 'running'
                        ELSE 'success' END AS status,
                array_agg(DISTINCT source ORDER BY source) AS sources,
                CASE WHEN bool_and(ended_at IS NOT NULL) THEN max(ended_at) END AS ended_at,
                sum(records)::bigint AS records, sum(inserted)::bigint AS inserted, sum(updated)::bigint AS updated,
                sum(unchanged)::bigint AS unchanged, sum(quarantined)::bigint AS quarantined,
                string_agg(error, '; ' ORDER BY started_at) AS error
            FROM kasparro.source_run WHERE run_id = f.run_id) r
        WHERE NOT EXISTS (SELECT FROM kasparro.source_run e WHERE e.run_id = f.run_id
            AND (e.started_at, e.asset_key, e.source) < (f.started_at, f.asset_key, f.source)))""",
    orders={"-started_at": (by("t.started_at", Kind.TIME, descending=True), by("t.run_id", Kind.TEXT))},
    filters=(
        OneOf("run_id", "t.run_id", "Runs, comma list.", "0b1c9f0e-6a52-4a5d-9a3e-1f6d5a7f4d10"),
        Where(
            "status",
            # a run has a step of its status, by which the few that failed are found
            f"t.status = ANY(%(status)s) AND {_HAS_STEP} WHERE status = ANY(%(status)s))",
            "Comma list.",
            "failure",
            allowed=("running", "success", "failure"),
        ),
        Where(
            "source",
            f"{_HAS_STEP} WHERE source = ANY(%(source)s))",
            "Only runs that touched one of these sources; comma list.",
            "coingecko",
        ),
    ),
    within="started_at",
    tables=("source_run",),
)

RAN = """(
    WITH RECURSIVE one AS (
        SELECT min(source) AS source FROM kasparro.source_run
        UNION ALL
        SELECT (SELECT min(source) FROM kasparro.source_run r WHERE r.source > one.source) FROM one
        WHERE one.source IS NOT NULL)
    SELECT source FROM one WHERE source IS NOT NULL)"""
"""The sources that ever ran: a look into an index for each, where DISTINCT would read all runs."""

SOURCES = Listing(
    name="sources",
    row=SourceRow,
    description="Every source that ever ran or spoke of a coin.",
    relation=f"""(
        SELECT s.source, coalesce(c.coins, 0) AS coins, c.first_observed_at, c.last_observed_at,
               (SELECT ended_at FROM kasparro.source_run r WHERE r.source = s.source AND r.status = 'success'
                ORDER BY started_at DESC LIMIT 1) AS last_success_at,
               (SELECT count(*) FROM kasparro.quarantine q WHERE q.source = s.source) AS quarantined
        FROM (SELECT source FROM {RAN} r UNION SELECT source FROM kasparro.source_coin) s
        LEFT JOIN (SELECT source, count(*) AS coins, min(first_seen) AS first_observed_at,
                          max(last_seen) AS last_observed_at
                   FROM kasparro.source_coin GROUP BY source) c USING (source))""",
    orders={"source": (by("t.source", Kind.TEXT),)},
    filters=(OneOf("source", "t.source", "Sources, comma list.", "coingecko"),),
    tables=("source_coin", "source_run", "quarantine"),
)

QUARANTINE = Listing(
    name="quarantine",
    row=QuarantineRow,
    description="""Records that could not become observations, newest first: each with where it came from, and why.

`kasparro quarantine retry` parses them again after a mapping was mended.""",
    relation="kasparro.quarantine",
    orders={"-created_at": (by("t.created_at", Kind.TIME, descending=True), by("t.id", Kind.INTEGER, descending=True))},
    filters=(
        OneOf("source", "t.source", "Sources, comma list.", "coingecko"),
        OneOf("reason_code", "t.reason_code", "Reason codes, comma list.", "bad_number"),
    ),
    within="created_at",
    tables=("quarantine",),
)

DRIFT = Listing(
    name="drift",
    row=DriftRow,
    description="Changes in the fields of the sources' records, by the time they were seen first, newest first.",
    relation="(SELECT *, CASE WHEN resolved_at IS NULL THEN 'open' ELSE 'closed' END AS status FROM kasparro.drift)",
    orders={"-first_seen": (by("t.first_seen", Kind.TIME, descending=True), by("t.id", Kind.INTEGER, descending=True))},
    filters=(
        OneOf("source", "t.source", "Sources, comma list.", "coingecko"),
        OneOf("kind", "t.kind", "Comma list.", "missing", allowed=("new", "missing", "retyped", "renamed")),
        OneOf("status", "t.status", "Comma list.", "open", allowed=("open", "closed")),
        OneOf("severity", "t.severity", "Comma list.", "error", allowed=("error", "warn", "info")),
    ),
    within="last_seen",
    tables=("drift",),
)

REVIEW = Listing(
    name="review",
    row=ReviewRow,
    description="""Pairs of coins that may be one and wait for a person, the likeliest first.

They are decided with `kasparro identity review`.""",
    relation="(SELECT *, ARRAY[source, other_source] AS sources FROM kasparro.identity_review)",
    orders={"-confidence": (by("t.confidence", Kind.NUMBER, descending=True), by("t.id", Kind.INTEGER))},
    filters=(
        Overlap("source", "t.sources", "Only pairs with a coin of one of these sources; comma list.", "coingecko"),
        OneOf("reason", "t.reason", "Why they were not joined; comma list.", "ambiguous"),
    ),
    tables=("identity_review",),
)

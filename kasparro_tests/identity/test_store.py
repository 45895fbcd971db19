"""What identity keeps in the tables."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from kasparro_pipeline.defs.coins import store
from kasparro_pipeline.identity.coins import OpenPair, Quote
from kasparro_pipeline.warehouse.tables import (
    coin,
    coin_contract,
    coin_identity,
    coin_identity_history,
    coin_listing,
    delivery,
    identity_review,
    observation,
    source_coin,
)
from kasparro_tests.warehouse.payloads import keep_payloads

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def seen(engine: sa.Engine, source: str, key: str, words: str, at: datetime = NOON) -> None:
    """The source speaks of its coin, by symbol and name."""
    symbol, _, name = words.partition(" ")
    values = {"symbol": symbol, "name": name, "last_seen": at}
    with engine.begin() as connection:
        of_coin = (source_coin.c.source == source, source_coin.c.source_coin_id == key)
        if not connection.execute(sa.update(source_coin).where(*of_coin).values(values)).rowcount:
            row = {"source": source, "source_coin_id": key, "first_seen": at, **values}
            connection.execute(sa.insert(source_coin).values(row))


def taken_for(engine: sa.Engine, source: str, key: str, coin_id: str, method: str = "own") -> None:
    """The source's coin is this coin, and history is written."""
    row = {"source": source, "source_coin_id": key, "coin_id": coin_id, "method": method, "confidence": 1}
    with engine.begin() as connection:
        connection.execute(sa.delete(coin_identity).where(coin_identity.c.source_coin_id == key))
        if not connection.scalar(sa.select(coin.c.coin_id).where(coin.c.coin_id == coin_id)):
            connection.execute(sa.insert(coin).values(coin_id=coin_id))
        connection.execute(sa.insert(coin_identity).values(evidence="", **row))
        store.write_history(connection)


def history(engine: sa.Engine, key: str) -> list[tuple[Any, ...]]:
    h = coin_identity_history.c
    query = sa.select(h.coin_id, h.symbol, h.name, h.listed, h.method).where(h.source_coin_id == key)
    with engine.connect() as connection:
        rows = connection.execute(query.order_by(h.valid_from)).all()
        spans = connection.execute(
            sa.select(h.valid_from, h.valid_to).where(h.source_coin_id == key).order_by(h.valid_from)
        ).all()
    assert [span.valid_to for span in spans] == [*(span.valid_from for span in spans[1:]), None]
    return [tuple(row) for row in rows]


def test_history_keeps_renames_moves_and_delistings(engine: sa.Engine) -> None:
    seen(engine, "coingecko", "matic", "matic Polygon")
    taken_for(engine, "coingecko", "matic", "polygon")
    seen(engine, "coingecko", "matic", "pol Polygon Ecosystem", NOON + timedelta(days=1))
    taken_for(engine, "coingecko", "matic", "polygon")
    taken_for(engine, "coingecko", "matic", "polygon")  # nothing new: nothing written
    taken_for(engine, "coingecko", "matic", "matic-network", "ruling")
    seen(engine, "coingecko", "bitcoin", "btc Bitcoin", NOON + timedelta(days=10))
    taken_for(engine, "coingecko", "bitcoin", "bitcoin")
    assert history(engine, "matic") == [
        ("polygon", "matic", "Polygon", True, "own"),
        ("polygon", "pol", "Polygon Ecosystem", True, "own"),
        ("matic-network", "pol", "Polygon Ecosystem", True, "ruling"),
        ("matic-network", "pol", "Polygon Ecosystem", False, "ruling"),
    ]
    assert history(engine, "bitcoin") == [("bitcoin", "btc", "Bitcoin", True, "own")]


def in_list(engine: sa.Engine, at: datetime, **coins: bool) -> None:
    """CoinGecko's list was fetched and read, with these coins, listed or not."""
    row = {"source": "coingecko_list", "sha256": f"{at}", "fetched_at": at}
    kept = {"body": b"", "size_bytes": 0, "first_fetched_at": at, **{name: row[name] for name in ("source", "sha256")}}
    delivered = {"partition": "p", "position": 0, "request": "", "first_record": 1, "is_last": True, "inserted": 0}
    with engine.begin() as connection:
        keep_payloads(connection, [kept])
        connection.execute(sa.insert(delivery).values(row | delivered))
        connection.execute(sa.delete(coin_listing))
        for key, listed in coins.items():
            said = {"source": "coingecko", "source_coin_id": key, "listed": listed, "first_listed_at": NOON}
            connection.execute(sa.insert(coin_listing).values(payload_sha256="x", position=1, **said))


def test_a_list_knows_better_than_silence_what_is_listed(engine: sa.Engine) -> None:
    for key in ("quiet", "gone", "new"):
        seen(engine, "coingecko", key, f"{key} {key}", NOON - timedelta(days=30 if key == "quiet" else 0))
    in_list(engine, NOON - timedelta(hours=1), quiet=True, gone=False)  # and `new` came after it
    for key in ("quiet", "gone", "new"):
        taken_for(engine, "coingecko", key, key)
    assert {key: history(engine, key)[-1][3] for key in ("quiet", "gone", "new")} == {
        "quiet": True,
        "gone": False,
        "new": True,
    }
    in_list(engine, NOON + timedelta(hours=1), quiet=True, gone=False)
    taken_for(engine, "coingecko", "new", "new")
    assert [row[3] for row in history(engine, "new")] == [True, False]
    seen(engine, "coingecko", "gone", "gone gone", NOON + timedelta(days=9))  # the list is no longer fetched
    taken_for(engine, "coingecko", "gone", "gone")
    assert history(engine, "gone")[-1][3]
    assert not history(engine, "quiet")[-1][3]


def test_contracts_are_those_that_are_listed_and_one_coins_alone(engine: sa.Engine) -> None:
    seen(engine, "coingecko", "dollar", "usd Dollar")
    claims = [("dollar", "0xa", True), ("dollar", "0xb", False), ("dollar", "0xc", True), ("only-listed", "0xc", True)]
    said = {"source": "coingecko", "chain": "ethereum", "platform": "ethereum", "first_listed_at": NOON}
    with engine.begin() as connection:
        for key, address, listed in claims:
            row = {"source_coin_id": key, "address": address, "listed": listed, "payload_sha256": "x", "position": 1}
            connection.execute(sa.insert(coin_contract).values(said | row))
        (told,) = store.read_coins(connection)
    assert told.contracts == {"ethereum": {"0xa"}}


def test_a_file_of_the_past_is_no_delisting(engine: sa.Engine) -> None:
    seen(engine, "csv_desk", "old", "OLD Old", NOON - timedelta(days=900))
    seen(engine, "csv_desk", "btc", "BTC Bitcoin")
    taken_for(engine, "csv_desk", "old", "old")
    assert history(engine, "old") == [("old", "OLD", "Old", True, "own")]


def test_a_coin_comes_with_its_last_quote_and_what_it_was_when_it_was_joined(engine: sa.Engine) -> None:
    seen(engine, "coingecko", "matic", "matic Polygon", NOON - timedelta(days=1))
    taken_for(engine, "coingecko", "matic", "polygon")
    for at, symbol in ((NOON - timedelta(hours=1), "pol"), (NOON, "poly")):
        seen(engine, "coingecko", "matic", f"{symbol} Polygon", at)
        taken_for(engine, "coingecko", "matic", "polygon")
    prices = {NOON - timedelta(hours=1): "1.5", NOON: "1.0000000000000000001"}
    with engine.begin() as connection:
        for at, price in prices.items():
            row = {"source": "coingecko", "source_coin_id": "matic", "observed_at": at, "fetched_at": at, "position": 1}
            row |= {"payload_sha256": "x", "price_usd": Decimal(price), "market_cap_usd": Decimal(7)}
            connection.execute(sa.insert(observation).values(row))
        (told,) = store.read_coins(connection)
    assert (told.symbol, told.was) == ("poly", ("matic", "Polygon"))
    assert told.quote == Quote(date(2026, 11, 1), Decimal("1.0000000000000000001"), Decimal(7))
    assert (told.first_seen, told.last_seen) == (NOON - timedelta(days=1), NOON)


def open_pair(key: str, evidence: str = "", confidence: str = "0.5") -> OpenPair:
    return OpenPair("coingecko", key, "csv_desk", key.upper(), "symbol", Decimal(confidence), evidence)


def test_what_waits_keeps_its_number_and_what_does_not_goes(engine: sa.Engine) -> None:
    def waiting() -> dict[str, tuple[int, str]]:
        with engine.connect() as connection:
            rows = connection.execute(sa.select(identity_review)).all()
        return {row.source_coin_id: (row.id, row.evidence) for row in rows}

    with engine.begin() as connection:
        store.write_review(connection, [open_pair("a"), open_pair("b")])
    first = waiting()
    with engine.begin() as connection:
        store.write_review(connection, [open_pair("c"), open_pair("b", "more")])
    second = waiting()
    assert second.keys() == {"b", "c"}
    assert second["b"] == (first["b"][0], "more")
    with engine.begin() as connection:
        store.write_review(connection, [])
    assert waiting() == {}

"""Making unified rows: ``python -m kasparro_tests.bench.unifies``.

- a day of many coins and three sources, into an empty table, and the same day again;
- all days of a year of fewer coins; the same when nothing was touched, and by force with nothing changed;
- one coin restated on that day, and on one, ten, a hundred and all days of the year: its rows of these days, and of the
  three days after each, are made again;
- a day in a table, and in one of ten times its rows, in turns.

All of it in this process as the asset does it, triggers and history included, but for Dagster; into a database of its
own on DATABASE_URL's server, else on one that is started for this run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from uuid import uuid4

import sqlalchemy as sa

from kasparro_pipeline.components.partitions import day_ranges
from kasparro_pipeline.warehouse.database import create_engine
from kasparro_pipeline.warehouse.merge import Merge, Merged, Window
from kasparro_pipeline.warehouse.migrate import migrate
from kasparro_pipeline.warehouse.months import make_partitions, month_of
from kasparro_pipeline.warehouse.tables import observation, unified_assets
from kasparro_pipeline.warehouse.touched import Touched, due_days
from kasparro_pipeline.warehouse.unification import Unification
from kasparro_tests.bench.loads import _server

NEWEST = date(2026, 11, 1)
SOURCES = ("coingecko", "coinpaprika", "csv_bench")
PRIORITIES = {"coingecko": 10, "coinpaprika": 20, "csv_bench": 90}

_COINS = "INSERT INTO kasparro.coin (coin_id) SELECT 'coin-' || n FROM generate_series(1, :coins) n"
_MEMBERS = """
WITH member AS (
    SELECT source, 'coin-' || n AS id FROM unnest(CAST(:sources AS text[])) source, generate_series(1, :coins) n
), named AS (
    INSERT INTO kasparro.source_coin (source, source_coin_id, first_seen, last_seen)
    SELECT source, id, now(), now() FROM member
)
INSERT INTO kasparro.coin_identity (source, source_coin_id, coin_id, method, confidence, evidence)
SELECT source, id, id, 'override', 1, '' FROM member
"""
_OBSERVATIONS = """
INSERT INTO kasparro.observation (source, source_coin_id, observed_at, symbol, name, price_usd, market_cap_usd,
    volume_24h_usd, circulating_supply, total_supply, max_supply, rank, fetched_at, payload_sha256, position)
SELECT source, 'coin-' || n, day + interval '23:50', 's' || n, 'Coin ' || n,
       round(n * (1 + abs(hashtext(source || n || day)) % 100 / 5000.0), 9), n * 1717171.17,
       n * 1000.5, 19000000, 21000000, 21000000, n, day + interval '23:55', repeat('a', 64), n
FROM unnest(CAST(:sources AS text[])) source, generate_series(1, :coins) n,
     generate_series(CAST(:first AS timestamptz), CAST(:last AS timestamptz), '1 day') day
"""
_FILLER = """
INSERT INTO kasparro.unified_assets (coin_id, day, symbol, price_usd, source_count, sources, flags, observed_at)
SELECT 'filler-' || n % 3000, CAST(:last AS date) - n / 3000, 'f', n, 1, '{coingecko}', '{}', now()
FROM generate_series(0, :rows - 1) n
"""


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--coins", type=int, default=20_000, help="of the day")
    options.add_argument("--year-coins", type=int, default=300)
    options.add_argument("--days", type=int, default=365)
    options.add_argument("--large-coins", type=int, default=3000, help="of the day made in large tables")
    options.add_argument("--rows", type=int, default=100_000, help="of the smaller table for the last measurement")
    options.add_argument("--times", type=int, default=10, help="so many times the rows in the larger one")
    arguments = options.parse_args()
    with _database() as engine:
        _day(engine, arguments.coins)
    with _database() as engine:
        whole = _year(engine, arguments.year_coins, arguments.days)
        _restated(engine, arguments.days, whole)
    _large(arguments.large_coins, arguments.rows, arguments.times)


def _day(engine: sa.Engine, coins: int) -> None:
    _generate(engine, coins, 4)
    words = coins * len(SOURCES)
    for name in ("first", "again"):
        seconds, merged = _unified(engine, NEWEST, NEWEST)
        print(  # noqa: T201
            f"a day of {coins} coins x {len(SOURCES)} sources, {name}: {seconds:.2f} s, {words / seconds:.0f} words/s, "
            f"{merged.inserted} rows inserted, {merged.updated} updated"
        )
    one = _restate(engine, NEWEST, 1)
    print(f"one coin of it restated: {one:.3f} s, {one / seconds:.4f} of the day")  # noqa: T201


def _year(engine: sa.Engine, coins: int, days: int) -> float:
    _generate(engine, coins, days)
    first = NEWEST - timedelta(days=days - 1)
    seconds, _ = _unified(engine, first, NEWEST)
    words = coins * days * len(SOURCES)
    print(f"{days} days of {coins} coins: {seconds:.2f} s, {words / seconds:.0f} words/s")  # noqa: T201
    print(f"the same with nothing touched: {_due(engine):.4f} s")  # noqa: T201
    again, merged = _unified(engine, first, NEWEST)
    print(f"the same by force: {again:.2f} s, {merged.inserted + merged.updated} rows written")  # noqa: T201
    return again


def _restated(engine: sa.Engine, days: int, whole: float) -> None:
    for of_them in (1, 10, 100, days):
        seconds = _restate(engine, NEWEST - timedelta(days=days - 1), of_them)
        print(f"one coin restated on {of_them} days: {seconds:.3f} s, {seconds / whole:.4f} of all")  # noqa: T201


def _restate(engine: sa.Engine, first: date, days: int) -> float:
    """Seconds to make what is due when a source has changed its word of one coin on so many days."""
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE kasparro.observation SET price_usd = price_usd + 1 WHERE source = 'coingecko' "
                "AND source_coin_id = 'coin-1' AND observed_at >= :first AND observed_at < :end"
            ),
            {"first": first, "end": first + timedelta(days=days)},
        )
        touched = Touched()
        touched.add("coingecko", {first + timedelta(days=n): {"coin-1"} for n in range(days)})
        touched.write(connection)
    return _due(engine)


def _large(coins: int, rows: int, times: int) -> None:
    """Two tables in turns, so that what else the machine does hits both."""
    with _database() as small, _database() as large:
        for engine, filled in ((small, rows), (large, rows * times)):
            _generate(engine, coins, 4)
            with engine.begin() as connection:
                connection.execute(sa.text(_FILLER), {"rows": filled, "last": NEWEST - timedelta(days=1)})
            _unified(engine, NEWEST, NEWEST)
            _analyze(engine)
        took = [[_unified(engine, NEWEST, NEWEST)[0] for engine in (small, large)] for _ in range(15)]
    ratio = statistics.median(few / many for few, many in took)
    few, many = (statistics.median(column) for column in zip(*took, strict=True))
    print(  # noqa: T201
        f"a day of {coins} coins at {rows} rows: {few:.3f} s; at {times} times as many: {many:.3f} s; "
        f"{ratio:.2f} of the speed, the median of {len(took)} turns (goal 0.90)"
    )


def _due(engine: sa.Engine) -> float:
    """Seconds to make what is due."""
    started = time.perf_counter()
    with engine.connect() as connection:
        ranges = day_ranges(due_days(connection))
    for first, last in ranges:
        _unified(engine, first, last, only_touched=True)
    return time.perf_counter() - started


def _unified(engine: sa.Engine, first: date, last: date, *, only_touched: bool = False) -> tuple[float, Merged]:
    end = last + timedelta(days=1)
    run = Unification(first, end, "bench", PRIORITIES, "bench", only_touched=only_touched)
    started = time.perf_counter()
    with engine.begin() as connection:
        merge = Merge(connection, unified_assets, window=Window("day", first, end), replace=True)
        for frame in run.frames(connection):
            merge.frame(frame)
        merged = merge.finish(run.windows())
        run.commit(connection, merged)
    return time.perf_counter() - started, merged


def _generate(engine: sa.Engine, coins: int, days: int) -> None:
    first = NEWEST - timedelta(days=days - 1)
    values = {"sources": list(SOURCES), "coins": coins, "first": first, "last": NEWEST}
    with engine.begin() as connection:
        make_partitions(connection, observation, range(month_of(first), month_of(NEWEST) + 1))
        for statement in (_COINS, _MEMBERS, _OBSERVATIONS):
            connection.execute(sa.text(statement), values)
    _analyze(engine)


def _analyze(engine: sa.Engine) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")


@contextmanager
def _database() -> Iterator[sa.Engine]:
    with _server() as server:
        name = f"kasparro_bench_{uuid4().hex[:12]}"
        admin = create_engine(server).execution_options(isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine = create_engine(server.set(database=name))
        try:
            migrate(engine)
            yield engine
        finally:
            engine.dispose()
            with admin.connect() as connection:
                connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
            admin.dispose()


if __name__ == "__main__":
    main()

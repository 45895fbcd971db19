"""Loading generated observations, as ratios to a plain COPY: ``python -m kasparro_tests.bench.loads``.

Each round takes in turns, so that a noisy machine harms all alike:

- ``plain COPY``: into a logged table without key or index, the same columns encoded the same way;
- ``first load``: `Merge` with receipts into the empty ``observation``, as the IO manager does it;
- ``same again``: the same rows once more;
- ``compared``: the same rows once more without receipts, so that they are sent and compared.

Each is one transaction in a process of its own, which makes its rows while it goes (plain COPY: before); the time for
that is taken off.
Memory is the greatest resident size of that process. The rows go to a database of their own on DATABASE_URL's server,
else on one that is started for this run, with its durable defaults.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from pyarrow import csv as pa_csv

from kasparro_pipeline.components.observations import WRITTEN_BY
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.sources.records import NUMBER_COLUMNS, OBSERVATION_SCHEMA
from kasparro_pipeline.warehouse.database import create_engine, ensure_database
from kasparro_pipeline.warehouse.embedded import EmbeddedPostgres
from kasparro_pipeline.warehouse.frames import exact
from kasparro_pipeline.warehouse.merge import COPY_ROWS, Merge
from kasparro_pipeline.warehouse.tables import SCHEMA, merge_receipt, metadata, observation

COINS = 10_000
SNAPSHOTS_A_FRAME = 5
PLAIN, FIRST, AGAIN, COMPARED = "plain COPY", "first load", "same again", "compared"
METHOD = f"COPY ... FROM STDIN (FORMAT csv) by psycopg, Arrow to CSV in blocks of {COPY_ROWS} rows"


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--measure", choices=LOADS, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.measure:
        print(json.dumps(_measured(arguments.measure, arguments.rows)))  # noqa: T201
        return
    with database() as url:
        found = _rounds(url, arguments.rows, arguments.rounds)
    _print(found, arguments.rows, arguments.rounds)


def _rounds(url: sa.URL, rows: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    found = defaultdict(list)
    environment = {**os.environ, "DATABASE_URL": url.render_as_string(hide_password=False)}
    engine = create_engine(url)
    for _ in range(rounds):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"TRUNCATE plain, {SCHEMA}.observation, {SCHEMA}.merge_receipt")
        for name in LOADS:
            command = [sys.executable, "-m", "kasparro_tests.bench.loads", "--measure", name, "--rows", str(rows)]
            found[name].append(json.loads(subprocess.check_output(command, env=environment)))
    engine.dispose()
    return found


def _print(found: dict[str, list[dict[str, float]]], rows: int, rounds: int) -> None:
    print(f"{rows} observations, {rounds} rounds, medians; plain COPY is {METHOD}")  # noqa: T201
    for name, goal in ((PLAIN, ""), (FIRST, "goal 0.25 or more"), (AGAIN, ""), (COMPARED, "")):
        seconds = statistics.median(run["seconds"] for run in found[name])
        ratio = _ratio(found[PLAIN], found[name])
        memory = max(run["megabytes"] for run in found[name])
        print(  # noqa: T201
            f"{name:11} {seconds:6.2f} s  {rows / seconds:9.0f} rows/s  {ratio:5.2f} of plain COPY  "
            f"{memory:4.0f} MB  {goal}"
        )
    print(f"same again takes {_ratio(found[AGAIN], found[FIRST]):.3f} of the first load's time (goal 0.1 or less)")  # noqa: T201
    print("memory: goal 300 MB or less, the libraries and one frame of rows included")  # noqa: T201


def _ratio(of: list[dict[str, float]], to: list[dict[str, float]]) -> float:
    return statistics.median(a["seconds"] / b["seconds"] for a, b in zip(of, to, strict=True))


# -- one measurement, in a process of its own ---------------------------------------------------------------------


def _measured(name: str, rows: int) -> dict[str, float]:
    engine = create_engine(sa.make_url(os.environ["DATABASE_URL"]))
    frames = _Frames(rows)
    made = (
        list(frames) if name == PLAIN else frames
    )  # while it waited for rows, the server would go on with earlier ones
    before = frames.seconds
    started = time.perf_counter()
    with engine.begin() as connection:
        LOADS[name](connection, made)
    seconds = time.perf_counter() - started - (frames.seconds - before)
    return {"seconds": seconds, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def plain_copy(connection: sa.Connection, frames: Iterable[pa.Table]) -> None:
    """Send `frames` to the table ``plain``."""
    options = pa_csv.WriteOptions(include_header=False, quoting_style="all_valid")
    statement = f"COPY plain ({', '.join(OBSERVATION_SCHEMA.names)}) FROM STDIN (FORMAT csv, NULL '')"
    connection.execute(sa.text("SELECT 1"))
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        for frame in frames:
            for batch in exact(frame, observation).to_batches(max_chunksize=COPY_ROWS):
                block = io.BytesIO()
                pa_csv.write_csv(batch, block, options)
                copy.write(block.getbuffer())


def _merge(connection: sa.Connection, frames: Iterable[pa.Table], *, receipts: sa.Table | None = merge_receipt) -> None:
    merge = Merge(connection, observation, group_by=WRITTEN_BY, receipts=receipts)
    for frame in frames:
        merge.frame(frame)
    merge.finish()


def _merge_without_receipts(connection: sa.Connection, frames: Iterable[pa.Table]) -> None:
    _merge(connection, frames, receipts=None)


LOADS: dict[str, Callable[[sa.Connection, Iterable[pa.Table]], None]] = {
    PLAIN: plain_copy,
    FIRST: _merge,
    AGAIN: _merge,
    COMPARED: _merge_without_receipts,
}


class _Frames:
    """Generated observations, `SNAPSHOTS_A_FRAME` snapshots of all coins a frame; always the same."""

    def __init__(self, rows: int) -> None:
        self.seconds = 0.0
        """Spent on making them."""
        self._frames = (
            _frame(start, min(COINS * SNAPSHOTS_A_FRAME, rows - start))
            for start in range(0, rows, COINS * SNAPSHOTS_A_FRAME)
        )

    def __iter__(self) -> Iterator[pa.Table]:
        return self

    def __next__(self) -> pa.Table:
        started = time.perf_counter()
        try:
            return next(self._frames)
        finally:
            self.seconds += time.perf_counter() - started


def _frame(start: int, rows: int) -> pa.Table:
    index = np.arange(start, start + rows)
    random = np.random.default_rng(start)
    coin = pa.array(index % COINS)
    snapshot = np.datetime64("2026-01-01T00:00:00", "us") + (index // COINS).astype("timedelta64[h]")
    columns = {
        "source": pa.repeat("bench", rows),
        "source_coin_id": _joined("coin-", coin),
        "observed_at": pa.array(snapshot).cast(pa.timestamp("us", tz="UTC")),
        "symbol": _joined("s", coin),
        "name": _joined("Generated Coin ", coin),
        **{
            name: _joined("", *(pa.array(random.integers(10**8, 10**9, rows)) for _ in "wp")) for name in NUMBER_COLUMNS
        },
        "rank": coin,
        "fetched_at": pa.array(snapshot).cast(pa.timestamp("us", tz="UTC")),
        "payload_sha256": pa.repeat("a" * 64, rows),
        "position": pc.add(coin, 1),
    }
    return pa.table([columns[name] for name in OBSERVATION_SCHEMA.names], schema=OBSERVATION_SCHEMA)


def _nine_digits(random: np.random.Generator, rows: int) -> pa.Array:
    return pa.array(random.integers(10**8, 10**9, rows))


def _joined(prefix: str, *numbers: pa.Array) -> pa.Array:
    """`prefix` and the numbers with points between them, as text."""
    texts = [number.cast(pa.string()) for number in numbers]
    return pc.binary_join_element_wise(prefix, pc.binary_join_element_wise(*texts, "."), "")


# -- the database -------------------------------------------------------------------------------------------------


@contextmanager
def database() -> Iterator[sa.URL]:
    """A database with empty tables; dropped afterwards."""
    with _server() as server:
        name = f"kasparro_bench_{os.getpid()}"
        admin = create_engine(server).execution_options(isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        engine = create_engine(server.set(database=name))
        try:
            with engine.begin() as connection:
                connection.execute(sa.schema.CreateSchema(SCHEMA))
                metadata.create_all(connection)
                connection.exec_driver_sql(f"CREATE TABLE plain AS SELECT * FROM {SCHEMA}.observation WITH NO DATA")
            yield engine.url
        finally:
            engine.dispose()
            with admin.connect() as connection:
                connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
            admin.dispose()


@contextmanager
def _server() -> Iterator[sa.URL]:
    settings = Settings()
    if settings.database_url is not None:
        yield ensure_database(settings)
        return
    with tempfile.TemporaryDirectory(prefix="kasparro-bench-") as home:
        Path(home).chmod(0o755)  # started as root, the server is another user
        server = EmbeddedPostgres(Path(home), binaries=settings.postgres_bin)
        server.start()
        try:
            yield server.url
        finally:
            server.remove()


if __name__ == "__main__":
    main()

"""Loading a generated CSV file, as ratios to a plain COPY: ``python -m kasparro_tests.bench.drops``.

Each round takes in turns, so that a noisy machine harms all alike:

- ``plain COPY``: the same rows, read and parsed beforehand, into a logged table without key or index;
- ``new keys``: from the file to ``observation``, its blocks kept, quarantine and account written: what a run does;
- ``drop``: the same, where another file has said something else of every tenth key before;
- ``dlt``: the same file by dlt (Arrow, ADBC), without key, raw copy or quarantine; where it is installed
  (``pip install -e '.[bench]'``);
- ``dlt merge``: the same with a key and dlt's merge, so that the file could come again.

Each runs in a process of its own. Processor time is that of this process, without PostgreSQL's; memory is its greatest
resident size, and what it has of that before it begins. Last, a year of daily files is
dropped, and the time is taken in which a look finds that none has changed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import sqlalchemy as sa

from kasparro_pipeline.components.csv_source import CsvParser, changed_blocks, due_drops, read_cursors
from kasparro_pipeline.components.observations import ObservationLoad
from kasparro_pipeline.components.source_run import SourceRun
from kasparro_pipeline.io_managers.postgres import TABLE, PostgresIOManager
from kasparro_pipeline.io_managers.raw_payload import Deliveries, RawPayloadIOManager
from kasparro_pipeline.settings import settings
from kasparro_pipeline.sources.collect import FIRST_DAY
from kasparro_pipeline.sources.csv.blocks import read_blocks
from kasparro_pipeline.sources.csv.parse import parse_csv
from kasparro_pipeline.sources.csv.reading import CsvReading
from kasparro_pipeline.sources.drops import Drop, find_drops
from kasparro_pipeline.sources.records import Payload
from kasparro_pipeline.warehouse.database import create_engine, current_engine
from kasparro_pipeline.warehouse.tables import SCHEMA, merge_receipt, metadata, observation
from kasparro_tests.bench.loads import database, plain_copy
from kasparro_tests.sources.samples import CSV, delivered

PLAIN, NEW, DROP, DLT, DLT_MERGE = "plain COPY", "new keys", "drop", "dlt", "dlt merge"
FILE, BEFORE = "bench/prices.csv", "bench/before.csv"
STORED_PART = 10
"""Of the keys in the one file, one in so many is in the other one."""
COINS = 5_000
HEADER = "id,symbol,name,last_updated,current_price,market_cap,total_volume,circulating_supply,market_cap_rank\n"
READING = CsvReading(CSV)
DAYS = 365


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--measure", choices=[*MEASURED, "year"], help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.measure:
        print(json.dumps(_measured(arguments.measure)))  # noqa: T201
        return
    with tempfile.TemporaryDirectory(prefix="kasparro-bench-drops-") as folder, database() as url:
        _run(Path(folder), url, arguments.rows, arguments.rounds)


def _run(folder: Path, url: sa.URL, rows: int, rounds: int) -> None:
    environment = {
        **os.environ,
        "DATABASE_URL": url.render_as_string(hide_password=False),
        "KASPARRO_DROP_DIR": str(folder / "drops"),
        "RUNTIME__LOG_LEVEL": "CRITICAL",  # of dlt, which warns of its own merge
    }
    file, before = (folder / "drops" / name for name in (FILE, BEFORE))
    file.parent.mkdir(parents=True)
    _write(file, rows)
    _write_before(before, file)
    names = [PLAIN, NEW, DROP, *([DLT, DLT_MERGE] if importlib.util.find_spec("dlt") else [])]
    found = defaultdict(list)
    for _ in range(rounds):
        for name in names:
            if name not in {DLT, DLT_MERGE}:  # what they have loaded is compared with what was dropped
                _empty(url)
            found[name].append(_process(name, environment))
    _print(found, rows, rounds, file.stat().st_size)
    file.unlink()
    before.unlink()
    for day in range(DAYS):
        _write(file.with_name(f"{day:03}.csv"), 100, day)
    _empty(url)
    year = _process("year", environment)
    print(f"{DAYS} files that have not changed: known in {year['seconds']:.3f} s (goal 0.5 s or less)")  # noqa: T201


def _process(name: str, environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-m", "kasparro_tests.bench.drops", "--measure", name]
    result: dict[str, float] = json.loads(subprocess.check_output(command, env=environment).splitlines()[-1])
    return result


def _empty(url: sa.URL) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        tables = ", ".join(table.fullname for table in metadata.sorted_tables)
        connection.exec_driver_sql(f"TRUNCATE plain, {tables}")
        for schema in ("dlt_bench", "dlt_bench_merge", "dlt_bench_merge_staging"):
            connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    engine.dispose()


def _print(found: dict[str, list[dict[str, float]]], rows: int, rounds: int, size: int) -> None:
    print(f"a CSV file of {size / 1e6:.0f} MB, {rows} records, {rounds} rounds, medians")  # noqa: T201
    goals = {NEW: "goal 0.5 or more", DROP: "goal 0.35 or more, 200 MB or less"}
    for name in (PLAIN, NEW, DROP, DLT, DLT_MERGE):
        if name not in found:
            print(f"{name}: not installed")  # noqa: T201
            continue
        seconds = statistics.median(run["seconds"] for run in found[name])
        processor = statistics.median(run["processor"] for run in found[name])
        first, most = (max(run[key] for run in found[name]) for key in ("megabytes_before", "megabytes"))
        print(  # noqa: T201
            f"{name:11} {seconds:6.2f} s  {rows / seconds:9.0f} rows/s  {_ratio(found[PLAIN], found[name]):5.2f} of "
            f"plain COPY  {processor:5.2f} s of processor  {most:4.0f} MB ({first:.0f} before)  {goals.get(name, '')}"
        )
    if DLT in found:
        times, merging = (_ratio(found[name], found[DROP]) for name in (DLT, DLT_MERGE))
        print(f"a drop is {times:.2f} times as fast as dlt (goal 2.5 or more), {merging:.2f} times as its merge")  # noqa: T201


def _ratio(of: list[dict[str, float]], to: list[dict[str, float]]) -> float:
    return statistics.median(a["seconds"] / b["seconds"] for a, b in zip(of, to, strict=True))


def _write(file: Path, rows: int, day: int = 0) -> None:
    """Snapshots of coins, an hour apart; always the same."""
    digits = random.Random(day)
    with file.open("w") as out:
        out.write(HEADER)
        for start in range(0, rows, COINS):
            moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=day, hours=start // COINS)
            out.writelines(
                f"coin-{coin},s{coin},Generated Coin {coin},{moment:%Y-%m-%dT%H:%M:%S}.{digits.randrange(1000):03}Z,"
                f"{digits.random() * 100:.8f},{digits.randrange(10**11)},{digits.randrange(10**9)}.25,"
                f"{digits.randrange(10**8)},{coin + 1}\n"
                for coin in range(min(COINS, rows - start))
            )


def _write_before(file: Path, other: Path) -> None:
    """Every tenth record of the other file, with another rank."""
    with other.open() as records, file.open("w") as out:
        out.write(next(records))
        out.writelines(f"{record.rstrip()}0\n" for record in islice(records, 0, None, STORED_PART))


# -- one measurement, in a process of its own ---------------------------------------------------------------------


def _measured(name: str) -> dict[str, float]:
    _load([])  # so that what is imported late and the first connection are not in the time
    before = _megabytes()
    return {
        **(MEASURED[name]() if name in MEASURED else _year()),
        "megabytes": _megabytes(),
        "megabytes_before": before,
    }


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _timed(work: Callable[[], object]) -> dict[str, float]:
    started, processor = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - started, "processor": time.process_time() - processor}


def _plain() -> dict[str, float]:
    frames = list(_frames())

    def copy() -> None:
        with current_engine().begin() as connection:
            plain_copy(connection, frames)

    return _timed(copy)


def _frames() -> Iterator[pa.Table]:
    """The observations in the file."""
    drop = _drop_of(FILE)

    def blocks() -> Iterator[Payload]:
        return read_blocks(
            drop.path, source=drop.source, partition="p", request=drop.partition, fetched_at=datetime.now(UTC)
        )

    dialect = READING.dialect(lambda: (block.body for block in blocks()), drop.partition, 2026)
    for block in blocks():
        yield parse_csv(delivered(block), dialect).observations


def _drop_of(partition: str) -> Drop:
    return next(drop for drop in find_drops(settings().drop_dir) if drop.partition == partition)


def _new() -> dict[str, float]:
    assert FILE in {drop.partition for drop in due_drops()}
    context = _contexts()
    return _timed(lambda: _load([FILE], context))


def _drop() -> dict[str, float]:
    _load([BEFORE])
    return _new()


_Contexts = tuple[dg.OutputContext, dg.OutputContext]


def _contexts() -> _Contexts:
    """Of both assets' steps; Dagster makes an instance for each."""
    told = {TABLE: observation.fullname}
    key = ["csv_drops", "observations"]
    raw = dg.build_output_context(run_id="bench", instance=_instance())
    return raw, dg.build_output_context(asset_key=key, definition_metadata=told, run_id="bench", instance=_instance())


def _load(partitions: list[str], contexts: _Contexts | None = None) -> None:
    """What the assets' steps do with these drops, without Dagster around them."""
    for_raw, for_observations = contexts or _contexts()
    found = {drop.partition: drop for drop in find_drops(settings().drop_dir)}
    raw = RawPayloadIOManager(current_engine)
    cursors = read_cursors(partitions)
    blocks = (changed_blocks(found[partition], cursors.get(partition)) for partition in partitions)
    raw.handle_output(for_raw, chain.from_iterable(blocks))
    deliveries = Deliveries(current_engine(), "csv_*", partitions)
    run = SourceRun(current_engine, "bench", "csv_drops/observations", "bench", frozenset(["csv_bench"]))
    load = ObservationLoad(deliveries, CsvParser("bench", READING, FIRST_DAY, deliveries), run).load()
    PostgresIOManager(current_engine, metadata, receipts=merge_receipt).handle_output(for_observations, load)


@cache
def _instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


def _dlt(*, merges: bool = False) -> dict[str, float]:
    import dlt  # noqa: PLC0415 - may not be there
    from pyarrow import csv  # noqa: PLC0415

    drop = _drop_of(FILE)
    numbers = dict.fromkeys(("current_price", "market_cap", "total_volume", "circulating_supply"), pa.decimal128(38, 9))
    url = current_engine().url.set(drivername="postgresql").render_as_string(hide_password=False)

    def batches() -> Iterator[pa.Table]:
        for batch in csv.open_csv(drop.path, convert_options=csv.ConvertOptions(column_types=numbers)):
            yield pa.Table.from_batches([batch])

    with tempfile.TemporaryDirectory() as folder:
        pipeline = dlt.pipeline(
            "bench",
            destination=dlt.destinations.postgres(url),
            dataset_name="dlt_bench_merge" if merges else "dlt_bench",
            pipelines_dir=folder,
        )
        how: dict[str, Any] = {"write_disposition": "append"}
        if merges:
            strategy = {"disposition": "merge", "strategy": "upsert"}
            how = {"write_disposition": strategy, "primary_key": ["id", "last_updated"]}
        resource_ = dlt.resource(batches(), name="prices", **how)
        spent = _timed(lambda: pipeline.run(resource_, loader_file_format="parquet"))
    with current_engine().connect() as connection:
        loaded = connection.execute(sa.text(f"SELECT count(*) FROM {pipeline.dataset_name}.prices")).scalar()
        assert loaded == connection.execute(sa.text(f"SELECT count(*) FROM {SCHEMA}.observation")).scalar()
    return spent


def _year() -> dict[str, float]:
    _load([drop.partition for drop in due_drops()])

    def look() -> None:
        assert due_drops() == []
        # And where everything is looked at all the same, as when all partitions are materialized by hand:
        found = find_drops(settings().drop_dir)
        cursors = read_cursors(drop.partition for drop in found)
        assert not any(list(changed_blocks(drop, cursors.get(drop.partition))) for drop in found)

    return _timed(look)


MEASURED: dict[str, Callable[[], dict[str, float]]] = {
    PLAIN: _plain,
    NEW: _new,
    DROP: _drop,
    DLT: _dlt,
    DLT_MERGE: partial(_dlt, merges=True),
}


if __name__ == "__main__":
    main()

"""CSV drops from end to end: a file that changes is read again only where it changed, however it is written."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster.components.resolved.errors import ResolutionException

from kasparro_pipeline.components import csv_source
from kasparro_pipeline.definitions import defs
from kasparro_pipeline.load import Loader
from kasparro_pipeline.sources.csv import blocks
from kasparro_pipeline.warehouse.tables import delivery, observation, quarantine
from kasparro_tests.test_load import REALDATA, Environment, assert_accounts_add_up, kasparro

FOLDER = "grown"


@pytest.fixture(scope="module")
def drops(server: sa.URL, template: sa.URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    folder = tmp_path_factory.mktemp("drops")
    with kasparro(server, template, folder, "http://127.0.0.1:9", "http://127.0.0.1:9") as environment_:
        (environment_.drop_dir / FOLDER).mkdir()
        yield environment_


@pytest.fixture(scope="module")
def loader(drops: Environment) -> Loader:
    return Loader()


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("prices.csv", content)
    return file.getvalue()


WRITTEN = {
    "plain.csv": str.encode,
    "wide.csv": lambda text: text.encode("utf-16"),
    "packed.csv.gz": lambda text: gzip.compress(text.encode()),
    "zipped.zip": lambda text: zipped(text.encode()),
}


def write(drops: Environment, header: str, lines: list[str]) -> None:
    for name, encode in WRITTEN.items():
        of_file = [line.replace("coin", name.partition(".")[0]) for line in lines]
        (drops.drop_dir / FOLDER / name).write_bytes(encode(f"{header}\n" + "\n".join(of_file) + "\n"))


class Parsed:
    """Counts the blocks of the newest state of each file that are parsed.

    The blocks that such a state has no more are parsed, too: to see which rows are gone with them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks: dict[str, set[tuple[datetime, int]]] = {}
        parse = csv_source.parse_csv

        def counted(delivery, *arguments):
            name = delivery.partition.partition("/")[2]
            self.blocks.setdefault(name, set()).add((delivery.fetched_at, delivery.position))
            return parse(delivery, *arguments)

        monkeypatch.setattr(csv_source, "parse_csv", counted)

    def take(self) -> dict[str, int]:
        newest = {name: max(blocks)[0] for name, blocks in self.blocks.items()}
        taken = {name: sum(at == newest[name] for at, _ in blocks) for name, blocks in self.blocks.items()}
        self.blocks.clear()
        return taken


def stored(drops: Environment) -> Counter[str]:
    rows = drops.rows(sa.select(observation.c.source_coin_id, observation.c.price_usd))
    return Counter(f"{coin} {price:f}" for coin, price in rows)


def expected(rows: list[str]) -> Counter[str]:
    of_rows = [row.split(",") for row in rows]
    names = [name.partition(".")[0] for name in WRITTEN]
    return Counter(f"{row[0].replace('coin', name)} {row[2]}" for name in names for row in of_rows)


def test_only_what_changed_is_parsed_again(drops: Environment, loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MIN_BLOCK": 4_000, "MAX_BLOCK": 64_000, "_CUTS_PER_BYTE": 2**32 // 4_000}.items():
        monkeypatch.setattr(blocks, name, value)
    parsed = Parsed(monkeypatch)

    def load() -> dict[str, int]:
        report = loader.load([f"csv_{FOLDER}"])
        assert not report.failed, report
        assert_accounts_add_up(drops)
        assert drops.count(quarantine) == 0
        return parsed.take()

    # Each key once, so that what is stored is just what the newest file says; all on two days, so that few are unified;
    # in the order of their times, so that a block tells by its times alone that it cannot hold another one's keys.
    times = [
        f"2024-01-01 {minute // 60:02}:{minute % 60:02}:{second}" for minute in range(24 * 60) for second in (10, 50)
    ]
    rows = [f"coin-{n % 97},{time},{n}.5,{n}" for n, time in enumerate(times[: 97 * 23])]
    write(drops, "id,date,price,rank", rows)
    first = load()
    assert all(count >= 8 for count in first.values()), first
    assert stored(drops) == expected(rows)

    rows += [row.replace("01-01", "01-02") for row in rows[:200]]
    rows[1200] = rows[1200].replace(".5,", ".75,")
    write(drops, "id,date,price,rank", rows)
    changed = load()
    assert all(2 <= count <= 5 for count in changed.values()), changed
    assert stored(drops) == expected(rows)

    write(drops, "close,coin_id,date,rank", [",".join(row.split(",")[place] for place in (2, 0, 1, 3)) for row in rows])
    under_another_header = load()
    assert all(count >= 8 for count in under_another_header.values()), under_another_header
    assert stored(drops) == expected(rows)


def test_files_that_cannot_be_unpacked_are_one_quarantined_record_each(drops: Environment, loader: Loader) -> None:
    folder = drops.drop_dir / "broken"
    folder.mkdir()
    content = gzip.compress(b"id,date,price\na,2020-01-01,1\n")
    (folder / "cut.csv.gz").write_bytes(content[:-9])
    (folder / "sheet.xlsx").write_bytes(zipped(b"x").replace(b"prices.csv", b"prices.xml"))
    (folder / "whole.csv.gz").write_bytes(content)
    report = loader.load(["csv_broken"])
    assert not report.failed, report
    found = drops.rows(sa.select(quarantine).where(quarantine.c.source == "csv_broken"))
    assert {(row.location, row.reason_code) for row in found} == {
        ("broken/cut.csv.gz", "archive"),
        ("broken/sheet.xlsx", "archive"),
    }
    problems = drops.rows(sa.select(delivery.c.problem).where(delivery.c.partition == "broken/cut.csv.gz"))
    assert [row.problem.partition(":")[0] for row in problems] == ["archive"]
    assert len(drops.rows(sa.select(observation).where(observation.c.source == "csv_broken"))) == 1
    assert_accounts_add_up(drops)
    assert dialect_shown("broken/whole.csv.gz")["mapping"] == {
        "source_coin_id": "id",
        "price_usd": "price",
        "observed_at": "date",
    }
    assert dialect_shown("broken/cut.csv.gz")["refused"] == "archive"


def test_a_file_that_lost_its_price_fails_and_the_other_one_is_kept(drops: Environment, loader: Loader) -> None:
    folder = drops.drop_dir / "lost"
    folder.mkdir()
    lines = "a,2020-01-01,1\nb,2020-01-01,2\n"
    (folder / "broken.csv").write_text(f"id,date,price\n{lines}")
    (folder / "good.csv").write_text(f"id,date,price\n{lines}".replace("2020", "2021"))
    assert not loader.load(["csv_lost"]).failed
    (folder / "broken.csv").write_text(f"id,date,value\n{lines}")
    (folder / "good.csv").write_text(f"id,date,price\n{lines}".replace("2020", "2022"))

    report = loader.load(["csv_lost"])
    assert report.failed
    (error,) = (source.error for source in report.sources if source.error)
    assert error.startswith("lost/broken.csv: the key field 'price' (price_usd) is in none of the records")
    years = drops.rows(sa.select(observation.c.observed_at).where(observation.c.source == "csv_lost"))
    assert {row.observed_at.year for row in years} == {2020, 2021, 2022}
    assert_accounts_add_up(drops)
    assert not Loader().load(["csv_lost"]).failed  # what a person has to mend is told once


def dialect_shown(partition: str) -> dict:
    """What Dagster's UI shows of a file."""
    wanted = dg.AssetRecordsFilter(dg.AssetKey(["csv_drops", "observations"]), asset_partitions=[partition])
    (record,) = dg.DagsterInstance.get().fetch_materializations(wanted, limit=1).records
    return record.asset_materialization.metadata["dialect"].value


def test_a_file_is_due_by_when_it_changed_here_and_again_when_its_mode_changes(
    drops: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = drops.drop_dir / FOLDER / "late.csv"
    file.write_text("id,date,price\nx,2026-10-01,1\n")
    tomorrow = time.time() + 86400
    os.utime(file, (tomorrow, tomorrow))  # as an archive from another time zone sets it
    sensor = defs().resolve_sensor_def("csv_drops_folder")

    def keys() -> set[str]:
        with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance=instance) as context:
            return {str(request.run_key) for request in sensor.evaluate_tick(context).run_requests}

    monkeypatch.setattr(csv_source, "SETTLED_NS", csv_source.HOUR_NS)
    assert keys() == set()
    monkeypatch.setattr(csv_source, "SETTLED_NS", 0)
    before = keys()
    assert len(before) == 1
    assert keys() == before
    file.chmod(0o600)
    after = keys()
    assert len(after) == 1
    assert after != before
    file.unlink()


def test_a_file_whose_runs_fail_is_tried_more_and_more_rarely() -> None:
    tried = [csv_source.attempts_until(hour * csv_source.HOUR_NS) for hour in range(32)]
    assert [hour for hour in range(1, 32) if tried[hour] != tried[hour - 1]] == [1, 3, 7, 15, 31]
    assert csv_source.attempts_until(-1) == csv_source.attempts_until(0)  # a clock that was put back


def test_a_wrong_format_in_defs_yaml_is_named() -> None:
    text = (
        "name: csv_drops\npriority: 90\ncolumns: {price_usd: [price]}\n"
        'formats: [{match: "a/*", columns: {price_usd: x}, coin: {symbol: BTC}}, {match: "b/*", decimals: ","}]\n'
    )
    with pytest.raises(ResolutionException, match=r"formats\[1\] \(b/\*\): Object contains unknown field `decimals`"):
        csv_source.CsvSource.resolve_from_yaml(text)


@pytest.mark.realdata
@pytest.mark.skipif(not REALDATA.is_dir(), reason="KASPARRO_REALDATA names no folder")
def test_the_states_of_a_real_growing_file_one_after_the_other(drops: Environment) -> None:
    folder = drops.drop_dir / "states"
    folder.mkdir()
    for state in sorted((REALDATA / "csv/incremental").iterdir()):
        shutil.copy(state, folder / "markets.csv")
        report = Loader().load(["csv_states"])  # of its own: a loader reports what failed before, too
        assert not report.failed, report
        assert_accounts_add_up(drops)
    ours = drops.rows(sa.select(delivery).where(delivery.c.source == "csv_states"))
    assert sum(row.records for row in ours) == 50 + 14697 + 92 + 16863

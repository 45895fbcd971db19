import csv
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.settings import REPOSITORY
from kasparro_pipeline.simulator.coins import listed
from kasparro_pipeline.simulator.drops import COLUMNS, write_samples, write_today
from kasparro_pipeline.simulator.market import minute_of, price, quote

COMMITTED = REPOSITORY / "data" / "drops"
TODAY = date(2026, 11, 20)


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_committed_samples_are_what_the_generator_makes(tmp_path):
    made = write_samples(tmp_path)
    assert made
    for path in made:
        assert (COMMITTED / path.relative_to(tmp_path)).read_bytes() == path.read_bytes()
    assert sum(path.stat().st_size for path in made) < 150_000


def test_a_sample_has_a_row_a_coin_and_day(tmp_path):
    [path] = write_samples(tmp_path)
    sample = rows(path)
    assert tuple(sample[0]) == COLUMNS
    keys = {(row["Symbol"], row["Date"]) for row in sample}
    assert len(keys) == len(sample) == 40 * 31
    assert all(Decimal(row[number]) > 0 for row in sample for number in ("Price", "Volume", "Marketcap"))
    assert not any("e" in row["Price"].lower() for row in sample)


def test_the_exchange_trades_the_vendors_coins_at_about_their_prices(tmp_path):
    midnight = minute_of(datetime(2026, 11, 20, tzinfo=UTC))
    traded = {row["Symbol"]: row for row in rows(write_today(tmp_path, TODAY))}
    assert traded["BTC"]["Name"] == "Bitcoin"
    for symbol, coin in listed("exchange").items():
        vendors = price(coin, "coingecko", midnight)
        assert abs(Decimal(traded[symbol]["Price"]) / vendors - 1) < Decimal("0.01")
        assert quote(coin, "exchange", midnight).price != vendors


def test_the_drop_of_a_day_says_what_the_months_says(tmp_path):
    [month] = write_samples(tmp_path)
    day = rows(write_today(tmp_path, date(2026, 10, 17)))
    assert day == [row for row in rows(month) if row["Date"] == "2026-10-17 00:00:00"]


def test_the_drop_of_today_is_written_once(tmp_path):
    path = write_today(tmp_path, TODAY)
    assert path == tmp_path / "sample_exchange" / "today-2026-11-20.csv"
    written = path.stat()
    assert write_today(tmp_path, TODAY) == path
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    path.write_bytes(b"half a fi")
    write_today(tmp_path, TODAY)
    assert len(rows(path)) == 40
    assert [other.name for other in path.parent.iterdir()] == [path.name]


def test_a_drop_that_cannot_be_written_says_where_and_what_to_do(tmp_path):
    (tmp_path / "sample_exchange").write_text("in the way")
    with pytest.raises(KasparroError, match=r"^cannot write \S+today-2026-11-20.csv: .*set KASPARRO_DROP_DIR$"):
        write_today(tmp_path, TODAY)


def test_the_command_writes_the_samples_and_a_drop_of_today(tmp_path):
    command = [sys.executable, "-m", "kasparro_pipeline.simulator.drops", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = [line.rsplit("/", 1)[1] for line in done.stdout.splitlines()]
    assert names[0] == "2026-10.csv"
    assert names[1].startswith("today-20")
    assert (COMMITTED / "sample_exchange" / ".gitignore").read_text() == "today-*.csv\n"

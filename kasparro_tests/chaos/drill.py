"""Kasparro as it runs, killed part by part: what the drills of containers and of processes have in common.

It comes up with ports and a drop folder of its own, and has to load by itself. Then, at each moment, files change and
something is killed: a service's process, which has to be healed without anybody's help, a run in the middle, or what
heals the others, after which it is brought up again. Each time the files' rows have to come into `/data`, and how long
that took is told. A second database, loaded once a moment without being disturbed, has to hold the same in the end, to
the row.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import httpx
import sqlalchemy as sa

from kasparro_pipeline.ports import free_port
from kasparro_pipeline.warehouse.tables import touched_day
from kasparro_tests.chaos.common import ChaosError, in_words, say
from kasparro_tests.chaos.compare import TABLES, differences, rows, unaccounted
from kasparro_tests.chaos.drops import write_drops
from kasparro_tests.chaos.run import SHOWN

SOURCE = "csv_desk"
WITHIN = 300.0
"""Patience for a busy machine; what it took is printed."""
LARGE_COINS, LARGE_DAYS = 6_000, 60
"""Of a file that takes long enough to be read for its run to be killed."""


class Drill(ABC):
    """One installation, what was done to it, and what was seen of it.

    Args:
        folder: of its own; the drops and the logs are in it.
    """

    services: ClassVar[tuple[str, ...]]
    """Whose processes are killed, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.api_port = free_port()
        self.moment = 0
        self.drops.mkdir()
        self.folder.chmod(0o755)  # read by other users: the containers', the embedded server's

    @abstractmethod
    def up(self) -> None:
        """Bring all of it up, and return when it is of use; raises ChaosError where it does not come."""

    @abstractmethod
    def down(self) -> None:
        """Stop all of it; what is stored stays."""

    @abstractmethod
    def remove(self, *, keep_log: bool) -> None:
        """Stop all of it, and remove what is not in the folder."""

    @abstractmethod
    def healthy(self) -> bool:
        """Whether every service runs, none of them as the process that was killed."""

    @abstractmethod
    def crash(self, service: str) -> None:
        """Kill a service's process, for whatever looks after it to act."""

    @abstractmethod
    def crash_run(self, run_id: str) -> None:
        """Kill what executes a run."""

    @abstractmethod
    def crash_for_good(self) -> None:
        """Kill what only `up` brings back."""

    @abstractmethod
    def engine(self, database: str) -> sa.Engine:
        """On the database `kasparro`, or `calm`."""

    @abstractmethod
    def load_calm(self) -> None:
        """Load the files as they are into the database `calm`."""

    # -- what is done, whatever runs it ---------------------------------------------------------------------------

    def run(self) -> Iterator[str]:
        """All of it; a line for each thing that is wrong in the end. Raises ChaosError where it cannot go on."""
        self._up()
        if not self._get("/data?limit=1")["data"]:
            yield "/data has no rows after it came up"
        with self.engine("kasparro").execution_options(isolation_level="AUTOCOMMIT").connect() as admin:
            admin.exec_driver_sql("CREATE DATABASE calm")
        self._moment()
        for service in self.services:
            self._moment(service)
        self._lose_a_run()
        price = self._change_files()
        self.crash_for_good()
        self._up()
        self._await(price)
        before = self._counts()
        self.down()
        self._up()
        after = self._counts()
        if any(after[name] < count for name, count in before.items()):
            yield f"rows were lost by down and up: {before}, {after}"
        _until(self._is_unified, "all days unified that were touched")
        yield from self._compared()

    @property
    def drops(self) -> Path:
        """The folder that is watched."""
        return self.folder / "drops"

    def _up(self) -> None:
        began = time.monotonic()
        self.up()
        say(f"up after {time.monotonic() - began:.0f} s")

    def _moment(self, crashed: str | None = None) -> None:
        """Files change, a service crashes, and both are seen to."""
        price = self._change_files()
        if crashed:
            time.sleep(2)  # the sensor may be at the files by then
            self.crash(crashed)
            self._await_health(f"{crashed} was killed")
        self._await(price)

    def _lose_a_run(self) -> None:
        """A run over a large file is killed; its end is told, and what it was to do is done."""
        _write_large(self.drops / "desk" / "large.csv")
        seen: list[str] = []

        def begun() -> bool:
            seen.extend(self._running())
            return bool(seen)

        _until(begun, "a run of the large file")
        killed = seen[0]
        self.crash_run(killed)
        self._await_health("a run was killed")
        price = self._change_files()
        took = _until(lambda: self._status(killed) in ("failure", "success"), f"the end of run {killed} told")
        if self._status(killed) == "success":
            raise ChaosError("the run was over before it was killed: let LARGE_COINS be more")
        say(f"the killed run is told as failed {took:.0f} s later")
        self._await(price)

    def _change_files(self) -> str:
        """Write the next moment's files; the price that shows that they were read."""
        write_drops(self.drops, self.moment, datetime.now(UTC).date())
        price = f"{self.moment + 1}.000001"
        marker = f"coin_id,symbol,date,price\nmarker,MRK,{datetime.now(UTC).date()},{price}\n"
        (self.drops / "desk" / "marker.csv").write_text(marker)
        self.moment += 1
        return price

    def _await_health(self, what: str) -> None:
        took = _until(self.healthy, f"{what}, and all healthy again")
        say(f"{what}, and all is healthy after {took:.0f} s")

    def _await(self, price: str) -> None:
        """Wait until `/data` has it; then the undisturbed database is brought as far."""
        waited = _until(lambda: self._price() == price, f"{price} of moment {self.moment} in /data")
        say(f"moment {self.moment}: in /data after {waited:.0f} s")
        self.load_calm()

    # -- what is seen ---------------------------------------------------------------------------------------------

    def _get(self, path: str) -> Any:
        """An answer's body; None while the service is away."""
        try:
            answer = httpx.get(f"http://127.0.0.1:{self.api_port}{path}", timeout=30)
        except httpx.TransportError:
            return None
        return answer.json() if answer.status_code == 200 else None

    def _price(self) -> str | None:
        body = self._get(f"/data?source={SOURCE}&coin_id=marker&limit=1")
        return body["data"][0]["price_usd"] if body and body["data"] else None

    def _running(self) -> list[str]:
        body = self._get(f"/runs?status=running&source={SOURCE}")
        return [run["run_id"] for run in body["data"]] if body else []

    def _status(self, run_id: str) -> str | None:
        body = self._get(f"/runs/{run_id}")
        return body["data"]["status"] if body else None

    def _counts(self) -> dict[str, int]:
        engine = self.engine("kasparro")
        return {table.name: rows(engine, table).total() for table in TABLES}

    def _is_unified(self) -> bool:
        """Whether nothing waits: vendors are asked again whenever it is time."""
        with self.engine("kasparro").connect() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(touched_day)) == 0

    def _compared(self) -> Iterator[str]:
        calm, killed = self.engine("calm"), self.engine("kasparro")
        wrong = [*differences(calm, killed, SOURCE), *unaccounted(killed)]
        equal = {table.name: rows(calm, table, SOURCE).total() for table in TABLES}
        say(f"{'differences' if wrong else 'equal'}: {self.moment} moments, {in_words(equal)}")
        yield from wrong


def perform(kind: type[Drill]) -> None:
    """Run, print, take all down, and exit with 1 where anything was not as it has to be."""
    folder = Path(tempfile.mkdtemp(prefix="kasparro-drill-"))
    drill = kind(folder)
    wrong = ["it was broken off"]
    try:
        wrong = list(islice(drill.run(), SHOWN))
    except ChaosError as error:
        wrong = [str(error)]
    finally:
        drill.remove(keep_log=bool(wrong))
    for line in wrong:
        say(f"wrong: {line}")
    if wrong:
        sys.exit(f"FAILED; logs are in {folder}")
    shutil.rmtree(folder)


def _until(true: Callable[[], bool], what: str) -> float:
    """Wait; the seconds it took. Raises ChaosError after `WITHIN` seconds."""
    began = time.monotonic()
    while time.monotonic() - began < WITHIN:
        if true():
            return time.monotonic() - began
        time.sleep(0.5)
    raise ChaosError(f"not within {WITHIN:g} s: {what}")


def _write_large(path: Path) -> None:
    today = datetime.now(UTC).date()
    days = [today - timedelta(days=day) for day in range(LARGE_DAYS)]
    rows = (f"large-{coin},L{coin},{day},{coin}.25\n" for coin in range(LARGE_COINS) for day in days)
    path.write_text("coin_id,symbol,date,price\n" + "".join(rows))

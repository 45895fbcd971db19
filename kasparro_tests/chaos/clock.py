"""A clock that a drill moves ahead, for all processes that it starts, by libfaketime.

It is the build of the package of that name: in Debian's older one each wait of Python's ends in an error once the clock
is ahead. Waits are as long as ever, since they go by another clock, the monotonic one; so are the times of files.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from kasparro_tests.chaos.common import ChaosError

_FILE = "FAKETIME_TIMESTAMP_FILE"
_LIBRARY = "vendor/libfaketime/src/libfaketime.so.1"


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of all who run with `environment`; by how much it is ahead is in a file of `folder`."""

    folder: Path

    @classmethod
    def ours(cls) -> Clock | None:
        """The one that this process goes by."""
        return cls(Path(os.environ[_FILE]).parent) if _FILE in os.environ else None

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to go by it."""
        return {
            "LD_PRELOAD": str(self.folder / "libfaketime.so.1"),
            _FILE: str(self.folder / "ahead"),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }

    def start_again(self) -> NoReturn:
        """Start this program again, by this clock.

        Raises:
            ChaosError: the library is not there.
        """
        package = importlib.util.find_spec("libfaketime")
        if package is None or package.origin is None:
            raise ChaosError(
                "needs libfaketime; run, where a C compiler is: .venv/bin/python -m pip install -e '.[soak]'"
            )
        shutil.copy(Path(package.origin).parent / _LIBRARY, self.folder)
        self._set(0)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | self.environment)

    def move_to(self, moment: float) -> None:
        """Make it `moment`, in seconds since 1970, for everybody at once."""
        self._set(float((self.folder / "ahead").read_text()) + moment - time.time())

    def _set(self, ahead: float) -> None:
        new = self.folder / "ahead.new"
        new.write_text(f"{ahead:+.3f}\n")
        new.rename(self.folder / "ahead")

    def of_programs(self, folder: Path, *names: str) -> Path:
        """A folder of the programs `names` of `folder` that go by this clock, whoever starts them in whatever way."""
        programs = self.folder / "programs"
        programs.mkdir(exist_ok=True)
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self.environment.items())
        for name in names:
            program = programs / name
            program.write_text(f'#!/bin/sh\n{variables} exec {shlex.quote(str(folder / name))} "$@"\n')
            program.chmod(0o755)
        return programs

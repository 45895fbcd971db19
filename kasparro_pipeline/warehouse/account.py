"""Whom PostgreSQL's programs run as: ourselves, or another user when we are root, which PostgreSQL refuses to be."""

from __future__ import annotations

import os
import pwd
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from kasparro_pipeline.errors import KasparroError

_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")


class RunAs(TypedDict, total=False):
    """Arguments of `subprocess.Popen`."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Account:
    """A user and group; neither is given when that is ourselves."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def for_server(cls) -> Account:
        """Ourselves; as root ``postgres``, else ``nobody``.

        Raises:
            KasparroError: we are root, and there is neither.
        """
        if os.geteuid() != 0:
            return cls()
        for name in ("postgres", "nobody"):
            with suppress(KeyError):
                user = pwd.getpwnam(name)
                return cls(user.pw_uid, user.pw_gid)
        raise KasparroError("PostgreSQL does not run as root, and no user is named postgres or nobody; add one of them")

    @classmethod
    def owning(cls, folder: Path) -> Account:
        """Ourselves; as root the owner of `folder`."""
        if os.geteuid() != 0:
            return cls()
        owner = folder.stat()
        return cls(owner.st_uid, owner.st_gid)

    @property
    def run_as(self) -> RunAs:
        """For `subprocess`."""
        if self.uid is None or self.gid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def can_execute(self, path: Path) -> bool:
        """Whether this user may run the program, or enter the folder, at `path`; found out by trying."""
        return subprocess.run(["test", "-x", path], cwd="/", check=False, **self.run_as).returncode == 0

    def own(self, file: Path | int) -> None:
        """Make this user the owner of a path or an open file."""
        if self.uid is not None and self.gid is not None:
            os.chown(file, self.uid, self.gid)

    def become(self) -> None:
        """Make this process this user's, for good."""
        if self.uid is not None and self.gid is not None:
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)


def clean_environment() -> dict[str, str]:
    """What PostgreSQL's programs need of the environment: no secret of ours and no ``PG*`` variable reaches them."""
    return {"LC_ALL": "C"} | {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}

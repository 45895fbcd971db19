"""Errors that a person can act on."""

from __future__ import annotations

import errno
from pathlib import Path


class KasparroError(Exception):
    """One line that names what went wrong, where, and what to do.

    The command line prints it as ``error: …`` and exits with 1, without a traceback.
    """

    can_pass = False
    """Whether it may be gone without anybody's doing when the same is tried again later."""


def unusable(home: Path, error: OSError) -> KasparroError:
    """What to say when the state folder `home` cannot be read or written."""
    if error.errno == errno.ENOSPC:
        return KasparroError(f"no space left on the disk of {home}; make room, or set KASPARRO_HOME to another disk")
    return KasparroError(
        f"cannot use {error.filename or home}: {error.strerror}; make it readable and writable for this user, "
        "or set KASPARRO_HOME to another folder"
    )

"""Which CSV drops there are, and which source each one belongs to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kasparro_pipeline.errors import KasparroError

PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar", ".tgz")
TABLES = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xlsx", ".xls", ".ods", ".parquet")
"""Endings of what people drop as data. What a file is, its content says; one that is no CSV is quarantined, not passed
over."""
DROPS = "csv_*"
"""Stands for all sources that drops are of: one for each folder, see `source_of`."""
_NOT_IN_NAME = re.compile(r"[^a-z0-9]+")
_NOT_IN_PARTITION = re.compile(r"[\x00-\x1f]|\.\.\.")


@dataclass(frozen=True, slots=True)
class Drop:
    """A file in the drop folder."""

    partition: str
    """Its path below the drop folder, with slashes."""
    path: Path
    size: int
    mtime_ns: int
    changed_ns: int
    """When its content, name, owner or mode changed last."""

    @property
    def source(self) -> str:
        """See `source_of`."""
        return source_of(self.partition)

    def is_known(self, cursor: Mapping[str, Any] | None) -> bool:
        """Whether the checkpoint's `cursor` is that of this very file, by size and time of change."""
        return cursor is not None and (cursor.get("size"), cursor.get("mtime_ns")) == (self.size, self.mtime_ns)


def source_of(partition: str) -> str:
    """``csv_`` and the first folder's name; ``csv_drops`` for a file that lies in the drop folder itself."""
    folder = PurePosixPath(partition).parts[0] if "/" in partition else "drops"
    return f"csv_{_NOT_IN_NAME.sub('_', folder.lower()).strip('_') or 'drops'}"


def stem_of(partition: str) -> str:
    """The file's name without the endings that say how it is written: ``BTC-USD`` of ``yahoo/BTC-USD.csv.gz``."""
    name = PurePosixPath(partition).name
    for endings in (PACKED, TABLES):
        ending = PurePosixPath(name).suffix
        if ending.lower() in endings:
            name = name.removesuffix(ending)
    return name


def find_drops(folder: Path) -> list[Drop]:
    """The data files in `folder`, recursively, in the order of their paths; hidden ones are left out.

    Raises:
        KasparroError: the folder, or one in it, cannot be read, or a file's name cannot be a partition's.
    """
    return sorted(_walk(folder), key=lambda drop: drop.partition)


def _walk(folder: Path) -> Iterator[Drop]:
    def fail(error: OSError) -> None:
        raise KasparroError(
            f"drop folder {error.filename} cannot be read: {error.strerror}; make it, or set KASPARRO_DROP_DIR"
        ) from None

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = Path(parent, name)
            if name.startswith((".", "~$")) or path.suffix.lower() not in PACKED + TABLES:
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # taken away since the folder was listed
            yield Drop(
                _partition(path.relative_to(folder)), path, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            )


def _partition(path: Path) -> str:
    partition = path.as_posix()
    try:
        partition.encode()
    except UnicodeEncodeError:
        raise KasparroError(f"drop {partition!r}: the name is not UTF-8; rename the file") from None
    if _NOT_IN_PARTITION.search(partition):
        raise KasparroError(f"drop {partition!r}: a name must not hold control characters or '...'; rename the file")
    return partition

"""Whole files on disk, kept a while: a reader of Parquet asks for the end of a file first, then for parts of it."""

from __future__ import annotations

import asyncio
import tempfile
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

FILES = 8
"""Kept at a time; the oldest goes first."""
SAME_S = 300
"""For so long parts are parts of the file whose other parts were asked for, also when there is newer data."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A file, and the ETag of what it holds."""

    path: Path
    etag: str | None
    made: float


class Spool:
    """Files by what was asked; they are gone when the process ends."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files: OrderedDict[str, Spooled] = OrderedDict()
        self._making = asyncio.Lock()

    async def file(
        self,
        asked: str,
        etag: str | None,
        make: Callable[[], Awaitable[AsyncGenerator[bytes, None]]],
        *,
        part: bool,
    ) -> Spooled:
        """The file of what is `asked`: one kept with this ETag, for a `part` with any; else a new one."""
        async with self._making:
            kept = self._files.get(asked)
            if kept and ((etag and kept.etag == etag) or (part and monotonic() - kept.made < SAME_S)):
                return kept
            made = Spooled(await self._written(await make()), etag, monotonic())
            if replaced := self._files.pop(asked, None):
                replaced.path.unlink()
            self._files[asked] = made
            if len(self._files) > FILES:
                self._files.popitem(last=False)[1].path.unlink()
            return made

    def close(self) -> None:
        """Remove every file."""
        if self._folder:
            self._folder.cleanup()

    async def _written(self, blocks: AsyncGenerator[bytes, None]) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="kasparro-api-")
        with tempfile.NamedTemporaryFile(dir=self._folder.name, delete=False) as file:
            path = Path(file.name)
            try:
                async for block in blocks:
                    await asyncio.to_thread(file.write, block)
            except BaseException:
                path.unlink()
                raise
            finally:
                await blocks.aclose()
        return path

"""What was asked to be run, in PostgreSQL, so that a repeated request starts nothing twice: not through another
process, nor after a crash between the start of a run and the answer.

A request is claimed before its runs are launched, and each of them carries its id as a tag. Whoever finds a request
that was claimed and never answered asks Dagster for the runs with that tag, and launches only what misses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from kasparro_api.database import Database

KEPT_HOURS = 24
"""So long a repeated request is known again."""

_FORGET = f"""
DELETE FROM kasparro.run_request
WHERE requested_at < clock_timestamp() - interval '{KEPT_HOURS} h' AND claimed_until < clock_timestamp()
"""  # noqa: S608
_FIND = f"""
SELECT request_id, body_sha256, runs, claimed_until >= clock_timestamp() FROM kasparro.run_request
WHERE key_id = %(key_id)s AND idempotency_key = %(idempotency_key)s
  AND requested_at >= clock_timestamp() - interval '{KEPT_HOURS} h'
"""  # noqa: S608
_CLAIM = """
INSERT INTO kasparro.run_request AS r (request_id, key_id, idempotency_key, body_sha256, claimed_until)
VALUES (%(request_id)s, %(key_id)s, %(idempotency_key)s, %(body_sha256)s,
        clock_timestamp() + make_interval(secs => %(seconds)s))
ON CONFLICT (key_id, idempotency_key) DO UPDATE SET claimed_until = excluded.claimed_until
WHERE r.runs IS NULL AND r.claimed_until < clock_timestamp() AND r.body_sha256 = excluded.body_sha256
RETURNING request_id
"""
_ANSWER = """
UPDATE kasparro.run_request SET runs = %(runs)s::jsonb, claimed_until = clock_timestamp()
WHERE request_id = %(request_id)s
"""
_RELEASE = "UPDATE kasparro.run_request SET claimed_until = clock_timestamp() WHERE request_id = %(request_id)s"
_LAUNCHED = """
SELECT run FROM kasparro.run_request, jsonb_array_elements(runs) AS run WHERE run->>'run_id' = %(run_id)s LIMIT 1
"""


class AnotherRequestError(Exception):
    """This Idempotency-Key belongs to a request with another body."""


class UnderWayError(Exception):
    """The same request is being worked on."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for what."""

    key_id: str
    idempotency_key: str | None
    body_sha256: bytes

    @classmethod
    def of(cls, key_id: str, idempotency_key: str | None, body: str) -> Asked:
        """With the hash of the body."""
        return cls(key_id, idempotency_key, hashlib.sha256(body.encode()).digest())


@dataclass(frozen=True, slots=True)
class RunRequests:
    """The table of requests; any method may raise `DatabaseUnavailableError` and `QueryTimeoutError`."""

    database: Database

    async def answered(self, asked: Asked) -> list[dict[str, Any]] | None:
        """The runs that were launched when this was asked before; None: it was not, or not to the end.

        Raises:
            AnotherRequestError: see there.
            UnderWayError: see there.
        """
        if asked.idempotency_key is None:
            return None
        async with self.database.connection() as connection:
            found = await (await connection.execute(_FIND, _values(asked))).fetchone()
        if found is None:
            return None
        _, body_sha256, runs, claimed = found
        if body_sha256 != asked.body_sha256:
            raise AnotherRequestError
        if runs is None and claimed:
            raise UnderWayError
        return runs  # type: ignore[no-any-return]

    async def claim(self, asked: Asked, seconds: float) -> str | None:
        """Take this request for so long: its id; None: somebody else was faster."""
        fresh = {**_values(asked), "request_id": uuid4().hex, "seconds": seconds}
        async with self.database.writing() as connection:
            await connection.execute(_FORGET)
            found = await (await connection.execute(_CLAIM, fresh)).fetchone()
        return str(found[0]) if found else None

    async def answer(self, request_id: str, runs: Sequence[dict[str, Any]]) -> None:
        """Keep the answer."""
        async with self.database.writing() as connection:
            await connection.execute(_ANSWER, {"request_id": request_id, "runs": json.dumps(runs)})

    async def release(self, request_id: str) -> None:
        """Let whoever asks again go on with this request."""
        async with self.database.writing() as connection:
            await connection.execute(_RELEASE, {"request_id": request_id})

    async def launched(self, run_id: str) -> dict[str, Any] | None:
        """The run of this id, as it was answered in the last `KEPT_HOURS` hours."""
        async with self.database.connection() as connection:
            found = await (await connection.execute(_LAUNCHED, {"run_id": run_id})).fetchone()
        return found[0] if found else None


def _values(asked: Asked) -> dict[str, Any]:
    return {
        "key_id": asked.key_id,
        "idempotency_key": asked.idempotency_key,
        "body_sha256": asked.body_sha256,
    }

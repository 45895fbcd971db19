"""API keys: how they are made, kept and known again.

A key reads ``kasparro_<id>_<secret>``. Kept are the id and the SHA-256 of the secret, which has 256 random bits, so
that a slow hash would protect nothing more. What a key may do are its scopes; ``admin`` stands for all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from pydantic import SecretStr

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.warehouse.tables import api_key

SCOPES = ("read", "operate", "admin")
_KEY = re.compile(r"kasparro_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


@dataclass(frozen=True, slots=True)
class Key:
    """One API key, without its secret."""

    key_id: str
    name: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)
    """SHA-256 of the secret."""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    created_at: datetime | None = None

    def allows(self, scope: str) -> bool:
        """Whether the key may do what `scope` names."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def state(self) -> str:
        """``revoked``, ``expired`` or ``active``, now."""
        now = datetime.now(UTC)
        if self.revoked_at is not None and self.revoked_at <= now:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


class KeyRing:
    """Keys that a request may show."""

    def __init__(self, stored: Iterable[Key] = (), given: Iterable[Key] = ()) -> None:
        self._stored = {key.key_id: key for key in stored}
        self._given = tuple(given)

    def find(self, shown: str) -> Key | None:
        """The active key that `shown` is; secrets are compared in constant time."""
        parts = _KEY.fullmatch(shown)
        key = self._stored.get(parts[1]) if parts else None
        if parts and key and hmac.compare_digest(_digest(parts[2]), key.digest):
            return key if key.state == "active" else None
        digest = _digest(shown)
        found = [key for key in self._given if hmac.compare_digest(digest, key.digest)]
        return found[0] if found else None


def given_keys(text: SecretStr | None) -> list[Key]:
    """The keys of ``KASPARRO_API_KEYS``: ``KEY`` or ``KEY:SCOPE+SCOPE`` with commas between; without scopes, read and
    operate.

    Raises:
        KasparroError: a scope is unknown, or a key is empty; the message does not show it.
    """
    entries = text.get_secret_value().split(",") if text else []
    return [_given_key(number, entry.strip()) for number, entry in enumerate(entries, 1) if entry.strip()]


def _given_key(number: int, entry: str) -> Key:
    secret, _, told = entry.partition(":")
    scopes = frozenset(told.split("+")) if told else frozenset({"read", "operate"})
    if not secret or not scopes <= set(SCOPES):
        raise KasparroError(f"KASPARRO_API_KEYS: entry {number} is not KEY or KEY:SCOPE+SCOPE with {', '.join(SCOPES)}")
    return Key(f"env-{number}", f"entry {number} of KASPARRO_API_KEYS", scopes, _digest(secret))


def create_key(
    connection: sa.Connection, name: str, scopes: Iterable[str], *, expires_at: datetime | None = None
) -> str:
    """Make a key and return it; it cannot be shown again.

    Raises:
        KasparroError: a scope is unknown.
    """
    chosen = sorted(set(scopes))
    if not chosen or not set(chosen) <= set(SCOPES):
        raise KasparroError(f"scopes {', '.join(chosen) or 'none'}: choose from {', '.join(SCOPES)}")
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    connection.execute(
        sa.insert(api_key).values(
            key_id=key_id, name=name, secret_sha256=_digest(secret), scopes=chosen, expires_at=expires_at
        )
    )
    return f"kasparro_{key_id}_{secret}"


def list_keys(connection: sa.Connection) -> list[Key]:
    """Every key there ever was, newest first."""
    rows = connection.execute(sa.select(api_key).order_by(api_key.c.created_at.desc(), api_key.c.key_id))
    return [
        Key(
            row.key_id,
            row.name,
            frozenset(row.scopes),
            row.secret_sha256,
            row.expires_at,
            row.revoked_at,
            row.created_at,
        )
        for row in rows
    ]


def revoke_key(connection: sa.Connection, key_id: str) -> None:
    """Make a key useless from now on; revoking twice changes nothing.

    Raises:
        KasparroError: there is no such key.
    """
    revoked_at = sa.func.coalesce(api_key.c.revoked_at, sa.func.clock_timestamp())
    changed = connection.execute(sa.update(api_key).where(api_key.c.key_id == key_id).values(revoked_at=revoked_at))
    if not changed.rowcount:
        raise KasparroError(f"no key {key_id}; `kasparro keys list` shows them")


def rotate_key(connection: sa.Connection, key_id: str, overlap: timedelta) -> str:
    """Make a key with the name and scopes of an active one, which stays good for `overlap` more; return it.

    Raises:
        KasparroError: there is no such key, or it is not active.
    """
    row = connection.execute(sa.select(api_key).where(api_key.c.key_id == key_id).with_for_update()).one_or_none()
    now = datetime.now(UTC)
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        raise KasparroError(f"no active key {key_id}; `kasparro keys list` shows them")
    ends = min(filter(None, (row.expires_at, now + overlap)))
    connection.execute(sa.update(api_key).where(api_key.c.key_id == key_id).values(expires_at=ends))
    return create_key(connection, row.name, row.scopes)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()

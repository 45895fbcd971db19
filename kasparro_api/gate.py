"""Who may come in, how often: API keys and rate limits, before any route is looked for.

Reading is open to everybody where the settings say so. Everything else needs a key with the scope, so that a route that
changes something cannot be left open by forgetting to close it.
"""

from __future__ import annotations

import math
from time import monotonic, time

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kasparro_api import explorer, queries
from kasparro_api.database import Database, DatabaseUnavailableError, QueryTimeoutError
from kasparro_api.problems import problem, query_timed_out, unavailable
from kasparro_pipeline.settings import Settings
from kasparro_pipeline.warehouse.keys import Key, KeyRing, given_keys

KEYS_FRESH_S = 5
"""So long a key that was revoked may still be taken."""
RATE_PER_MINUTE = 1200
"""Unless told, where others than this machine reach the service."""

_OPEN = ("/", "/docs", "/docs/oauth2-redirect", "/openapi.json", "/health", "/health/live")
_OPEN_BELOW = ("/static-offline-docs/", explorer.ASSETS)
_READING = ("GET", "HEAD", "OPTIONS")


def needs_key(settings: Settings, method: str, path: str) -> bool | None:
    """Whether a request needs an API key; None: it is never asked for one."""
    if method not in _READING:
        return True
    if path in _OPEN or path.startswith(_OPEN_BELOW):
        return None
    return not (settings.api_read == "open" or (settings.api_read == "auto" and settings.is_private))


class Gate:
    """ASGI middleware; sets `request.state.key` to the caller's `Key`, or None."""

    def __init__(self, app: ASGIApp, settings: Settings, database: Database) -> None:
        self._app = app
        self._open_reading = not needs_key(settings, "GET", "/data")
        self._keys = _Keys(settings, database)
        rate = settings.api_rate_per_minute
        if rate is None:
            rate = 0 if settings.is_private else RATE_PER_MINUTE
        self._limit = _Limit(rate) if rate else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request in, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["method"] in _READING and (path in _OPEN or path.startswith(_OPEN_BELOW)):
            await self._app(scope, receive, send)
            return
        shown = _shown(scope)
        try:
            key = await self._keys.find(shown) if shown else None
        except DatabaseUnavailableError as error:
            await unavailable(Request(scope), error)(scope, receive, send)
            return
        except QueryTimeoutError:
            await query_timed_out(Request(scope))(scope, receive, send)
            return
        scope["state"]["key"] = key
        if self._limit is not None:
            allowed, send = await self._limit.hit(key.key_id if key else _address(scope), send)
            if not allowed:
                detail = "too many requests; wait as Retry-After says"
                await problem(Request(scope), 429, "too-many-requests", detail)(scope, receive, send)
                return
        await (self._refusal(scope, shown, key) or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope, shown: str, key: Key | None) -> ASGIApp | None:
        needed = "read" if scope["method"] in _READING else "operate"
        if key is not None:
            if key.allows(needed):
                return None
            return problem(Request(scope), 403, "forbidden", f"this key has not the scope {needed}")
        if needed == "read" and self._open_reading and not shown:
            return None
        if needed == "operate" and not _does_something(scope):
            return None  # the router says 404 or 405
        detail = "give an API key with scope {} as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
        if shown:
            detail = "this API key is unknown, revoked or expired; " + detail
        return problem(Request(scope), 401, "unauthorized", detail.format(needed), {"WWW-Authenticate": "Bearer"})


class _Keys:
    """The keys there are: the settings' and the database's, those read again after `KEYS_FRESH_S` seconds."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._given = KeyRing(given=given_keys(settings.api_keys))
        self._database = database
        self._stored = KeyRing()
        self._until = -math.inf

    async def find(self, shown: str) -> Key | None:
        """The key that `shown` is, if it is one."""
        if found := self._given.find(shown):
            return found
        if monotonic() >= self._until:
            async with self._database.connection() as connection:
                rows = await (await connection.execute(queries.API_KEYS)).fetchall()
            self._stored = KeyRing(Key(key_id, name, frozenset(scopes), *rest) for key_id, name, scopes, *rest in rows)
            self._until = monotonic() + KEYS_FRESH_S
        return self._stored.find(shown)


class _Limit:
    """Requests a minute, counted in this process."""

    def __init__(self, per_minute: int) -> None:
        self._item = RateLimitItemPerMinute(per_minute)
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._policy = f'"minute";q={per_minute};w=60'

    async def hit(self, caller: str, send: Send) -> tuple[bool, Send]:
        """Whether the caller has a request left, and a `send` that tells how many
        (draft-ietf-httpapi-ratelimit-headers)."""
        allowed = await self._limiter.hit(self._item, caller)
        window = await self._limiter.get_window_stats(self._item, caller)
        wait = max(math.ceil(window.reset_time - time()), 0)

        async def send_told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["RateLimit-Policy"] = self._policy
                headers["RateLimit"] = f'"minute";r={max(window.remaining, 0)};t={wait}'
                if not allowed:
                    headers["Retry-After"] = str(max(wait, 1))
            await send(message)

        return allowed, send_told


def _shown(scope: Scope) -> str:
    headers = dict(scope["headers"])
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    shown: bytes = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
    return shown.decode("latin-1")


def _does_something(scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].routes)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"

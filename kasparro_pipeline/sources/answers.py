"""What a vendor's answer says beside its data: an error code, a message, how long to wait."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from kasparro_pipeline.sources.json_text import UNREADABLE

OK = 200
NO_CODE = 0
"""Of an error that is told without one."""
TOO_MANY_REQUESTS = 429
LONGEST_REFUSAL = 4096
"""Bytes of an answer that is taken for nothing but a message."""
EXCERPT = 120

_MESSAGE_NAMES = frozenset({"error", "errors", "error_message", "message", "error_description", "detail", "msg"})
_CODE_NAMES = ("error_code", "code", "status", "statusCode")
_TOO_MUCH = re.compile(r"\brate limit|\btoo many requests|\bthrottled", re.I)
_FAILED = frozenset({"error", "fail", "failed", "failure"})
_SECONDS = re.compile(r"[0-9]+(?:\.[0-9]+)?")


class _Envelope(msgspec.Struct):
    """``{"status": {"error_code": 429, …}}`` and its like: an error that may come under HTTP 200."""

    status: Any = None
    error: Any = None
    error_code: Any = None
    code: Any = None
    statusCode: Any = None  # noqa: N815 - as vendors write it
    Response: Any = None
    success: Any = None
    errors: Any = None

    @property
    def codes(self) -> list[str]:
        """What may be an HTTP status in it."""
        inner = [part.get(name) for part in (self.status, self.error) if isinstance(part, dict) for name in _CODE_NAMES]
        return [str(found) for found in (self.status, self.error_code, self.code, self.statusCode, *inner)]

    @property
    def is_error(self) -> bool:
        """Whether it says so in a way that leaves no doubt; a code alone may stand for success, whatever it is."""
        words = {found.casefold() for found in (self.status, self.Response) if isinstance(found, str)}
        return bool(self.error or self.errors or words & _FAILED) or self.success is False


def message(body: bytes) -> bytes:
    """The vendor's own message in an error's body; empty where there is none."""
    try:
        return next(_messages(msgspec.json.decode(body)), "").encode()
    except UNREADABLE:
        return b""


def _messages(value: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    """Texts under the names that vendors give to messages, such as ``{"status": {"error_message": "…"}}``."""
    if isinstance(value, list):
        for item in value:
            yield from _messages(item)
    elif isinstance(value, dict):
        for name, found in value.items():
            if name.casefold() in _MESSAGE_NAMES:
                told = found if isinstance(found, list) else [found]
                yield from (text for text in told if text and isinstance(text, str))
            if not isinstance(found, str):
                yield from _messages(found)


def error_code(body: bytes) -> int:
    """The error code in an error's envelope, 429 also where only its text says that too much was asked; else 200.

    A short answer may be an error without a code (`NO_CODE`).
    """
    if not body.lstrip().startswith(b"{"):
        return OK
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
    except UNREADABLE:
        return OK
    told = envelope.status.get("error_code") if isinstance(envelope.status, dict) else None
    if isinstance(told, int | str) and str(told).isdecimal() and int(told):
        return int(told)
    is_short = len(body) <= LONGEST_REFUSAL
    if str(TOO_MANY_REQUESTS) in envelope.codes or (is_short and _TOO_MUCH.search(message(body).decode())):
        return TOO_MANY_REQUESTS
    return NO_CODE if is_short and envelope.is_error else OK


def retry_after(value: str | None) -> float | None:
    """Seconds from now that a ``Retry-After`` asks for, given as seconds or as an HTTP date; None for neither."""
    if value is None:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def excerpt(body: bytes) -> str:
    """How a body begins, in one line that can be printed."""
    text = " ".join(body[: 4 * EXCERPT].decode("utf-8", "replace").split())
    text = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return text if len(text) <= EXCERPT else text[:EXCERPT] + "…"

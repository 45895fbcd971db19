"""One vendor's HTTP API: limited, retried, and with an error a person can act on.

What belongs here: getting one answer whole. What does not: what is in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import httpx
import stamina
from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate, RateItem

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources import answers
from kasparro_pipeline.sources.json_text import is_json
from kasparro_pipeline.sources.records import Version

MAX_BODY = 256 * 1024 * 1024
_HINTS = {
    401: "check the API key",
    403: "check the API key and what its plan allows",
    404: "check the URL",
    429: "lower the rate limit, or try later",
}


class FetchError(KasparroError):
    """A vendor did not give a usable answer; says which vendor and request, what was wrong and after how many tries."""


class NoSuchError(FetchError):
    """The vendor does not know what it was asked for: it answered 404."""


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """How often a vendor is asked, and how long an answer is waited for. Times are seconds."""

    max_requests: int | None = None
    """In any `per_seconds`, tries included; None: no limit."""
    per_seconds: float = 60.0
    timeout: float = 30.0
    """For connecting, and for each pause within an answer; a whole answer may take ten times as long."""
    attempts: int = 6
    total: float = 300.0
    """No new try is decided on once this time has passed."""
    wait_initial: float = 1.0
    """First wait; each further one is twice as long, plus the jitter."""
    wait_max: float = 60.0
    wait_jitter: float = 1.0
    retry_after_max: float = 120.0
    """Longest wait a vendor's ``Retry-After`` can ask for."""
    http2: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a vendor answered: complete JSON, as yet unread."""

    url: str
    """Without secrets: those travel in headers only."""
    body: bytes
    """The exact bytes, after content decoding."""
    received_at: datetime
    """Aware, UTC."""
    version: Version | None = None
    """What the vendor calls this version of the answer, where it has a name for it."""


@dataclass(frozen=True, slots=True)
class Known:
    """An answer that was kept, to ask the vendor whether it has a newer one."""

    version: Version
    body: bytes = field(repr=False)


class _UnusableError(Exception):
    """An answer, or the lack of one, that does not do."""

    def __init__(  # noqa: PLR0913
        self,
        what: str,
        *,
        retry: bool,
        wait: float | None = None,
        body: bytes = b"",
        hint: str = "",
        status: int | None = None,
    ) -> None:
        super().__init__(what)
        self.status = status
        self.retry = retry
        self.wait = wait
        self.body = body
        self.hint = hint


class VendorClient:
    """Asks one vendor's JSON API; connections are kept, the rate limit holds for tries, too.

    `auth_headers` carry the API key. Their values never show up in a message. Redirects are not followed: they would
    carry the key elsewhere. `before_try` is called before each try, and what it raises ends the request: a budget is
    kept there. `recent` says how many seconds ago earlier clients made their calls, so that the rate holds across runs.

    Raises:
        KasparroError: the base URL is no HTTP URL, or a key cannot be sent as a header.
    """

    def __init__(  # noqa: PLR0913
        self,
        source: str,
        base_url: str,
        *,
        auth_headers: Mapping[str, str] | None = None,
        policy: RequestPolicy | None = None,
        before_try: Callable[[], None] = lambda: None,
        recent: Sequence[float] = (),
    ) -> None:
        self.source = source
        self._before_try = before_try
        # With a scheme before it ("Bearer …") a key may come back alone.
        self._secrets = [secret for value in (auth_headers or {}).values() for secret in (value, value.split(" ")[-1])]
        self._policy = policy or RequestPolicy()
        try:
            check_base_url(base_url)
        except KasparroError as error:
            raise KasparroError(f"{source}: {error}") from None
        _check_keys(source, auth_headers or {})
        self._http = httpx.Client(
            base_url=base_url,
            headers={"Accept": "application/json", "User-Agent": "kasparro", **(auth_headers or {})},
            timeout=self._policy.timeout,
            http2=self._policy.http2,
        )
        self._limiter = _limiter(self._policy, recent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        if self._limiter is not None:
            self._limiter.close()

    def url(self, endpoint: str, params: Mapping[str, str | int]) -> str:
        """What `get` asks: the whole URL."""
        return str(self._request(endpoint, params).url)

    def get(self, endpoint: str, params: Mapping[str, str | int], known: Known | None = None) -> Answer:
        """The answer to GET `endpoint` (a path below the base URL); `known` again where the vendor has nothing newer.

        Tried again: 408, 429 (also one that only a body under HTTP 200 tells), 5xx, broken or slow connections, bodies
        that are not complete JSON. Every other answer but 200 fails at once.

        Raises:
            FetchError: there was no usable answer (`NoSuchError` for a 404).
        """
        request = self._request(endpoint, params)
        if known is not None:
            request.headers.update(_conditions(known.version))
        failures: list[Exception] = []

        def backoff(error: Exception) -> bool | float:
            failures.append(error)
            if not isinstance(error, _UnusableError) or not error.retry:
                return False
            return min(error.wait, self._policy.retry_after_max) if error.wait else True

        ask = stamina.retry(
            on=backoff,
            attempts=self._policy.attempts,
            timeout=self._policy.total,
            wait_initial=self._policy.wait_initial,
            wait_max=self._policy.wait_max,
            wait_jitter=self._policy.wait_jitter,
        )(self._try)
        try:
            return ask(request, known)
        except _UnusableError as error:
            tries = f"{len(failures)} {'try' if len(failures) == 1 else 'tries'}"
            failure = self.failure(str(request.url), f"{error} after {tries}", error.body, error.hint)
            failure.can_pass = error.retry
            raise (NoSuchError(str(failure)) if error.status == httpx.codes.NOT_FOUND else failure) from None

    def _request(self, endpoint: str, params: Mapping[str, str | int]) -> httpx.Request:
        return self._http.build_request("GET", endpoint, params=dict(params))

    def _try(self, request: httpx.Request, known: Known | None) -> Answer:
        if self._limiter is not None:
            self._limiter.try_acquire(self.source)
        self._before_try()
        try:
            response = self._http.send(request, stream=True)
            try:
                body = self._read(response)
            finally:
                response.close()
        except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as error:
            raise _UnusableError(f"cannot be asked ({error})", retry=False) from None
        except httpx.RequestError as error:
            what = f"gave no complete answer ({type(error).__name__}: {error})"
            raise _UnusableError(what, retry=True, hint="check the network and the URL") from None
        if known is not None and response.status_code == httpx.codes.NOT_MODIFIED:
            return Answer(str(request.url), known.body, datetime.now(UTC), known.version)
        _check_status(response, body)
        _check_body(response, body)
        return Answer(str(request.url), body, datetime.now(UTC), _version(response))

    def _read(self, response: httpx.Response) -> bytes:
        longest = 10 * self._policy.timeout
        deadline = time.monotonic() + longest
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > MAX_BODY:
                raise _UnusableError(f"answered with more than {MAX_BODY} bytes", retry=False)
            if time.monotonic() > deadline:
                raise _UnusableError(f"was still sending after {longest:g} s", retry=True)
        return bytes(body)

    def failure(self, url: str, what: str, body: bytes = b"", hint: str = "") -> FetchError:
        """An error in one line: the vendor, the request, what was wrong, how the answer began, what to do."""
        for secret in filter(None, self._secrets):
            what, body = what.replace(secret, "***"), body.replace(secret.encode(), b"***")
        sentence = f"{self.source}: GET {url} {what}"
        if body:
            sentence += f": {answers.excerpt(body)}"
        return FetchError(" ".join(f"{sentence}; {hint}".split()) if hint else " ".join(sentence.split()))


def _limiter(policy: RequestPolicy, recent: Sequence[float]) -> Limiter | None:
    if policy.max_requests is None:
        return None
    bucket = InMemoryBucket([Rate(policy.max_requests, round(policy.per_seconds * Duration.SECOND))])
    now = time.monotonic_ns() // 1_000_000  # the bucket's clock
    for age in sorted(recent, reverse=True):
        bucket.put(RateItem("earlier", now - round(age * Duration.SECOND)))
    return Limiter(bucket)


def _version(response: httpx.Response) -> Version | None:
    etag, last_modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    return Version(etag, last_modified) if etag or last_modified else None


def _conditions(version: Version) -> dict[str, str]:
    headers = {"If-None-Match": version.etag, "If-Modified-Since": version.last_modified}
    return {name: value for name, value in headers.items() if value}


def check_base_url(base_url: str) -> None:
    """Whether a vendor can be asked there.

    Raises:
        KasparroError: it is no HTTP URL, or holds a secret.
    """
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.userinfo:
        raise KasparroError(f"the base URL for {url.host} holds a user or password; leave it out")
    if url.scheme not in {"http", "https"} or not url.host:
        raise KasparroError(f"the base URL is {base_url!r}; write http(s)://HOST[:PORT][/PATH]")


def _check_keys(source: str, auth_headers: Mapping[str, str]) -> None:
    for name, value in auth_headers.items():
        if not (value.isascii() and value.isprintable() and value == value.strip()):
            raise KasparroError(
                f"{source}: the API key for header {name} holds blanks or characters no header can carry"
            )


def _check_status(response: httpx.Response, body: bytes) -> None:
    status = response.status_code
    if status == httpx.codes.OK:
        status = answers.error_code(body)
        what = f"answered {f'error_code {status}' if status else 'an error'} under HTTP 200"
    else:
        what = f"answered {status} {response.reason_phrase}"
    if status == httpx.codes.OK:
        return
    raise _UnusableError(
        what,
        retry=status in {408, answers.TOO_MANY_REQUESTS} or 500 <= status < 600,
        wait=answers.retry_after(response.headers.get("Retry-After")),
        body=answers.message(body) or body,
        hint=_HINTS.get(status, "") or _redirect(response),
        status=status,
    )


def _redirect(response: httpx.Response) -> str:
    target = response.headers.get("Location")
    return f"it leads to {answers.excerpt(target.encode())}; set the URL to where the vendor is" if target else ""


def _check_body(response: httpx.Response, body: bytes) -> None:
    if is_json(body):
        return
    kind = response.headers.get("Content-Type", "no content type")
    what = (
        "answered with no body" if not body else f"answered with {len(body)} bytes that are not complete JSON ({kind})"
    )
    raise _UnusableError(what, retry=True, wait=answers.retry_after(response.headers.get("Retry-After")), body=body)

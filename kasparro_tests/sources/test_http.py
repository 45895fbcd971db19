from __future__ import annotations

import gzip
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.http import FetchError, NoSuchError, RequestPolicy, VendorClient
from kasparro_tests.sources.vendor import Reply, running_vendor
from kasparro_tests.sources.vendor_http2 import Http2Vendor, running_http2_vendor

FAST = RequestPolicy(timeout=0.3, attempts=3, total=10, wait_initial=0.01, wait_max=0.02, wait_jitter=0.0)
GOOD = Reply(b'[{"id":"bitcoin"}]')
RATE_LIMIT = b'{"status":{"error_code":429,"error_message":"You\'ve exceeded the Rate Limit."}}'
PAGE = b"<html><body><h1>Just a moment...</h1>\n</body></html>"


def client(url: str, policy: RequestPolicy = FAST, **auth: str) -> VendorClient:
    return VendorClient("coingecko", url, auth_headers=auth, policy=policy)


def failure(*replies: Reply, **auth: str) -> tuple[str, int]:
    """The message of the error that these replies lead to, and how often the vendor was asked."""
    with running_vendor(*replies) as vendor, client(vendor.url, **auth) as vendor_client:
        with pytest.raises(FetchError) as caught:
            vendor_client.get("/coins/markets", {"page": 1})
        message = str(caught.value)
        assert "\n" not in message
        assert message.startswith(f"coingecko: GET {vendor.url}/coins/markets?page=1 ")
        return message, len(vendor.requests)


def test_gives_the_exact_bytes_and_the_url():
    body = '[ {"id":"bitcoin", "price":3.84e-18,"name":"₿"} ]\n'.encode()
    zipped = Reply(gzip.compress(body), headers={"Content-Encoding": "gzip"})
    with running_vendor(zipped) as vendor, client(vendor.url + "/") as vendor_client:
        answer = vendor_client.get("/coins", {"a": "x y"})
    assert answer.body == body
    assert answer.url == f"{vendor.url}/coins?a=x+y"
    assert abs(datetime.now(UTC) - answer.received_at) < timedelta(seconds=10)


@pytest.mark.parametrize(
    "fault",
    [
        Reply(b"Throttled", 429, {"Content-Type": "text/plain"}),
        Reply(b"", 500),
        Reply(b"", 503),
        Reply(b"", 408),
        Reply(sent=-1),
        Reply(b"[1,2,3,4]", sent=5),
        Reply(b"[1]", pause=1.0),
        Reply(PAGE, headers={"Content-Type": "text/html"}),
        Reply(b'[{"id":"bitcoin"},{"id"'),
        Reply(b""),
        Reply(RATE_LIMIT),
        Reply(b'{"status":{"error_code":"500"}}'),
        Reply(b'{"status":429,"error":"Too Many Requests"}'),
        Reply(b'{"statusCode":429,"message":"slow down"}'),
        Reply(b'{"error":{"code":"429","message":"slow down"}}'),
        Reply(b'{"error":["EAPI:Rate limit exceeded"]}'),
        Reply(b'{"Response":"Error","Message":"You are over your rate limit please upgrade your account!","Type":99}'),
        Reply(b"no gzip", headers={"Content-Encoding": "gzip"}),
    ],
    ids=lambda fault: f"{fault.status} {fault.body[:20]!r} {fault.sent} {fault.pause}",
)
def test_asks_again_after_what_can_pass(fault):
    with running_vendor(fault, GOOD) as vendor, client(vendor.url) as vendor_client:
        assert vendor_client.get("/coins", {}).body == GOOD.body
        assert len(vendor.requests) == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Reply(b'{"error":"coin not found"}', 404), "answered 404 Not Found after 1 try: coin not found; "),
        (Reply(b'{"error":"bad key"}', 401), "answered 401 Unauthorized after 1 try"),
        (Reply(b"no", 403), "answered 403 Forbidden"),
        (Reply(b"", 301, {"Location": "http://127.0.0.1:1/"}), "after 1 try; it leads to http://127.0.0.1:1/; "),
        (Reply(b'{"status":{"error_code":10002}}'), "answered error_code 10002 under HTTP 200"),
        (
            Reply(b'{"error":["EGeneral:Invalid arguments"]}'),
            "HTTP 200 after 1 try: EGeneral:Invalid arguments",
        ),
        (Reply(b'{"Response":"Error","Type":2,"Message":"tsym is no","Data":{}}'), "HTTP 200 after 1 try: tsym is no"),
        (Reply(b'{"status":"fail","type":"NO","message":"Coin not found"}'), "HTTP 200 after 1 try: Coin not found"),
        (Reply(b'{"success":false,"reason":"closed"}'), 'HTTP 200 after 1 try: {"success":false,"reason":"closed"}'),
        (Reply(b'{"errors":[{"status":"4","detail":"no page 9"}]}'), "HTTP 200 after 1 try: no page 9"),
    ],
)
def test_fails_at_once_after_what_cannot_pass(fault, said):
    message, requests = failure(fault, GOOD)
    assert said in message
    assert requests == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Reply(b"Throttled", 429), "answered 429 Too Many Requests after 3 tries: Throttled; lower the rate limit"),
        (
            Reply(RATE_LIMIT),
            "answered error_code 429 under HTTP 200 after 3 tries: You've exceeded the Rate Limit.; lower the rate",
        ),
        (
            Reply(PAGE, headers={"Content-Type": "text/html"}),
            "not complete JSON (text/html) after 3 tries: <html><body>",
        ),
        (Reply(b"[1,2,3,4]", sent=5), "gave no complete answer (RemoteProtocolError"),
        (Reply(b"\x1b[31m" + b"x" * 500, 500), "\N{REPLACEMENT CHARACTER}[31m" + "x" * 115 + "…"),
    ],
)
def test_says_what_was_wrong_when_it_gives_up(fault, said):
    message, requests = failure(fault)
    assert said in message
    assert requests == 3


@pytest.mark.parametrize(
    "body",
    [
        b'{"status":"ok","code":0,"data":[{"id":"429"}]}',
        b'{"status":{"error_code":0,"elapsed":429},"data":[]}',
        b'{"code":"200000","data":[{"message":"x"}]}',
        b'{"data":[{"message":"' + b"no rate limit " * 400 + b'"}]}',
        b'{"status":[1]}',
        b'{"error":[],"errors":null,"success":true,"status":"success","Response":"Success","Message":"Success"}',
        b'{"data":[{"error":"no price","status":"error"}],"error":"","code":7}',
        b'{"errors":["some"],"data":["' + b"x" * 5000 + b'"]}',
    ],
)
def test_an_answer_that_tells_of_no_error_is_one(body):
    with running_vendor(Reply(body)) as vendor, client(vendor.url) as vendor_client:
        assert vendor_client.get("/coins", {}).body == body


def test_an_unreachable_vendor_is_named():
    with (
        client("http://127.0.0.1:1") as vendor_client,
        pytest.raises(FetchError, match=r"ConnectError.* after 3 tries"),
    ):
        vendor_client.get("/coins", {})


def test_waits_as_many_seconds_as_the_vendor_says():
    with running_vendor(Reply(b"", 429, {"Retry-After": "1"}), GOOD) as vendor, client(vendor.url) as vendor_client:
        vendor_client.get("/coins", {})
        assert vendor.times[1] - vendor.times[0] >= 0.9


def test_waits_until_the_time_that_the_vendor_says():
    moment = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=0)
    limited = Reply(b"", 429, {"Retry-After": format_datetime(moment, usegmt=True)})
    with running_vendor(limited, GOOD) as vendor, client(vendor.url) as vendor_client:
        vendor_client.get("/coins", {})
        assert len(vendor.times) == 2
        assert datetime.now(UTC) >= moment


@pytest.mark.parametrize("retry_after", ["86400", "Fri, 01 Jan 2100 00:00:00 GMT", "soon", "-1", "nan", "0"])
def test_waits_no_longer_than_the_cap(retry_after):
    policy = RequestPolicy(attempts=2, wait_initial=0.01, wait_max=0.01, wait_jitter=0, retry_after_max=0.2)
    replies = Reply(b"", 503, {"Retry-After": retry_after}), GOOD
    with running_vendor(*replies) as vendor, client(vendor.url, policy) as vendor_client:
        vendor_client.get("/coins", {})
        assert vendor.times[1] - vendor.times[0] < 1


def test_stops_asking_when_the_time_is_up():
    policy = RequestPolicy(attempts=1000, total=0.3, wait_initial=0.1, wait_max=0.1, wait_jitter=0)
    with running_vendor(Reply(b"", 500)) as vendor, client(vendor.url, policy) as vendor_client:
        with pytest.raises(FetchError):
            vendor_client.get("/coins", {})
        assert 2 <= len(vendor.requests) <= 5


def test_keeps_to_the_rate_and_counts_tries():
    policy = RequestPolicy(max_requests=2, per_seconds=0.6, wait_initial=0.01, wait_max=0.01, wait_jitter=0)
    with running_vendor(Reply(b"", 500), GOOD) as vendor, client(vendor.url, policy) as vendor_client:
        for _ in range(3):
            vendor_client.get("/coins", {})
        assert vendor.times[2] - vendor.times[0] >= 0.55
        assert vendor.times[3] - vendor.times[1] >= 0.55


def test_the_key_travels_in_its_header_and_nowhere_else():
    key = "CG-0123456789abcdef"
    with running_vendor(GOOD) as vendor, client(vendor.url, **{"x-cg-demo-api-key": key}) as vendor_client:
        answer = vendor_client.get("/coins", {})
        assert vendor.headers[0]["x-cg-demo-api-key"] == key
        assert key not in answer.url
    message, _ = failure(Reply(b"x" * 110 + key.encode(), 401), **{"x-cg-demo-api-key": key})
    assert "***" in message
    assert key[:5] not in message


@pytest.mark.parametrize(
    "url", ["", "ftp://vendor.test", "vendor.test/v1", "http://", "http://[::1", "http://me:secret@x.test"]
)
def test_refuses_a_base_url_that_is_none(url):
    with pytest.raises(KasparroError, match="base URL") as caught:
        VendorClient("coingecko", url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["two\nlines", " k3y", "café"])
def test_refuses_a_key_that_no_header_can_carry(key):
    with pytest.raises(KasparroError, match="API key for header Authorization") as caught:
        VendorClient("coinpaprika", "http://vendor.test", auth_headers={"Authorization": key})
    assert key not in str(caught.value)


def test_the_rate_counts_what_earlier_runs_have_used_up():
    policy = RequestPolicy(max_requests=2, per_seconds=0.6)
    with (
        running_vendor(GOOD) as vendor,
        VendorClient("coingecko", vendor.url, policy=policy, recent=[5.0, 0.1, 0.0]) as vendor_client,
    ):
        started = time.monotonic()
        vendor_client.get("/coins", {})
        assert 0.4 < vendor.times[0] - started < 3


def test_each_try_is_announced_before_it_is_made_and_may_be_forbidden():
    announced = []

    def announce() -> None:
        announced.append(len(vendor.requests))
        if len(announced) > 2:
            raise KasparroError("spent")

    with running_vendor(Reply(b"", 500)) as vendor:
        with (
            VendorClient("coingecko", vendor.url, policy=FAST, before_try=announce) as vendor_client,
            pytest.raises(KasparroError, match=r"^spent$"),
        ):
            vendor_client.get("/coins", {})
        assert announced == [0, 1, 2]
        assert len(vendor.requests) == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error":"coin not found"}', "coin not found"),
        (b'{"error":{"status":{"error_code":10002,"error_message":"API Key Missing"}}}', "API Key Missing"),
        (b'{"Response":"Error","Message":"market does not exist"}', "market does not exist"),
        (b'{"errors":[{"code":1,"detail":"no plan"}]}', "no plan"),
        (b'{"error":null,"code":7}', '{"error":null,"code":7}'),
        (b"error code: 1015", "error code: 1015"),
        (b"[" * 100_000, "[[["),
        (b'{"error":"\xff"}', '{"error":"\N{REPLACEMENT CHARACTER}"}'),
    ],
)
def test_an_error_says_what_the_vendor_says(body, said):
    message, requests = failure(Reply(body, 403))
    assert f"answered 403 Forbidden after 1 try: {said}" in message
    assert requests == 1


@pytest.mark.parametrize(("status", "kind"), [(404, NoSuchError), (400, FetchError)])
def test_what_is_not_there_is_told_from_other_refusals(status, kind):
    with running_vendor(Reply(b"{}", status)) as vendor, client(vendor.url) as vendor_client:
        with pytest.raises(FetchError) as caught:
            vendor_client.get("/coins/x", {})
        assert type(caught.value) is kind


def test_a_304_that_was_not_asked_for_is_an_error():
    message, _ = failure(Reply(b"", 304))
    assert "answered 304 Not Modified" in message


HTTP2 = replace(FAST, http2=True)


def test_over_plain_http_nobody_speaks_http2_and_1_1_is_spoken_as_before():
    with running_vendor(GOOD) as vendor, client(vendor.url, HTTP2) as vendor_client:
        assert vendor_client.get("/coins", {}).body == GOOD.body


def test_many_requests_of_http2_share_a_connection(monkeypatch, tmp_path):
    body = b"[" + b",".join(b'{"id":"coin-%d"}' % n for n in range(500)) + b"]"
    with running_http2_vendor(body, "answer") as vendor:
        trust(vendor, monkeypatch, tmp_path)
        with client(vendor.url, HTTP2, **{"x-cg-pro-api-key": "secret"}) as vendor_client:
            answers = [vendor_client.get("/coins", {"page": page}) for page in range(3)]
    assert {answer.body for answer in answers} == {body}
    assert [request[":path"] for request in vendor.requests] == [f"/v1/coins?page={page}" for page in range(3)]
    assert {request["x-cg-pro-api-key"] for request in vendor.requests} == {"secret"}
    assert vendor.connections == 1


@pytest.mark.parametrize("fault", ["reset the stream", "go away", "hang up", "send rubbish", "answer half and hang up"])
@pytest.mark.parametrize("before", [[], ["answer"]])
def test_what_can_go_wrong_with_http2_is_tried_again(fault, before, monkeypatch, tmp_path):
    with running_http2_vendor(GOOD.body, *before, fault, "answer") as vendor:
        trust(vendor, monkeypatch, tmp_path)
        with client(vendor.url, HTTP2) as vendor_client:
            assert [vendor_client.get("/coins", {}).body for _ in range(3)] == [GOOD.body] * 3
    assert len(vendor.requests) == 4


def trust(vendor: Http2Vendor, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Take its certificate for good, as one that a company's own authority has signed."""
    vendor.authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "authority.pem"))

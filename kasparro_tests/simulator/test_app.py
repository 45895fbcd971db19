import time

import pytest

from kasparro_pipeline.simulator.app import create_app

RATE_LIMIT_BODY = (
    b'{"status":{"error_code":429,"error_message":"You\'ve exceeded the Rate Limit. Please visit '
    b'https://www.coingecko.com/en/api/pricing to subscribe to our API plans for higher rate limits."}}'
)


@pytest.mark.parametrize(
    ("path", "other", "body"),
    [
        ("/api/v3/ping", "/v1/coins", RATE_LIMIT_BODY),
        ("/v1/coins", "/api/v3/ping", b'{"error":"too many requests"}'),
    ],
)
def test_a_vendor_refuses_calls_above_its_rate(serve, path, other, body):
    client = serve(create_app(rate_per_minute=3))
    assert [client.get(path).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    refused = client.get(path)
    assert refused.content == body
    assert refused.headers["content-type"] == "application/json"
    assert 15 <= int(refused.headers["retry-after"]) <= 20
    assert client.get(other).status_code == 200
    assert client.get("/health").status_code == 200


def test_a_call_is_admitted_again_after_retry_after(serve):
    client = serve(create_app(rate_per_minute=60))
    while (answer := client.get("/api/v3/ping")).status_code == 200:
        pass
    assert answer.status_code == 429
    time.sleep(int(answer.headers["retry-after"]))
    assert client.get("/api/v3/ping").status_code == 200


def test_health_says_what_the_market_holds(client):
    assert client.get("/health").json() == {
        "status": "ok",
        "time": "2026-11-20T12:34:56+00:00",
        "coins": {"coingecko": 432, "coinpaprika": 387},
    }

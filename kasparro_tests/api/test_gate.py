"""Who may come in, how often, and what the caller is told."""

from __future__ import annotations

import json
import logging
from datetime import UTC, date, datetime, timedelta

import httpx
import pytest
import sqlalchemy as sa
from pydantic import SecretStr
from typer.testing import CliRunner

from kasparro_api import gate
from kasparro_pipeline.cli import keys as keys_command
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.warehouse.keys import KeyRing, create_key, given_keys, list_keys, revoke_key, rotate_key
from kasparro_pipeline.warehouse.tables import api_key, unified_assets
from kasparro_tests.api.rows import insert, unified
from kasparro_tests.api.serving import app_on, served, within

KEY = "a-key-of-the-environment"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_reading_is_open_only_where_nobody_else_listens_or_the_owner_says_so(database: sa.URL) -> None:
    cases = [
        ({}, 200),
        ({"host": "::1"}, 200),
        ({"host": "0.0.0.0"}, 401),
        ({"host": "api.example"}, 401),
        ({"host": "0.0.0.0", "api_read": "open"}, 200),
        ({"api_read": "key"}, 401),
    ]
    for chosen, status in cases:
        with served(app_on(database, **chosen)) as client:
            assert client.get("/data").status_code == client.get("/v1/data").status_code == status, chosen
            assert client.get("/metrics").status_code == status
            for path in ("/health", "/health/live", "/docs", "/", "/explorer/explorer.js"):
                assert client.get(path).status_code == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_changes_something_is_never_open(database: sa.URL, method: str) -> None:
    app = app_on(database, api_read="open", api_keys=SecretStr(f"{KEY},reader:read"))
    done: list[str] = []

    @app.api_route("/change", methods=[method])
    @app.api_route("/health", methods=[method])
    async def change() -> None:
        done.append(method)

    with served(app) as client:
        for path in ("/change", "/v1/change", "/health"):
            answer = client.request(method, path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert "scope operate" in answer.json()["detail"]
            assert client.request(method, path, headers=bearer("reader")).status_code == 403
        assert not done
        assert client.request(method, "/change", headers=bearer(KEY)).status_code == 200
        assert done == [method]
        assert client.request(method, "/data").status_code == 405
        assert client.request(method, "/nowhere").status_code == 404


def test_a_key_opens_what_its_scopes_say(database: sa.URL, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        shown = {scope: create_key(connection, scope, [scope]) for scope in ("read", "operate", "admin")}
    app = app_on(database, api_read="key", api_keys=SecretStr(f"{KEY}, only-reads:read"))
    app.add_api_route("/do", lambda: None, methods=["POST"])
    with served(app) as client:
        for key, reading, operating in (
            (shown["read"], 200, 403),
            (shown["operate"], 403, 200),
            (shown["admin"], 200, 200),
            (KEY, 200, 200),
            ("only-reads", 200, 403),
            ("only-read", 401, 401),
            (shown["read"][:-1] + "x", 401, 401),
            (shown["read"][:30], 401, 401),
            ("", 401, 401),
            ("é", 401, 401),
        ):
            for headers in ({"X-API-Key": key.encode()}, {"Authorization": b"bearer  " + (key.encode() or b"-")}):
                assert client.get("/data", headers=headers).status_code == reading, key
                assert client.post("/do", headers=headers).status_code == operating, key
        assert "latin" not in client.get("/data", headers={"X-API-Key": b"\xff"}).text


def test_a_wrong_key_is_told_also_where_reading_is_open(service: httpx.Client) -> None:
    answer = service.get("/data", headers=bearer("kasparro_0123456789ab_" + "x" * 43))
    assert answer.status_code == 401
    assert "unknown, revoked or expired" in answer.json()["detail"]


def test_expired_revoked_and_rotated_keys(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        old = create_key(connection, "old", ["read"], expires_at=datetime.now(UTC) - timedelta(seconds=1))
        gone = create_key(connection, "gone", ["read"])
        turned = create_key(connection, "desk", ["read", "operate"])
        revoke_key(connection, gone.split("_")[1])
        new = rotate_key(connection, turned.split("_")[1], timedelta(hours=1))
        ring = KeyRing(list_keys(connection))
        assert ring.find(old) is None
        assert ring.find(gone) is None
        assert (ring.find(new).name, ring.find(new).scopes) == ("desk", {"read", "operate"})
        ends = ring.find(turned).expires_at
        assert timedelta(minutes=59) < ends - datetime.now(UTC) <= timedelta(hours=1)
        for key in (old, gone):
            with pytest.raises(KasparroError, match="no active key"):
                rotate_key(connection, key.split("_")[1], timedelta(0))
        with pytest.raises(KasparroError, match="no key nothing"):
            revoke_key(connection, "nothing")
        with pytest.raises(KasparroError, match="choose from read, operate, admin"):
            create_key(connection, "x", ["write"])


def test_no_secret_is_kept_or_told(database: sa.URL, engine: sa.Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with engine.begin() as connection:
        key = create_key(connection, "desk", ["read"])
        secret = key.split("_", 2)[2]
        stored = str(connection.execute(sa.select(api_key)).all())
        assert secret not in stored
        assert secret not in str(list_keys(connection))
    with served(app_on(database, api_read="key", api_keys=SecretStr(KEY))) as client:
        answers = [client.get("/data", headers=bearer(shown)) for shown in (key, KEY, secret)]
    assert [answer.status_code for answer in answers] == [200, 200, 401]
    assert all(secret not in answer.text and KEY not in answer.text for answer in answers)
    assert secret not in caplog.text
    assert KEY not in caplog.text
    assert f"key_id={key.split('_')[1]}" in caplog.text


def test_wrong_keys_of_the_environment_are_told_without_showing_them() -> None:
    for wrong in ("hunter2:reed", ":read", "hunter2:read+"):
        with pytest.raises(KasparroError, match="KASPARRO_API_KEYS: entry 2") as told:
            given_keys(SecretStr(f"fine,{wrong}"))
        assert "hunter2" not in str(told.value)
    assert given_keys(None) == given_keys(SecretStr(" , ")) == []


def test_a_revoked_key_is_refused_within_seconds(
    database: sa.URL, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "KEYS_FRESH_S", 0.2)
    with engine.begin() as connection:
        key = create_key(connection, "desk", ["read"])
    with served(app_on(database, api_read="key")) as client:
        assert client.get("/data", headers=bearer(key)).status_code == 200
        with engine.begin() as connection:
            revoke_key(connection, key.split("_")[1])
        assert within(5, lambda: client.get("/data", headers=bearer(key)).status_code == 401)


def test_keys_are_made_on_the_command_line(database: sa.URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_command, "enter", lambda _: None)
    run = CliRunner()

    def keys(*arguments: str) -> str:
        result = run.invoke(keys_command.app, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0
        return result.stdout

    key = keys("create", "desk", "--scope", "read", "--scope", "operate", "--days", "7").strip()
    key_id = key.split("_")[1]
    (told,) = json.loads(keys("list", "--json"))
    assert (told["key_id"], told["name"], told["scopes"], told["state"]) == (
        key_id,
        "desk",
        ["operate", "read"],
        "active",
    )
    assert keys("rotate", key_id, "--overlap-hours", "0").startswith("kasparro_")
    keys("revoke", key_id)
    assert sorted(one["state"] for one in json.loads(keys("list", "--json"))) == ["active", "revoked"]
    assert key.split("_", 2)[2] not in keys("list", "--json") + keys("list")


def test_requests_a_minute_are_counted_by_key_and_by_address(database: sa.URL, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        key = create_key(connection, "desk", ["read"])
    with served(app_on(database, api_rate_per_minute=3)) as client:
        left = [client.get("/data") for _ in range(4)]
        assert [answer.status_code for answer in left] == [200, 200, 200, 429]
        assert [answer.headers["ratelimit"].split(";")[1] for answer in left] == ["r=2", "r=1", "r=0", "r=0"]
        assert left[0].headers["ratelimit-policy"] == '"minute";q=3;w=60'
        assert 1 <= int(left[3].headers["retry-after"]) <= 60
        assert left[3].json()["type"] == "urn:kasparro:problem:too-many-requests"
        assert client.get("/data", headers=bearer(key)).status_code == 200
        assert client.get("/data", headers=bearer("wrong")).status_code == 429
        assert client.get("/health").status_code == 200


def test_this_machine_alone_is_not_limited_unless_told(database: sa.URL) -> None:
    with served(app_on(database)) as client:
        assert "ratelimit" not in client.get("/data").headers
    with served(app_on(database, host="0.0.0.0", api_read="open")) as client:
        assert client.get("/data").headers["ratelimit-policy"] == '"minute";q=1200;w=60'


def test_browsers_of_named_origins_may_read(database: sa.URL) -> None:
    ask = {"Origin": "https://desk.example", "Access-Control-Request-Method": "GET"}
    with served(app_on(database, api_cors_origins="https://desk.example", api_read="key")) as client:
        answer = client.options("/data", headers=ask)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, "https://desk.example")
        other = client.options("/data", headers={**ask, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
    with served(app_on(database)) as client:
        assert "access-control-allow-origin" not in client.get("/data", headers=ask).headers


def test_the_session_reads_as_a_role_that_can_only_read(service: httpx.Client, database: sa.URL) -> None:
    app = app_on(database)

    @app.get("/tried")
    async def tried(request: gate.Request) -> list[str]:
        found = []
        async with request.state.database.connection() as connection:
            await connection.execute("SET default_transaction_read_only = off")
            found.append((await (await connection.execute("SELECT current_user")).fetchone())[0])
            for statement in ("DELETE FROM kasparro.coin", "CREATE TABLE kasparro.x ()", "SELECT 1 FROM pg_authid"):
                try:
                    await connection.execute(statement)
                except Exception as error:  # noqa: BLE001
                    found.append(type(error).__name__)
        return found

    with served(app) as client:
        assert client.get("/tried").json() == ["kasparro_reader", *["InsufficientPrivilege"] * 3]


def test_head_and_options(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified("a", date(2026, 11, 1))])
    for path in ("/data", "/v1/data?format=csv", "/health"):
        got, head = service.get(path), service.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "etag", "cache-control"):
            assert head.headers.get(name) == got.headers.get(name)
        answer = service.options(path)
        assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert service.head("/nowhere").status_code == 404


def test_answers_are_compressed_for_those_who_take_it(service: httpx.Client, engine: sa.Engine) -> None:
    insert(engine, unified_assets, [unified(f"c{i}", date(2026, 11, 1)) for i in range(20)])
    for query in ("", "?format=csv", "?format=ndjson"):
        plain = service.get(f"/data{query}", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        for coding in ("gzip", "zstd"):
            answer = service.get(f"/data{query}", headers={"Accept-Encoding": coding})
            assert answer.headers["content-encoding"] == coding
            assert "Accept-Encoding" in answer.headers["vary"]
            assert len(answer.content) >= len(plain.content) - 40  # request ids and times differ


@pytest.mark.parametrize("told", [True, False])
def test_a_body_too_large_is_refused(bare_service: httpx.Client, told: bool) -> None:
    app = app_on(sa.make_url("postgresql://nobody@127.0.0.1:1/none"), api_keys=SecretStr(KEY))

    @app.post("/echo")
    async def echo(request: gate.Request) -> int:
        return len(await request.body())

    with served(app) as client:
        for size, status in ((1 << 20, 200), ((1 << 20) + 1, 413)):
            body = b"x" * size
            content = body if told else iter([body[:1000], body[1000:]])
            answer = client.post("/echo", content=content, headers=bearer(KEY))
            assert answer.status_code == status
            assert status == 200 or answer.json()["type"] == "urn:kasparro:problem:content-too-large"

"""The explorer page, as a browser shows it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import zstandard
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pydantic import SecretStr

from kasparro_pipeline.warehouse.tables import coin, delivery, drift, quarantine, raw_payload, source_run
from kasparro_tests.api.rows import insert
from kasparro_tests.api.serving import app_on, served, within
from kasparro_tests.warehouse.market import DAY, at, observe, said, unify_days

BROWSERS = ("chromium", "chromium-browser", "google-chrome")  # `.ci/run` looks for the same
QUIET = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
QUIETER = ("--disable-component-update", "--disable-sync")
BODY = b'[{"id": "bitcoin", "current_price": 67187.3358936566}]'
SHA256 = hashlib.sha256(BODY).hexdigest()
HOSTILE = "<img src=x onerror=document.title='broken'>"
KEY = "a-key-of-the-environment"
Opened = Callable[..., Page]

DRAWN = """async () => {
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    const canvas = document.querySelector(".chart canvas");
    const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
    const style = getComputedStyle(document.documentElement);
    const rgb = (name) => {
        copy.fillStyle = style.getPropertyValue(name);
        copy.fillRect(0, 0, 1, 1);
        return copy.getImageData(0, 0, 1, 1).data;
    };
    const inks = ["--line-0", "--line-1", "--line-2", "--soft", "--edge"].map((name) => [name, rgb(name)]);
    copy.clearRect(0, 0, canvas.width, canvas.height);
    copy.drawImage(canvas, 0, 0);
    const { data } = copy.getImageData(0, 0, canvas.width, canvas.height);
    const columns = Object.fromEntries(inks.map(([name]) => [name, new Set()]));
    for (let n = 0; n < data.length; n += 4) {
        if (data[n + 3] < 90) continue;
        const far = ([, ink]) => [0, 1, 2].reduce((sum, part) => sum + (ink[part] - data[n + part]) ** 2, 0);
        const [name] = inks.reduce((best, ink) => (far(ink) < far(best) ? ink : best));
        columns[name].add((n / 4) % canvas.width);
    }
    return Object.entries(columns).filter(([name]) => name.startsWith("--line")).map(([, found]) => [...found]);
}"""
"""In which columns of the canvas each of the first three lines is seen."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        missing = "no Chromium to show the explorer page; install it (Debian: apt-get install chromium)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=[*QUIET, *QUIETER])
        yield started
        started.close()


@pytest.fixture
def opened(browser: Browser) -> Iterator[Opened]:
    """Opens the page of a service; in the end, nothing went wrong in it and it asked no other host for anything."""
    wrong: list[str] = []
    asked: set[str] = set()
    contexts = []

    def open_page(client: httpx.Client, view: str = "", may_fail: bool = False, **chosen: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **chosen})
        contexts.append((context, client))
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        if not may_fail:
            page.on("console", lambda told: wrong.append(told.text) if told.type in ("error", "warning") else None)
        page.on("request", lambda request: asked.add(httpx.URL(request.url).netloc.decode()))
        page.goto(f"{client.base_url}/{view}")
        return page

    yield open_page
    for context, _ in contexts:
        context.close()
    assert wrong == []
    assert asked == {client.base_url.netloc.decode() for _, client in contexts}


@pytest.fixture
def market(engine: sa.Engine) -> sa.Engine:
    """Two sources' days of a coin, one of another with a name that means harm, a failed run, quarantine and drift."""
    stored = {"body": zstandard.ZstdCompressor().compress(BODY), "size_bytes": len(BODY), "first_fetched_at": at()}
    insert(engine, raw_payload, [{"source": "coingecko", "sha256": SHA256, **stored}])
    place = {"source": "coingecko", "partition": str(DAY), "position": 0, "fetched_at": at("23:52"), "sha256": SHA256}
    more = {"request": "http://coingecko.example/coins?page=1", "first_record": 1, "is_last": True}
    insert(engine, delivery, [{**place, **more, "run_id": "run-f", "parse_run_id": "run-p"}])
    days = [DAY - timedelta(days=n) for n in range(4)]
    kept = {"payload_sha256": SHA256, "market_cap_usd": "1339902511093.21"}
    observe(
        engine,
        [
            *(said("coingecko", f"67187.335893656{n}", day=day, **kept) for n, day in enumerate(days)),
            *(said("csv_desk", f"6717{n}", day=day) for n, day in enumerate(days)),
            said("coingecko", "0.000000000000000001", source_coin_id="harm", symbol="harm", name=HOSTILE),
        ],
    )
    unify_days(engine, days[-1], DAY)
    with engine.begin() as connection:
        for coin_id, name in (("bitcoin", "Bitcoin"), ("harm", HOSTILE)):
            connection.execute(coin.update().where(coin.c.coin_id == coin_id).values(name=name, symbol=coin_id[:4]))
    return engine


def test_the_newest_day_is_listed_with_exact_prices_and_lines(
    market: sa.Engine, service: httpx.Client, opened: Opened
) -> None:
    page = opened(service)
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="Bitcoin"))
    expect(row).to_contain_text("67,187.3358936560")
    expect(row).to_contain_text("1,339,902,511,093.21")
    expect(row.get_by_role("img", name="down since 2026-11-07")).to_be_visible()
    harm = page.get_by_role("row").filter(has=page.get_by_role("link", name=HOSTILE))
    expect(harm).to_contain_text("0.000000000000000001")
    assert page.title() == "Kasparro"
    assert page.locator("#latest img").count() == 0
    assert page.get_by_role("link", name="Dagster UI").get_attribute("href") == "http://127.0.0.1:3000"
    assert page.get_by_role("link", name="API documentation").get_attribute("href") == "docs"


def test_a_coin_is_found_drawn_and_traced_to_its_bytes_by_keyboard(
    market: sa.Engine, service: httpx.Client, opened: Opened
) -> None:
    page = opened(service)
    page.get_by_label("Find a coin").focus()
    page.keyboard.type("bitc")
    expect(page.get_by_text("1 coin found")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Bitcoin", exact=False).first).to_be_focused()
    expect(page.locator(".legend")).to_have_text("unifiedcoingeckocsv_desk")
    lines = page.evaluate(DRAWN)
    assert all(max(line) - min(line) > 900 for line in lines)  # of 1,100, less what the axis takes
    assert all(len(line) > max(line) - min(line) for line in lines)  # without a hole
    page.get_by_role("group", name="Price of Bitcoin in USD").focus()
    page.keyboard.press("Home")
    expect(page.locator(".readout")).to_have_text(
        "2026-11-07 · unified 67,187.3358936563 · coingecko 67,187.3358936563 · csv_desk 67,173"
    )
    page.get_by_text("Figures as a table").click()
    figures = page.get_by_role("table", name="Prices in USD by day")
    expect(figures.get_by_role("row")).to_have_count(5)

    figures.get_by_role("link", name=f"Lineage of {DAY}").click()
    expect(page.get_by_role("heading", name=f"Lineage of Bitcoin, {DAY}")).to_be_focused()
    verdicts = page.get_by_role("row", name="price_usd")
    expect(verdicts).to_contain_text("67,187.3358936560 chosen")
    expect(verdicts).to_contain_text("67,170 another source comes first")
    expect(page.get_by_role("cell", name="http://coingecko.example/coins?page=1")).to_be_visible()
    expect(page.get_by_role("link", name="run-f")).to_have_attribute("href", "http://127.0.0.1:3000/runs/run-f")
    with page.expect_download() as download:
        page.get_by_role("link", name=f"Payload {SHA256}").first.click()
    assert download.value.path().read_bytes() == BODY


def test_sources_quarantine_and_drift_are_told(market: sa.Engine, service: httpx.Client, opened: Opened) -> None:
    run = {"run_id": "r", "asset_key": "csv_desk/raw", "partition": "a.csv", "source": "csv_desk", "status": "failure"}
    insert(market, source_run, [{**run, "started_at": at(), "ended_at": at("23:51"), "error": "a.csv: binary_file"}])
    record = {"source": "csv_desk", "payload_sha256": SHA256, "location": "a.csv:17", "reason_code": "bad_number"}
    told = {"reason": "price_usd: no number", "record": "x", "parser_version": "1"}
    insert(market, quarantine, [{**record, **told, "position": n} for n in (1, 2)])
    seen = {"scope": "", "kind": "missing", "first_seen": at(), "last_seen": at(), "payload_sha256": SHA256}
    gone = {"source": "coingecko", "severity": "error", "detail": "gone", **seen}
    closed = {**gone, "path": "cap", "resolved_at": at()}  # it is there again, and nobody's concern
    insert(market, drift, [{**gone, "path": "price", "resolved_at": None}, closed])
    page = opened(service)
    expect(page.get_by_role("row", name="csv_desk")).to_contain_text("failed: a.csv: binary_file")
    expect(page.get_by_role("status").filter(has_text="degraded")).to_be_visible()
    expect(page.get_by_text("2 records in quarantine")).to_be_visible()
    expect(page.get_by_text("newest: csv_desk, a.csv:17: price_usd: no number")).to_be_visible()
    expect(page.get_by_text("1 change in key fields")).to_be_visible()


def test_nothing_loaded_and_nothing_found_are_said(service: httpx.Client, opened: Opened) -> None:
    page = opened(service)
    expect(page.get_by_text("There are no rows yet")).to_be_visible()
    page.get_by_label("Find a coin").fill("nothing of that name")
    expect(page.get_by_text("No coins found")).to_be_visible()


def test_an_outage_is_told_in_words(bare_service: httpx.Client, opened: Opened) -> None:
    page = opened(bare_service, may_fail=True)  # Chromium logs every 503
    expect(page.get_by_text("no database")).to_be_visible()
    told = page.locator("#latest").get_by_role("alert")
    expect(told).to_have_text("PostgreSQL does not answer; see `kasparro status`", timeout=15_000)


def test_a_key_is_asked_for_kept_in_the_tab_and_sent_in_the_header(
    market: sa.Engine, database: sa.URL, opened: Opened
) -> None:
    with served(app_on(database, api_read="key", api_keys=SecretStr(KEY))) as client:
        page = opened(client, f"#/coin/bitcoin/{DAY}", may_fail=True)  # Chromium logs every 401
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url))
        field = page.get_by_label("API key")
        for given in ("wrong", KEY):
            expect(field).to_be_visible()
            field.fill(given)
            page.keyboard.press("Enter")
            if given == "wrong":
                expect(page.get_by_text("The key was not taken")).to_be_visible()
        expect(page.get_by_role("heading", name=f"Lineage of Bitcoin, {DAY}")).to_be_visible()
        expect(field).to_be_hidden()
        with page.expect_download() as download:
            page.get_by_role("link", name=f"Payload {SHA256}").first.click()
        assert download.value.path().read_bytes() == BODY
        assert not any(KEY in url for url in sent)
        assert page.evaluate("Object.values(localStorage).length + document.cookie.length") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("view", ["", "#/coin/bitcoin", f"#/coin/bitcoin/{DAY}"])
def test_it_fits_a_phone_and_both_schemes(
    market: sa.Engine, service: httpx.Client, opened: Opened, view: str, scheme: str
) -> None:
    page = opened(service, view, viewport={"width": 375, "height": 800}, color_scheme=scheme)
    expect(page.get_by_text("records in quarantine")).to_be_visible()
    expect(page.locator("[aria-busy]")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) == (scheme == "dark")


SILENT = """async () => {
    const { chart } = await import("/explorer/chart.js");
    const rows = ["2026-01-01", "2026-01-15", "2026-03-01", "2026-03-02"].map((day) => ({ day, value: "1.5" }));
    rows.push({ day: "2026-03-20", value: null });
    document.getElementById("main").append(chart("A coin", [{ name: "unified", rows }]));
}"""


def test_a_line_breaks_at_a_long_silence_and_nowhere_else(bare_service: httpx.Client, opened: Opened) -> None:
    page = opened(bare_service, may_fail=True)
    page.evaluate(SILENT)
    line, *_ = page.evaluate(DRAWN)
    columns = sorted(line)
    holes = [(before, after) for before, after in pairwise(columns) if after - before > 1]
    ((before, after),) = holes  # of 60 days the line is there on the first 14, and on the last
    assert (before - columns[0]) / (columns[-1] - columns[0]) == pytest.approx(14 / 60, abs=0.02)
    assert (columns[-1] - after) / (columns[-1] - columns[0]) == pytest.approx(1 / 60, abs=0.02)


def test_the_chart_follows_width_and_scheme(market: sa.Engine, service: httpx.Client, opened: Opened) -> None:
    page = opened(service, "#/coin/bitcoin", color_scheme="light")
    canvas = page.locator(".chart canvas")
    expect(canvas).to_be_visible()
    assert all(page.evaluate(DRAWN))
    page.emulate_media(color_scheme="dark")
    assert all(page.evaluate(DRAWN))  # in the other scheme's colours
    page.set_viewport_size({"width": 375, "height": 800})
    assert within(5, lambda: canvas.evaluate("drawn => drawn.clientWidth") < 375)
    assert all(page.evaluate(DRAWN))
    page.get_by_role("link", name="All coins").click()
    expect(canvas).to_have_count(0)


@pytest.mark.parametrize("path", ["/", "/v1/", "/explorer/explorer.js", "/explorer/uplot/uPlot.min.css"])
def test_its_files_are_kept_by_browsers_and_run_nothing_else(bare_service: httpx.Client, path: str) -> None:
    answer = bare_service.get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-cache"
    again = bare_service.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])


@pytest.mark.parametrize(
    ("host", "told"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]"), ("0.0.0.0", None), ("api.example", "api.example")]
)
def test_it_knows_where_dagster_is(host: str, told: str | None) -> None:
    nowhere = sa.make_url("postgresql://nobody@127.0.0.1:1/none")
    with served(app_on(nowhere, host=host, dagster_port=3999)) as client:
        answer = client.get("/explorer/places.json", headers={"Host": "evil.example"})
    assert answer.json() == {"dagster": {"host": told, "port": 3999}}

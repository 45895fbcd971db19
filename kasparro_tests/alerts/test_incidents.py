"""What an incident is, that each is told once and its end once, and that no message is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from kasparro_pipeline.alerts.channels import message_of
from kasparro_pipeline.alerts.incidents import FailedRun, Incident, Watched, standing
from kasparro_pipeline.alerts.record import News, open_incidents, take_note, tell
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.warehouse.calls import CallLedger
from kasparro_pipeline.warehouse.tables import (
    checkpoint,
    delivery,
    drift,
    failed_check,
    incident,
    incident_notice,
    last_sweep,
    source_run,
)
from kasparro_tests.warehouse.payloads import keep_payloads

NOW = datetime.now(UTC)
AWAY = Incident("run_failed", "coingecko", "coingecko: away", "run-1")
LATE = Incident("late", "coinpaprika", "coinpaprika: nothing fetched")


def found(
    engine: sa.Engine, watched: list[Watched] | None = None, failed: list[FailedRun] | None = None
) -> list[tuple[str, str]]:
    with engine.connect() as connection:
        return [(one.kind, one.subject) for one in standing(connection, watched or [], failed or [])]


def put(engine: sa.Engine, table: sa.Table, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(sa.insert(table).values(**values))


def parsed(engine: sa.Engine, run: str, at: datetime, records: int, quarantined: int) -> None:
    """A delivery of a vendor that was parsed."""
    with engine.begin() as connection:
        payload = {"source": "vendor", "sha256": run, "body": b"", "size_bytes": 0, "first_fetched_at": at}
        keep_payloads(connection, [payload])
        connection.execute(
            sa.insert(delivery).values(
                {"source": "vendor", "sha256": run, "partition": "p", "position": 0, "fetched_at": at, "request": "r"}
                | {"first_record": 1, "is_last": True, "parsed_at": at, "parse_run_id": run, "parser_version": "1"}
                | {"records": records, "quarantined": quarantined}
            )
        )


def test_nothing_is_wrong_with_an_empty_warehouse(engine: sa.Engine) -> None:
    ledger = CallLedger(lambda: engine, "coingecko", per_day=1)
    assert found(engine, [Watched("coingecko", timedelta(hours=2), ledger)]) == []


def test_a_failed_run_tells_what_its_source_said(engine: sa.Engine) -> None:
    put(engine, source_run, run_id="r", asset_key="a", source="s", partition="p", status="failure", error="401")
    with engine.connect() as connection:
        (one,) = standing(connection, [], [FailedRun("s", "r")])
    assert one == Incident("run_failed", "s", "s: the run failed: 401", "r")


def test_a_source_is_late_once_its_newest_whole_sweep_is_too_old(engine: sa.Engine) -> None:
    put(engine, last_sweep, source="coingecko", asked="", coins=[], finished_at=NOW - timedelta(hours=3))
    assert found(engine, [Watched("coingecko", timedelta(hours=4))]) == []
    assert found(engine, [Watched("coingecko", timedelta(hours=2))]) == [("late", "coingecko")]


def test_checks_that_block_or_are_errors_count_and_warnings_do_not(engine: sa.Engine) -> None:
    for name, severity, blocking in (("a", "error", False), ("b", "warning", True), ("c", "warning", False)):
        for day in (NOW.date(), NOW.date() - timedelta(days=1)):
            row = {"asset_key": "coins", "check_name": name, "day": day, "severity": severity}
            put(engine, failed_check, **row, blocking=blocking, detail="2 rows")
    assert found(engine) == [("check_failed", "coins a"), ("check_failed", "coins b")]


def test_drift_of_a_key_field_counts_until_it_is_resolved(engine: sa.Engine) -> None:
    for path, severity, resolved in (("price", "error", None), ("rank", "warn", None), ("id", "error", NOW)):
        row = {"source": "s", "scope": "", "path": path, "kind": "missing", "detail": f"{path} is missing"}
        seen = {"first_seen": NOW, "last_seen": NOW, "payload_sha256": "x", "resolved_at": resolved}
        put(engine, drift, **row, **seen, severity=severity)
    with engine.connect() as connection:
        (one,) = standing(connection, [], [])
    assert (one.kind, one.subject, one.summary) == ("drift", "s", "s: price is missing")


def test_a_spent_budget_counts(engine: sa.Engine) -> None:
    ledger = CallLedger(lambda: engine, "coingecko", per_day=1)
    ledger.count()
    assert found(engine, [Watched("coingecko", timedelta(hours=2), ledger)]) == [("budget_spent", "coingecko")]


@pytest.mark.parametrize(
    ("before", "now", "grown"),
    [
        ((1000, 0), (1000, 9), False),  # few
        ((1000, 0), (1000, 30), True),
        ((1000, 30), (1000, 40), False),  # as ever
        ((1000, 30), (1000, 70), True),
        ((100_000, 0), (100_000, 500), False),  # a small share
        (None, (100, 50), True),
    ],
)
def test_quarantine_has_grown_against_the_runs_before(engine: sa.Engine, before, now, grown) -> None:
    put(engine, checkpoint, source="vendor", partition="p", cursor={}, complete=True)
    if before:
        parsed(engine, "run-1", NOW - timedelta(hours=1), *before)
    parsed(engine, "run-2", NOW, *now)
    assert found(engine) == ([("quarantine_grown", "vendor")] if grown else [])


class Told:
    """A channel whose messages are kept; `broken` ones are not taken."""

    def __init__(self, engine: sa.Engine, name: str = "webhook") -> None:
        self.engine = engine
        self.name = name
        self.broken = False
        self.messages: list[list[tuple[str, str]]] = []
        self.ids: list[int] = []

    def __call__(self, *incidents: Incident) -> str | None:
        """What the sensor does, with these incidents standing."""
        with self.engine.begin() as connection:
            take_note(connection, incidents, [self.name])
        with self.engine.begin() as connection:
            return tell(connection, self.name, self._send)

    def _send(self, news: list[News]) -> None:
        if self.broken:
            raise KasparroError("it answered 500")
        self.messages.append([(one.news, one.subject) for one in news])
        self.ids += [one.id for one in news]


@pytest.fixture
def told(engine: sa.Engine) -> Told:
    return Told(engine)


def test_an_incident_is_told_once_and_its_end_once(told: Told) -> None:
    for _ in range(3):
        told(AWAY)
    for _ in range(3):
        told()
    assert told.messages == [[("opened", "coingecko")], [("recovered", "coingecko")]]
    assert len(set(told.ids)) == 1
    told(AWAY)
    assert told.messages[2:] == [[("opened", "coingecko")]]
    assert len(set(told.ids)) == 2  # another incident


def test_what_opens_together_is_one_message(told: Told) -> None:
    told(AWAY, LATE)
    assert [sorted(message) for message in told.messages] == [[("opened", "coingecko"), ("opened", "coinpaprika")]]
    told(LATE)
    assert told.messages[1:] == [[("recovered", "coingecko")]]


def test_what_could_not_be_delivered_is_told_later_with_its_end(told: Told, engine: sa.Engine) -> None:
    told.broken = True
    assert told(AWAY) == "webhook: it answered 500; trying again in 0:00:30"
    assert told(AWAY) is None  # not before its time
    told.broken = False
    told()  # over meanwhile
    assert told.messages == []
    for _ in range(2):
        due(engine)
        told()
    assert told.messages == [[("opened", "coingecko"), ("recovered", "coingecko")]]


def test_waits_between_tries_grow_to_an_hour(told: Told, engine: sa.Engine) -> None:
    told.broken = True
    said = []
    for _ in range(9):
        said.append(told(AWAY).rpartition(" ")[2])
        due(engine)
    assert said == ["0:00:30", "0:01:00", "0:02:00", "0:04:00", "0:08:00", "0:16:00", "0:32:00", "1:00:00", "1:00:00"]


def test_a_crash_after_sending_sends_again_with_the_same_id(told: Told, engine: sa.Engine) -> None:
    with engine.begin() as connection:
        take_note(connection, [AWAY], ["webhook"])
    with pytest.raises(ZeroDivisionError), engine.begin() as connection:
        tell(connection, "webhook", told._send)
        raise ZeroDivisionError
    told(AWAY)
    assert len(told.ids) == 2
    assert len(set(told.ids)) == 1


def test_two_that_look_at_once_open_one_incident_and_tell_it_once(told: Told, engine: sa.Engine) -> None:
    with engine.begin() as one, engine.begin() as other:
        take_note(one, [AWAY], ["webhook"])
        one.commit()
        take_note(other, [AWAY], ["webhook"])
    with engine.begin() as one, engine.begin() as other:
        tell(one, "webhook", told._send)
        tell(other, "webhook", told._send)
    assert told.messages == [[("opened", "coingecko")]]
    duplicate = {"kind": AWAY.kind, "subject": AWAY.subject, "summary": "again"}
    with pytest.raises(sa.exc.IntegrityError, match="incident_open"):
        put(engine, incident, **duplicate)


def test_a_new_channel_is_told_of_what_is_open_and_of_no_old_recovery(told: Told, engine: sa.Engine) -> None:
    told(AWAY)
    told(LATE)
    mail = Told(engine, "email")
    mail(LATE)
    mail()
    assert mail.messages == [[("opened", "coinpaprika")], [("recovered", "coinpaprika")]]
    with engine.connect() as connection:
        assert open_incidents(connection) == []


def test_a_message_names_what_how_long_and_where_to_look(told: Told, engine: sa.Engine) -> None:
    opened = NOW - timedelta(minutes=90)
    news = [
        News(7, "opened", "late", "a", "a: nothing\nfetched", None, opened, None),
        News(6, "recovered", "run_failed", "b", "b: 503", "r-1", opened, NOW),
    ]
    message = message_of(news, "https://dagster.test/")
    assert message.text.splitlines() == [
        "Kasparro: 1 incident, 1 recovered",
        "#7 OPENED a: nothing fetched https://dagster.test/asset-groups",
        "#6 RECOVERED b: 503 (open for 1:30:00) https://dagster.test/runs/r-1",
    ]
    assert message_of(news[1:], "").subject == "Kasparro: recovered: b: 503"
    many = message_of(news * 20, "")
    assert many.lines[-1] == "… and 20 more: kasparro alerts list"
    assert len(many.incidents) == 40


def due(engine: sa.Engine) -> None:
    """Let the time of the next try come."""
    with engine.begin() as connection:
        connection.execute(sa.update(incident_notice).values(next_try_at=NOW - timedelta(seconds=1)))

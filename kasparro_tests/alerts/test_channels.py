"""Webhook and mail over real sockets: what arrives, what is said when it does not, and that no secret is."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kasparro_pipeline.alerts.channels import Message, channels
from kasparro_pipeline.cli.main import app
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.settings import Settings, settings
from kasparro_tests.alerts.receivers import SECRET, running_hook, running_mail_server

MESSAGE = Message("Kasparro: a <b> & c", ("#1 OPENED one", "#2 OPENED Ünïcode"), ({"id": 1}, {"id": 2}))
CLOSED = "127.0.0.1:1"


def chosen(**values: str) -> Settings:
    return Settings(home=Path("/nowhere"), **values)


def test_without_a_setting_there_is_no_channel() -> None:
    assert channels(chosen()) == []


def test_the_webhook_gets_text_as_slack_takes_it_and_fields(caplog) -> None:
    caplog.set_level(logging.DEBUG, "httpx")
    caplog.set_level(logging.DEBUG, "httpcore")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # as it is outside of tests
    with running_hook() as hook:
        (webhook,) = channels(chosen(alert_webhook_url=hook.url))
        webhook.send(MESSAGE)
        assert hook.posts == [
            {
                "text": "Kasparro: a &lt;b&gt; &amp; c\n#1 OPENED one\n#2 OPENED Ünïcode",
                "incidents": [{"id": 1}, {"id": 2}],
            }
        ]
        hook.status = 404
        with pytest.raises(KasparroError, match=r"it answered 404; check KASPARRO_ALERT_WEBHOOK_URL$"):
            webhook.send(MESSAGE)
    with pytest.raises(KasparroError, match=r"cannot be reached \(ConnectError\)"):
        webhook.send(MESSAGE)
    assert SECRET not in caplog.text


@pytest.mark.parametrize("url", [f"ftp://h/{SECRET}", SECRET, f"http://[{SECRET}"])
def test_a_wrong_webhook_is_told_without_the_url(url: str) -> None:
    with pytest.raises(KasparroError, match="KASPARRO_ALERT_WEBHOOK_URL") as told:
        channels(chosen(alert_webhook_url=url))[0].send(MESSAGE)
    assert SECRET not in str(told.value)


def test_mail_goes_to_all_recipients_with_the_senders_name_and_password() -> None:
    with running_mail_server() as server:
        url = f"smtp://bot%40kasparro.test:{SECRET}@127.0.0.1:{server.port}"
        (email,) = channels(chosen(smtp_url=url, alert_email_to="a@x.test, b@x.test"))
        email.send(MESSAGE)
        (mail,) = server.mails
    assert mail["Subject"] == MESSAGE.subject
    assert (mail["From"], mail["To"]) == ("bot@kasparro.test", "a@x.test, b@x.test")
    assert mail.get_content().splitlines() == list(MESSAGE.lines)
    login = base64.b64encode(f"\0bot@kasparro.test\0{SECRET}".encode()).decode()
    assert ("AUTH", f"PLAIN {login}") in server.said
    assert [said for verb, said in server.said if verb == "RCPT"] == ["TO:<a@x.test>", "TO:<b@x.test>"]


def test_a_password_does_not_travel_in_the_open() -> None:
    with running_mail_server() as server:
        url = f"smtp://bot:{SECRET}@0.0.0.0:{server.port}"  # reaches us, and is not told to be this machine
        (email,) = channels(chosen(smtp_url=url, alert_email_to="a@x.test", alert_email_from="k@x.test"))
        with pytest.raises(KasparroError, match="offers no STARTTLS"):
            email.send(MESSAGE)
        assert "AUTH" not in dict(server.said)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"alert_email_to": "a@x.test"}, "KASPARRO_ALERT_EMAIL_TO is set without KASPARRO_SMTP_URL; set both"),
        ({"alert_email_to": "a@x.test", "smtp_url": f"http://{SECRET}@h"}, "KASPARRO_SMTP_URL is not of the form"),
        ({"alert_email_to": "a@x.test", "smtp_url": f"smtp://{SECRET}@h:x"}, "KASPARRO_SMTP_URL is not of the form"),
        ({"alert_email_to": "a@x.test", "smtp_url": f"smtp://b:{SECRET}@{CLOSED}"}, "check KASPARRO_SMTP_URL"),
    ],
)
def test_what_is_wrong_with_mail_is_one_line_without_a_secret(values: dict[str, str], said: str) -> None:
    with pytest.raises(KasparroError, match=said.replace("(", r"\(")) as told:
        channels(chosen(**values))[0].send(MESSAGE)
    assert SECRET not in str(told.value)
    assert "\n" not in str(told.value)


def test_alerts_test_sends_and_names_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner()
    with running_hook() as hook:
        monkeypatch.setenv("KASPARRO_ALERT_WEBHOOK_URL", hook.url)
        settings.cache_clear()
        done = run.invoke(app, ["alerts", "test"])
        assert (done.exit_code, "webhook: sent" in done.output, len(hook.posts)) == (0, True, 1)
        monkeypatch.setenv("KASPARRO_ALERT_EMAIL_TO", "a@x.test")
        monkeypatch.setenv("KASPARRO_SMTP_URL", f"smtp://{CLOSED}")
        settings.cache_clear()
        done = run.invoke(app, ["alerts", "test"])
        assert len(hook.posts) == 2  # the other one does not stop it
    assert str(done.exception).startswith("email: it cannot be sent (")
    assert SECRET not in done.output
    for name in ("ALERT_WEBHOOK_URL", "ALERT_EMAIL_TO", "SMTP_URL"):
        monkeypatch.delenv(f"KASPARRO_{name}")
    settings.cache_clear()
    assert "no channel is set" in str(run.invoke(app, ["alerts", "test"]).exception)
    settings.cache_clear()

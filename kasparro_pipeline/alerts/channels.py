"""The ways by which people are told: a webhook that Slack's are like, and e-mail.

What belongs here: what a message says and how it is delivered. What does not: what there is to say.
"""

from __future__ import annotations

import logging
import smtplib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from ipaddress import ip_address
from typing import Any, Protocol
from urllib.parse import quote, unquote, urlsplit

import httpx

from kasparro_pipeline.alerts.record import News
from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.settings import Settings

TIMEOUT_SECONDS = 10
SHOWN = 20
"""News that a message spells out; of the rest it says how many there are."""

# httpx logs the URL of every request, which for a webhook is a secret.
logging.getLogger("httpx").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Message:
    """What is told at once."""

    subject: str
    """One line."""
    lines: tuple[str, ...]
    incidents: tuple[dict[str, Any], ...] = ()
    """For programs."""

    @property
    def text(self) -> str:
        """All of it, for people."""
        return "\n".join((self.subject, *self.lines))


class Channel(Protocol):
    """Delivers messages."""

    @property
    def name(self) -> str:
        """What it is called where it is noted what it was told."""

    def send(self, message: Message) -> None:
        """Deliver `message`.

        Raises:
            KasparroError: it was not taken; says why without a secret.
        """


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that takes JSON: ``text`` as Slack, Mattermost and others show it, and ``incidents`` for programs."""

    url: str
    name: str = "webhook"

    def send(self, message: Message) -> None:
        """POST the message; redirects are not followed."""
        # https://docs.slack.dev/messaging/formatting-message-text#escaping
        text = message.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        try:
            answer = httpx.post(self.url, json={"text": text, "incidents": message.incidents}, timeout=TIMEOUT_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise KasparroError(
                f"it cannot be reached ({type(error).__name__}); check the network and KASPARRO_ALERT_WEBHOOK_URL"
            ) from None
        if not answer.is_success:
            raise KasparroError(f"it answered {answer.status_code}; check KASPARRO_ALERT_WEBHOOK_URL")


@dataclass(frozen=True, slots=True)
class Email:
    """Mail through one SMTP server."""

    smtp_url: str
    sender: str
    recipients: tuple[str, ...]
    name: str = "email"

    def send(self, message: Message) -> None:
        """Mail the message to all recipients at once."""
        mail = EmailMessage()
        mail["Subject"] = message.subject
        mail["From"] = self.sender
        mail["To"] = ", ".join(self.recipients)
        mail["Date"] = formatdate()
        mail["Message-ID"] = make_msgid(domain="kasparro")
        mail.set_content("\n".join(message.lines) + "\n")
        try:
            self._send(mail)
        except smtplib.SMTPResponseException as error:
            raise KasparroError(f"the server answered {error.smtp_code}; check KASPARRO_SMTP_URL") from None
        except smtplib.SMTPRecipientsRefused as error:
            refused = ", ".join(error.recipients)
            raise KasparroError(f"the server refuses {refused}; check KASPARRO_ALERT_EMAIL_TO") from None
        except (smtplib.SMTPException, OSError) as error:
            raise KasparroError(f"it cannot be sent ({error}); check KASPARRO_SMTP_URL") from None

    def _send(self, mail: EmailMessage) -> None:
        url = urlsplit(self.smtp_url)
        host, context = url.hostname or "", ssl.create_default_context()
        if url.scheme == "smtps":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, url.port or 465, timeout=TIMEOUT_SECONDS, context=context)
        else:
            server = smtplib.SMTP(host, url.port or 587, timeout=TIMEOUT_SECONDS)
        with server:
            server.ehlo()
            if url.scheme == "smtp" and server.has_extn("starttls"):
                server.starttls(context=context)
                server.ehlo()
            elif url.scheme == "smtp" and url.username and not _is_this_machine(host):
                raise smtplib.SMTPException("the server offers no STARTTLS, and a password does not travel in the open")
            if url.username:
                server.login(unquote(url.username), unquote(url.password or ""))
            server.send_message(mail)


def channels(settings: Settings) -> list[Channel]:
    """The channels that are set.

    Raises:
        KasparroError: a setting is wrong or lacks its other half.
    """
    found: list[Channel] = []
    if settings.alert_webhook_url is not None:
        url = settings.alert_webhook_url.get_secret_value()
        if not url.startswith(("https://", "http://")):
            raise KasparroError("KASPARRO_ALERT_WEBHOOK_URL is no http(s):// address")
        found.append(Webhook(url))
    recipients = tuple(filter(None, map(str.strip, settings.alert_email_to.split(","))))
    if recipients:
        if settings.smtp_url is None:
            raise KasparroError("KASPARRO_ALERT_EMAIL_TO is set without KASPARRO_SMTP_URL; set both")
        smtp_url = settings.smtp_url.get_secret_value()
        user = _smtp_user(smtp_url)
        sender = settings.alert_email_from or (user if "@" in user else f"kasparro@{socket.getfqdn()}")
        found.append(Email(smtp_url, sender, recipients))
    return found


def _smtp_user(smtp_url: str) -> str:
    try:
        url = urlsplit(smtp_url)
        if url.scheme in ("smtp", "smtps") and url.hostname and url.port != 0:
            return unquote(url.username or "")
    except ValueError:
        pass  # said below, without the URL
    raise KasparroError("KASPARRO_SMTP_URL is not of the form smtp(s)://[USER:PASSWORD@]HOST[:PORT]")


def message_of(news: Sequence[News], dagster_url: str) -> Message:
    """What these news are told as; `dagster_url` is where people reach the Dagster UI."""
    opened = sum(one.news == "opened" for one in news)
    counted = ((opened, "incident" if opened == 1 else "incidents"), (len(news) - opened, "recovered"))
    subject = "Kasparro: " + ", ".join(f"{count} {what}" for count, what in counted if count)
    if len(news) == 1:
        subject = f"Kasparro: {'recovered: ' if news[0].news == 'recovered' else ''}{_one_line(news[0].summary)}"
    lines = [_line(one, dagster_url) for one in news[:SHOWN]]
    if len(news) > SHOWN:
        lines.append(f"… and {len(news) - SHOWN} more: kasparro alerts list")
    return Message(subject[:250], tuple(lines), tuple(_fields(one, dagster_url) for one in news))


def _line(news: News, dagster_url: str) -> str:
    link = _link(news, dagster_url)
    words = [f"#{news.id}", "RECOVERED" if news.news == "recovered" else "OPENED", _one_line(news.summary)]
    if news.resolved_at is not None:
        words.append(f"(open for {str(news.resolved_at - news.opened_at).partition('.')[0]})")
    return " ".join([*words, *([link] if link else [])])


def _fields(news: News, dagster_url: str) -> dict[str, Any]:
    return {
        "id": news.id,
        "state": news.news,
        "kind": news.kind,
        "subject": news.subject,
        "summary": news.summary,
        "opened_at": news.opened_at.isoformat(),
        "resolved_at": news.resolved_at.isoformat() if news.resolved_at else None,
        "url": _link(news, dagster_url),
    }


def _link(news: News, dagster_url: str) -> str:
    """The run that shows it, else the sources' assets."""
    path = f"runs/{quote(news.run_id)}" if news.run_id else "asset-groups"
    return f"{dagster_url.rstrip('/')}/{path}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

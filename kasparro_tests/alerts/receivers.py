"""What takes alerts, on free ports of this machine: a webhook and a mail server."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "T000-very-secret"


@dataclass
class Hook:
    url: str
    status: int = 200
    posts: list[dict[str, Any]] = field(default_factory=list)

    def texts(self) -> list[str]:
        return [post["text"] for post in self.posts]


@contextmanager
def running_hook() -> Iterator[Hook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if hook.status == 200:
                hook.posts.append(json.loads(body))
            self.send_response(hook.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook = Hook(f"http://127.0.0.1:{server.server_address[1]}/services/{SECRET}")
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield hook
        server.shutdown()


@dataclass
class MailServer:
    port: int
    """It offers no STARTTLS."""
    said: list[tuple[str, str]] = field(default_factory=list)
    """Each command and its arguments."""
    mails: list[EmailMessage] = field(default_factory=list)


@contextmanager
def running_mail_server() -> Iterator[MailServer]:
    answers = {
        b"EHLO": "250-mail.test\r\n250 AUTH PLAIN",
        b"AUTH": "235 welcome",
        b"DATA": "354 go on",
        b"QUIT": "221 bye",
    }

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            self.say("220 mail.test")
            for line in self.rfile:
                verb, _, rest = line.strip().partition(b" ")
                mail_server.said.append((verb.upper().decode(), rest.decode()))
                self.say(answers.get(verb.upper(), "250 fine"))
                if verb.upper() == b"DATA":
                    mail_server.mails.append(self.mail())
                    self.say("250 taken")

        def mail(self) -> EmailMessage:
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                lines.append(line)
            return message_from_bytes(b"".join(lines), policy=policy.default)

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        mail_server = MailServer(server.server_address[1])
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield mail_server
        server.shutdown()

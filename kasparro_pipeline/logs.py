"""Log lines of every process: text for people, or one JSON object a line for machines (``KASPARRO_LOG_FORMAT``).

What belongs here: what a line looks like. What does not: what is logged, and how Dagster is made to log it so
(`dagster_logs`).
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from kasparro_pipeline.settings import settings


class JsonLines(logging.Formatter):
    """One JSON object a line; what a record holds under `fields` and `context` stands beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
            **getattr(record, "context", {}),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


class TextLines(logging.Formatter):
    """A line for people; what a record holds under `context`, such as its run, stands before the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line without what follows of an exception."""
        if context := getattr(record, "context", {}):
            record.message = f"[{' '.join(f'{name}={value}' for name, value in context.items())}] {record.message}"
        return super().formatMessage(record)


def formatter() -> logging.Formatter:
    """What makes lines of the form that the settings choose."""
    return JsonLines() if settings().log_format == "json" else TextLines()


def configure() -> None:
    """Send this process' log to stderr, in the form that the settings choose."""
    # found out anew for every record, and shown by none of the formats
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # nor the place in the code (logging, "Optimization")
    handler = logging.StreamHandler()
    handler.setFormatter(formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # told once a request by ourselves

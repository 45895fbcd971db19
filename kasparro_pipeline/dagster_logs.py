"""Dagster's log lines in our form (`logs`), with run, source and partition in each.

Dagster has no setting for it: a run that the UI, a schedule or a sensor starts takes neither the loggers of the
definitions nor, in the place of its console, a handler of dagster.yaml. But all its processes format by `coloredlogs`,
the webserver by `uvicorn`, too; what their formatters do is exchanged here, in every process that has an instance.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Mapping
from typing import Any

import coloredlogs
from stamina.instrumentation import LoggingOnRetryHook, set_on_retry_hooks

from kasparro_pipeline.logs import formatter
from kasparro_pipeline.ranges import RANGE_END, RANGE_START, SOURCE_TAG
from kasparro_pipeline.settings import settings

_PARTITION_TAG = "dagster/partition"


def log_alike() -> None:
    """From now on Dagster writes our lines in this process, and so do the libraries that it does not listen to."""
    ours = formatter()
    set_on_retry_hooks([LoggingOnRetryHook])  # else by structlog, which comes with Dagster
    if (rest := logging.lastResort) is not None:
        rest.setFormatter(ours)
        rest.addFilter(_is_unwritten)
        root = logging.getLogger()
        if not root.handlers:  # else logging.warning(), which Dagster calls, makes one that writes every line again
            root.addHandler(rest)
    logging.captureWarnings(capture=settings().log_format == "json")

    def line(_theirs: logging.Formatter, record: logging.LogRecord) -> str:
        return ours.format(_with_context(record))

    theirs = [coloredlogs.BasicFormatter, coloredlogs.ColoredFormatter]
    if uvicorn := sys.modules.get("uvicorn.logging"):
        theirs.append(uvicorn.ColourizedFormatter)
    for one in theirs:
        one.format = line


def _is_unwritten(record: logging.LogRecord) -> bool:
    """Whether no logger on the way to the root has a handler that has written it."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger.parent is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return False
        logger = logger.parent
    return True


def _with_context(record: logging.LogRecord) -> logging.LogRecord:
    """A record of a run as it was logged, and of what it is; any other one as it is."""
    metadata = getattr(record, "dagster_meta", None)
    if metadata is None:
        return record
    told = copy.copy(record)
    error = getattr(getattr(metadata["dagster_event"], "event_specific_data", None), "error", None)
    message = metadata["orig_message"] or ""
    told.msg, told.args = (f"{message}\n{error.to_string()}" if error else message), ()
    told.context = _context(metadata)
    return told


def _context(metadata: Mapping[str, Any]) -> dict[str, str]:
    tags, step, event = metadata["job_tags"] or {}, metadata["step_key"], metadata["dagster_event"]
    first, last = tags.get(RANGE_START), tags.get(RANGE_END)
    found = {
        "run_id": metadata["run_id"],
        "job": metadata["job_name"],
        "source": step.partition("__")[0] if step and "__" in step else tags.get(SOURCE_TAG),
        "partition": tags.get(_PARTITION_TAG) or (first if first == last else f"{first}...{last}"),
        "step": step,
        "event": event.event_type_value if event else None,
    }
    return {name: value for name, value in found.items() if value}

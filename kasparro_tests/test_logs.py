"""Log lines of Dagster's runs, as this process writes them after `log_alike`."""

import json
import os
import subprocess
import sys

import coloredlogs
import dagster as dg
import pytest

from kasparro_pipeline.dagster_logs import log_alike
from kasparro_pipeline.ranges import SOURCE_TAG, range_tags
from kasparro_pipeline.settings import settings


@dg.asset(key=["mints", "raw"])
def _raw(context: dg.AssetExecutionContext) -> None:
    context.log.info("asked %s", "twice")
    raise ValueError("no such page")


def _lines_of_a_run(kind: str, patch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> list[str]:
    for formatter in (coloredlogs.BasicFormatter, coloredlogs.ColoredFormatter):
        patch.setattr(formatter, "format", formatter.format)  # so that it is put back
    patch.setenv("KASPARRO_LOG_FORMAT", kind)
    settings.cache_clear()
    log_alike()
    settings.cache_clear()
    mints = dg.define_asset_job("mints", tags={SOURCE_TAG: "mints"})
    job = dg.Definitions([_raw], jobs=[mints]).resolve_job_def("mints")
    job.execute_in_process(tags=range_tags("2026-11-01", "2026-11-03"), raise_on_error=False)
    return capfd.readouterr().err.splitlines()


def test_machines_get_an_object_a_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [json.loads(line) for line in _lines_of_a_run("json", monkeypatch, capfd)]
    assert {(line["source"], line["partition"], len(line["run_id"])) for line in lines} == {
        ("mints", "2026-11-01...2026-11-03", 36)
    }
    assert [line["step"] for line in lines if line["message"] == "asked twice"] == ["mints__raw"]
    (failure,) = [line for line in lines if line.get("event") == "STEP_FAILURE"]
    assert "ValueError: no such page" in failure["message"]


def test_people_get_the_same_in_words(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    (line,) = [line for line in _lines_of_a_run("text", monkeypatch, capfd) if line.endswith("asked twice")]
    assert " INFO dagster [run_id=" in line
    assert "source=mints partition=2026-11-01...2026-11-03 step=mints__raw]" in line


ROOT = """
import logging
from kasparro_pipeline.dagster_logs import log_alike
log_alike()
told = logging.getLogger("dagster.told")
told.addHandler(logging.StreamHandler())
logging.warning("the database is away")
told.warning("once")
"""


def test_what_dagster_tells_the_root_logger_is_a_line_like_others_and_doubles_none() -> None:
    environment = {**os.environ, "KASPARRO_LOG_FORMAT": "json"}
    told = subprocess.run([sys.executable, "-c", ROOT], env=environment, check=True, capture_output=True, text=True)
    away, once = told.stderr.splitlines()
    assert (json.loads(away)["message"], once) == ("the database is away", "once")

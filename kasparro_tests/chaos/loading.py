"""One load as a process that can be killed: forked from one that has loaded the definitions, so it costs no import.

Nothing of the load itself is different from ``kasparro load``. Only sizes are: CoinGecko is read in small pages and
files in small blocks, so that a load has many places to be killed in; and what failed is asked again without waiting.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import stamina

from kasparro_pipeline import definitions
from kasparro_pipeline.components import ApiSource, CsvSource
from kasparro_pipeline.load import UNIFY, Loader
from kasparro_pipeline.settings import settings
from kasparro_pipeline.sources.csv import blocks
from kasparro_pipeline.stack import enter
from kasparro_tests.chaos.vendor import PAGE

ATTEMPTS = 8

_DEFINITIONS = definitions.defs()
definitions.defs = lambda: _DEFINITIONS
_tree = _DEFINITIONS.component_tree
for _source in _tree.get_all_components(ApiSource):
    if _source.paging is not None:
        _source.paging.size = PAGE
    _DEFINITIONS.resolve_job_def(_source.source)
for _job in (*(files.name for files in _tree.get_all_components(CsvSource)), UNIFY):
    _DEFINITIONS.resolve_job_def(_job)
blocks.MIN_BLOCK, blocks._CUTS_PER_BYTE = 8 * 1024, 2**32 // (8 * 1024)
gc.freeze()


def load(environment: Mapping[str, str], log: Path) -> None:
    """Load once in this process; exit with 1 where anything failed. The report is the last line of `log`."""
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.update(environment)
    settings.cache_clear()
    stamina.set_testing(True, attempts=ATTEMPTS)
    enter(settings())
    report = Loader(lambda step: print(step, flush=True)).load()  # noqa: T201
    print(json.dumps(report.as_dict()), flush=True)  # noqa: T201
    sys.exit(report.failed)

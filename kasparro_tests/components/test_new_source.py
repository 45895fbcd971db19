"""A new source is one YAML file: scaffolded, checked, and loaded through Dagster into PostgreSQL."""

from __future__ import annotations

import re
import subprocess
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import httpx
import pytest
import sqlalchemy as sa
import yaml
from dagster.components.resolved.errors import ResolutionException
from dagster.components.testing import DefsFolderSandbox, create_defs_folder_sandbox
from pydantic import ValidationError

from kasparro_pipeline.components import ApiSource, CsvSource
from kasparro_pipeline.components.partitions import today
from kasparro_pipeline.defs.resources import defs as resources
from kasparro_pipeline.settings import REPOSITORY, settings
from kasparro_pipeline.simulator.app import create_app
from kasparro_pipeline.warehouse.tables import delivery, observation
from kasparro_tests.test_load import running

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
VENDOR = {
    "source": "vendor",
    "priority": 1,
    "base_url": "https://vendor.example",
    "endpoint": "/coins",
    "columns": {"source_coin_id": "id", "price_usd": "price"},
    "per_minute": 10,
    "refresh": "0 * * * *",
}


@pytest.fixture
def sandbox() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as sandbox:
        yield sandbox


def test_the_vendor_of_the_readme_is_loaded_page_by_page(sandbox, engine, monkeypatch) -> None:
    (example,) = re.findall(r"```yaml\n(type: kasparro_pipeline.components.ApiSource.*?)```", README, re.S)
    path = sandbox.scaffold_component(ApiSource, "marketfeed")
    (path / "defs.yaml").write_text(example, encoding="utf-8")
    now = datetime.now(UTC)
    with (
        running(create_app(clock=lambda: now, rate_per_minute=100_000)) as url,
        sandbox.load_component_and_build_defs(path) as (_, found),
    ):
        monkeypatch.setenv("KASPARRO_SIMULATOR_PORT", url.rpartition(":")[2])
        settings.cache_clear()
        job = dg.Definitions.merge(found, resources()).resolve_job_def("marketfeed")
        with dg.DagsterInstance.ephemeral() as instance:
            assert job.execute_in_process(partition_key=today(), instance=instance).success
        last = httpx.get(f"{url}/feed/v1/assets", params={"limit": 200}).json()["data"][0]
    with engine.connect() as connection:
        pages = connection.execute(sa.select(delivery).order_by(delivery.c.position)).all()
        rows = connection.execute(sa.select(observation).order_by(observation.c.source_coin_id)).all()
    assert [page.records for page in pages] == [100, 100, 100, 87]
    assert [page.is_last for page in pages] == [False, False, False, True]
    assert len(rows) == 387
    assert {row.source for row in rows} == {"marketfeed"}
    assert (rows[0].source_coin_id, str(rows[0].price_usd)) == (last["id"], last["usd"]["last"])
    assert rows[0].observed_at == datetime.fromtimestamp(last["at"], UTC)


@pytest.mark.parametrize(("component", "asset"), [(ApiSource, "raw"), (CsvSource, "observations")])
def test_a_scaffolded_source_is_valid_and_called_like_its_folder(sandbox, component, asset) -> None:
    path = sandbox.scaffold_component(component, "my-source")
    with sandbox.load_component_and_build_defs(path) as (made, found):
        assert isinstance(made, component)
        graph = dg.Definitions.merge(found, resources()).resolve_asset_graph()
        assert dg.AssetKey(["my_source", asset]) in graph.get_all_asset_keys()


def test_each_choice_that_the_scaffold_shows_is_valid(sandbox) -> None:
    path = sandbox.scaffold_component(ApiSource, "vendor")
    lines = (path / "defs.yaml").read_text(encoding="utf-8").splitlines()
    shown = [re.sub(r"^( +)# (?= *[a-z_0-9]+:( |$))", r"\1", line) for line in lines if "by: offset" not in line]
    choices = yaml.safe_load("\n".join(line for line in shown if "by: page" not in line))["attributes"]
    choices["history"].pop("series")
    choices["columns"].pop("observed_at")
    assert set(ApiSource.model_fields) - set(choices) == {"simulator_path"}
    made = ApiSource.resolve_from_dict(choices)
    assert made.history is not None
    assert made.columns["rank"] == "rank"


@pytest.mark.parametrize("options", [{"scaffold_format": "python"}])
def test_a_source_is_not_scaffolded_in_python(sandbox, options) -> None:
    with pytest.raises(ValueError, match="one YAML file of its own"):
        sandbox.scaffold_component(ApiSource, "vendor", **options)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"paging": {"by": "cursor", "size": 10}}, "next_path belongs to paging by cursor"),
        ({"paging": {"size": 10, "next_path": "x"}}, "next_path belongs to paging by cursor"),
        ({"paging": {"by": "link"}}, "next_path belongs to paging by cursor or by link"),
        ({"paging": {"by": "cursor", "next_path": "x", "first": 0}}, "first belongs to paging by page"),
        ({"paging": {"by": "link", "next_path": "x", "param": "p"}}, "param does not belong to paging by link"),
        ({"time_path": "at", "columns": {"source_coin_id": "id", "price_usd": "p", "observed_at": "t"}}, "given twice"),
        ({"auth_scheme": "Bearer"}, "auth_scheme stands before the key in auth_header, which is missing"),
        ({"columns": {"source_coin_id": "id"}}, "price_usd must be mapped"),
        ({"history": {"columns": {}}}, "give either columns .* or series"),
        ({"history": {"endpoint": "/history"}}, "{id} is missing"),
        ({"history": {"columns": {"price_usd": "p"}}}, "observed_at must be mapped"),
    ],
)
def test_what_does_not_fit_together_is_told(change, said) -> None:
    history = {"endpoint": "/{id}", "coins": ["a"], "from_param": "f", "to_param": "t"}
    history["columns"] = {"observed_at": "t", "price_usd": "p"}
    if "history" in change:
        change = {"history": history | change["history"]}
    with pytest.raises((ResolutionException, ValidationError), match=said):
        ApiSource.resolve_from_dict(VENDOR | change)


@pytest.mark.parametrize(
    ("component", "right", "wrong", "said"),
    [
        (ApiSource, "priority: 50", "priority: soon", "valid integer"),
        (ApiSource, "per_minute: 30", "per_minute: 0", "greater than 0"),
        (ApiSource, "per_minute: 30", "per_minut: 30", "Extra inputs are not permitted"),
        (ApiSource, '"*/15 * * * *"', "hourly", "'hourly' is no cron line"),
        (ApiSource, "{by: page, size: 100,", "{by: pages, size: 100,", "'page', 'offset', 'cursor' or 'link'"),
        (ApiSource, "{by: page, size: 100,", "{by: page, size: many,", "valid integer"),
        (ApiSource, "# zero_is_null: [market_cap_usd]", "zero_is_null: [cap]", "no column cap; there are price_usd"),
        (ApiSource, "# max_lost_percent: 33", "max_lost_percent: 133", "less than or equal to 100"),
        (ApiSource, "{by: page, size: 100,", "{by: page, first: -1,", "greater than or equal to 0"),
        (ApiSource, "base_url:", "base_url: api.vendor.example #", "write http(s)://HOST"),
        (ApiSource, "endpoint: /coins  ", "endpoint: /coins?limit=5 #", "of an endpoint goes to params"),
        (ApiSource, "endpoint: /coins  ", "endpoint: https://vendor.example/coins #", "a path below base_url"),
        (ApiSource, "params: {currency: usd}", "params: {currency: [usd]}", "valid string"),
        (ApiSource, "params: {currency: usd}", "params: {x_cg_demo_api_key: a}", "a key is never in an address"),
        (ApiSource, "# record_path: data", "record_path: $.data", "'$.data' is no path"),
        (ApiSource, "# time_path: meta", "time_path: meta. #", "'meta.' is no path"),
        (ApiSource, "# auth_header: x-api-key", "auth_header: 'x-api-key:'", "should match pattern"),
        (ApiSource, "# http2: true", "http2: perhaps", "valid boolean"),
        (CsvSource, "priority: 90", "priority: []", "valid integer"),
        (CsvSource, "  # Column of an", "  formats: [{match: x, delimeter: ;}] #", "unknown field `delimeter`"),
    ],
)
def test_each_of_several_files_is_told_with_its_line(sandbox, component, right, wrong, said) -> None:
    """Not only by the JSON schema, against which `dg check` holds only one file of each component type."""
    path = sandbox.scaffold_component(component, "vendor")
    lines = (path / "defs.yaml").read_text(encoding="utf-8").splitlines()
    place = next(number for number, line in enumerate(lines) if right in line)
    lines[place] = lines[place].replace(right, wrong)
    assert said in told_of(sandbox, path, lines, place)


def test_a_path_that_is_none_is_told_with_its_line(sandbox) -> None:
    path = sandbox.scaffold_component(ApiSource, "vendor")
    lines = (
        (path / "defs.yaml").read_text(encoding="utf-8").replace(" price_usd: price", " price_usd: p[0]").splitlines()
    )
    assert "'p[0]' is no path" in told_of(sandbox, path, lines, lines.index("  columns:"))


def test_yes_and_no_reach_the_vendor_as_true_and_false() -> None:
    client = httpx.Client(base_url="https://vendor.example")
    made = ApiSource.resolve_from_dict(VENDOR | {"params": {"sparkline": False, "all": True, "limit": 1}})
    assert str(client.build_request("GET", "/", params=made.params).url).endswith("?sparkline=false&all=true&limit=1")


def test_a_header_name_for_a_column_that_there_is_not_is_told_with_its_line(sandbox) -> None:
    path = sandbox.scaffold_component(CsvSource, "drops")
    lines = (path / "defs.yaml").read_text(encoding="utf-8").replace("    symbol:", "    simbol:").splitlines()
    assert "no column simbol; there are" in told_of(sandbox, path, lines, lines.index("  columns:"))


def told_of(sandbox: DefsFolderSandbox, path: Path, lines: list[str], place: int) -> str:
    """What is said of the wrong defs.yaml of these lines; it names that at `place`."""
    (path / "defs.yaml").write_text("\n".join(lines), encoding="utf-8")
    with (
        pytest.raises(Exception, match="defs") as caught,
        sandbox.load_component_and_build_defs(path),
    ):
        pass
    told = "\n".join(traceback.format_exception(caught.value))
    assert re.search(rf"vendor/defs\.yaml:{place + 1}\b|drops/defs\.yaml:{place + 1}\b", told), told
    return told


def test_dg_check_names_file_and_line_of_what_is_wrong(tmp_path) -> None:
    package = tmp_path / "trial"
    (package / "defs" / "vendor").mkdir(parents=True)
    toml = (REPOSITORY / "dg.toml").read_text(encoding="utf-8")
    (tmp_path / "dg.toml").write_text(toml.replace('"kasparro_pipeline"', '"trial"'), encoding="utf-8")
    for module in (package, package / "defs"):
        (module / "__init__.py").touch()
    (package / "definitions.py").write_text("import dagster as dg\n\ndefs = dg.Definitions()\n", encoding="utf-8")
    template = Path(sys.modules[ApiSource.__module__].__file__ or "").parent / "templates" / "api_source.yaml"
    lines = template.read_text(encoding="utf-8").replace("$type", "kasparro_pipeline.components.ApiSource")
    broken = (
        lines.replace("per_minute:", "per_minut:")
        .replace("priority: 50", "priority: soon")
        .replace("price_usd:", "price_eur:")
    )
    file = package / "defs" / "vendor" / "defs.yaml"
    file.write_text(broken.replace("$name", "vendor"), encoding="utf-8")
    dg_ = Path(sys.executable).with_name("dg")
    checked = subprocess.run([dg_, "check", "defs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode != 0
    told = checked.stdout + checked.stderr
    for key, said in {
        "per_minut": "per_minut",
        "priority": "'soon' is not of",
        "columns": "'price_eur' is not one",
    }.items():
        line = 1 + next(number for number, text in enumerate(broken.splitlines()) if text.startswith(f"  {key}:"))
        assert re.search(rf"vendor/defs\.yaml:{line} .*{said}", told), told

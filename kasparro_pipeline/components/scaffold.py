"""``dg scaffold defs``: a new source's defs.yaml, valid as it is, with every choice told beside it."""

from __future__ import annotations

from pathlib import Path
from string import Template

import dagster as dg

TEMPLATES = Path(__file__).parent / "templates"


class SourceScaffolder(dg.Scaffolder):
    """Writes ``defs.yaml`` from a template, the source called like its folder."""

    template: str

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        """Write the file.

        Raises:
            ValueError: Python was asked for, or another component's file; a source is one YAML file of its own.
        """
        if request.scaffold_format != "yaml" or request.append:
            raise ValueError("a source is one YAML file of its own; leave out --format and --append")
        text = (TEMPLATES / self.template).read_text(encoding="utf-8")
        name = "".join(char if char.isalnum() else "_" for char in request.target_path.name.lower())
        filled = Template(text).substitute(type=request.type_name, name=name, NAME=name.upper())
        (request.target_path / "defs.yaml").write_text(filled, encoding="utf-8")


class ApiSourceScaffolder(SourceScaffolder):
    """For `ApiSource`."""

    template = "api_source.yaml"


class CsvSourceScaffolder(SourceScaffolder):
    """For `CsvSource`."""

    template = "csv_source.yaml"

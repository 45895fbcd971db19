"""Types of values in a defs.yaml."""

from __future__ import annotations

from typing import Annotated

import dagster as dg


def schema(**rules: object) -> dg.Resolver:
    """What ``dg check`` holds the YAML to beyond the type, which alone lets any text pass: it may be a template."""
    resolver: dg.Resolver = dg.Resolver.default(json_schema_extra=rules)
    return resolver


Whole = Annotated[int, schema(type="integer")]
MaybeWhole = Annotated[int | None, schema(type=["integer", "null"])]
Real = Annotated[float, schema(type="number")]
YesNo = Annotated[bool, schema(type="boolean")]

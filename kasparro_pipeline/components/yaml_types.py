"""Types of values in a defs.yaml.

By Dagster's own types any text would pass, since it may be a template, until a component is made of it, where no line
is known any more. And of several files of one component type ``dg check`` holds only one against the JSON schema.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

import dagster as dg
from pydantic import ConfigDict, Field, TypeAdapter

from kasparro_pipeline.errors import KasparroError
from kasparro_pipeline.sources.http import check_base_url
from kasparro_pipeline.sources.json_text import path_of

_SECRET = re.compile(r"(api|access|secret|private|pro|demo|auth)[_-]?(key|token)$|secret|password|signature", re.I)


def read_as(kind: Any, check: Callable[[Any], object] = bool, **rules: object) -> dg.Resolver:  # noqa: ANN401 - a type
    """A value of a type that pydantic knows, of which `check` raises nothing; else ``dg check`` names its line.

    `rules` are its JSON schema.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(strict=True))

    def read(context: dg.ResolutionContext, value: object) -> object:  # noqa: ARG001 - Dagster's signature
        found = adapter.validate_python(value)
        try:
            check(found)
        except KasparroError as error:
            raise ValueError(str(error)) from None
        return found

    return dg.Resolver(read, model_field_type=object, json_schema_extra=rules or adapter.json_schema())


def _check_params(params: Mapping[str, object]) -> None:
    secrets = [name for name in params if _SECRET.search(name)]
    if secrets:
        raise ValueError(
            f"{secrets[0]}: a key is never in an address; it goes to KASPARRO_<SOURCE>_API_KEY and auth_header"
        )


_PATHS = dict[str, str | int]


def names_of(names: Collection[str], kind: Any = _PATHS) -> dg.Resolver:  # noqa: ANN401 - a type
    """A mapping whose keys, or a list whose items, are among `names`; as it is, a mapping to paths."""

    def check(value: Collection[str]) -> None:
        unknown = sorted(set(value) - set(names))
        if unknown:
            raise ValueError(f"no column {', '.join(unknown)}; there are {', '.join(names)}")
        if kind == _PATHS and isinstance(value, dict):
            for path in value.values():
                path_of(path)

    one_of = {"enum": list(names)}
    if kind == list[str]:
        return read_as(kind, check, type="array", items=one_of)
    return read_as(kind, check, **TypeAdapter(kind).json_schema(), propertyNames=one_of)


def _check_endpoint(endpoint: str) -> None:
    if "://" in endpoint:
        raise ValueError("an endpoint is a path below base_url, where the key may be sent")
    if "?" in endpoint or "#" in endpoint:
        raise ValueError("what follows the '?' of an endpoint goes to params")


_Positive = Annotated[int, Field(gt=0)]
_NotNegative = Annotated[int, Field(ge=0)]
Whole = Annotated[int, read_as(int)]
MaybeWhole = Annotated[int | None, read_as(_NotNegative | None)]
Count = Annotated[int, read_as(_Positive)]
MaybeCount = Annotated[int | None, read_as(_Positive | None)]
Percent = Annotated[float, read_as(Annotated[float, Field(ge=0, le=100)])]
Seconds = Annotated[float, read_as(Annotated[float, Field(gt=0)])]
Dotted = Annotated[str, read_as(str, path_of)]
MaybeDotted = Annotated[str | None, read_as(str | None, lambda dotted: path_of(dotted or ""))]
Endpoint = Annotated[str, read_as(str, _check_endpoint)]
Params = Annotated[dict[str, str | bool | int], read_as(dict[str, str | bool | int], _check_params)]
Url = Annotated[str, read_as(str, check_base_url)]
YesNo = Annotated[bool, read_as(bool)]

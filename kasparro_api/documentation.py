"""What the OpenAPI document says of the service as a whole: who needs which key."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from kasparro_api.gate import needs_key
from kasparro_pipeline.settings import Settings

_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
}


def document(app: FastAPI, settings: Settings) -> None:
    """Have the document of `app` tell which operations need a key with these settings."""
    made = app.openapi

    def told() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = made()
            schema["components"]["securitySchemes"] = _SCHEMES
            for path, operations in schema["paths"].items():
                for method, operation in operations.items():
                    needed = needs_key(settings, method.upper(), path)
                    anonymous: list[dict[str, Any]] = [] if needed else [{}]
                    if needed is not None:
                        operation["security"] = [*anonymous, *({name: []} for name in _SCHEMES)]
        return app.openapi_schema or {}

    app.openapi = told  # type: ignore[method-assign]

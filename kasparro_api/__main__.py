"""``python -m kasparro_api``: serve, one log line a request, on the host and port of the settings."""

from __future__ import annotations

import uvicorn

from kasparro_pipeline.logs import configure
from kasparro_pipeline.settings import settings


def main() -> None:
    """Serve until a signal says to stop."""
    configure()
    uvicorn.run(
        "kasparro_api.app:create_app",
        factory=True,
        host=settings().host,
        port=settings().api_port,
        access_log=False,  # RequestFrame writes its own, with the request id
        server_header=False,
        log_config=None,
    )


if __name__ == "__main__":
    main()

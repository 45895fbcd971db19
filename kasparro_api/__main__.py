"""``python -m kasparro_api``: serve, one log line a request, on the host and port of the settings."""

from __future__ import annotations

import logging

import uvicorn

from kasparro_pipeline.settings import settings


def main() -> None:
    """Serve until a signal says to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # told once a request by ourselves
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

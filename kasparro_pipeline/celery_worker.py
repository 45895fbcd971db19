"""The Celery app of the workers that execute Dagster's runs.

Started by ``kasparro exec -- celery -A kasparro_pipeline.celery_worker worker``. The command that comes with
dagster-celery reads no broker from our settings.
"""

from celery.signals import setup_logging
from dagster_celery.make_app import make_app
from dagster_celery.tasks import create_execute_job_task, create_resume_job_task

from kasparro_pipeline.celery_launcher import celery_arguments
from kasparro_pipeline.logs import configure
from kasparro_pipeline.settings import settings

app = make_app(celery_arguments(settings()))
execute_job = create_execute_job_task(app)
resume_job = create_resume_job_task(app)


def _log(**_: object) -> None:
    """Celery leaves logging to whoever listens for it."""
    configure()


setup_logging.connect(_log, weak=False)

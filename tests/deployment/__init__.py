"""An Airflow as deployed for many users, on PostgreSQL, Redis and Celery: ``nox -s deployment``."""

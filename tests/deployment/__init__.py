"""A whole deployment of Airflow: PostgreSQL, Redis, Celery workers; run by scripts/deployment."""

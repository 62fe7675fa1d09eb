"""Nothing that a real Airflow writes contains a secret: ``nox -s secrets``."""

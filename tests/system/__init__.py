"""Faults on a real Airflow with all its processes: ``nox -s faults``."""

"""Faults on a real Airflow with all its processes; run by scripts/faults."""

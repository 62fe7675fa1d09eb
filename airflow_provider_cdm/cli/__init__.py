"""The command line: ``airflow cdm`` (Airflow 3.2 and later) or ``python -m airflow_provider_cdm``.

``definition`` declares the commands; every ``airflow`` command imports it, so it imports nothing.
``commands`` performs them.
"""

from airflow_provider_cdm.cli.definition import get_airflow_commands, main

__all__ = ["get_airflow_commands", "main"]

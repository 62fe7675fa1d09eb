"""In the folder ``config`` of Airflow's home, or anywhere on the Python path."""

import airflow_provider_cdm.preload  # noqa: F401

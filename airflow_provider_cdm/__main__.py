"""``python -m airflow_provider_cdm``: the commands of ``airflow cdm``, on every Airflow."""

from airflow_provider_cdm.cli import main

if __name__ == "__main__":
    main()

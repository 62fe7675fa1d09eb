"""A model of everything around the start of a job: CDM, Airflow, faults, and what must be true."""

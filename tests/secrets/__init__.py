"""No secret shows anywhere in a real Airflow: logs, database, output, files."""

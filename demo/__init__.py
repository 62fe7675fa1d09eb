"""A real Airflow moves three days of orders with CDM jobs, against the simulator."""

"""A real Airflow moves three days of orders with CDM jobs, against the simulator.

``scripts/demo`` runs it, with the databases and jobs of the simulator's own demo. Its processes are
also used by the tests, the benchmarks and the screenshots. Only the standard library is imported
here, because :mod:`demo.__main__` checks its arguments before anything is installed.
"""

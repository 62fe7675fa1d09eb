"""The demo of the simulator: databases with orders, jobs that move them, and DAGs to copy."""

__all__ = [
    "databases",
    "folder",
]

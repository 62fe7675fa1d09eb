"""The configuration: its data classes, its validation, and the scripts of faults."""

__all__ = [
    "behaviour",
    "config",
    "faults",
    "job_config",
    "reader",
]

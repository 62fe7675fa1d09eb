"""What a configuration may say, and how it is read and checked."""

__all__ = [
    "config",
    "faults",
    "job_config",
    "reader",
]

"""What is done with one job and its run: create, start once, follow, stop, and report."""

__all__ = [
    "apply",
    "failure_report",
    "follower",
    "own_run",
    "progress",
    "start",
    "start_record",
    "stop",
    "thresholds",
]

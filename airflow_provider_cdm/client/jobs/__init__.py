"""What is done with one job and its run: create, start exactly once, follow, stop, report."""

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

"""What is done with one job and its run: create, start exactly once, follow, stop, report."""

__all__ = [
    "apply",
    "earlier_start",
    "failure_report",
    "follower",
    "job_check",
    "own_run",
    "placeholders",
    "progress",
    "refusals",
    "run_search",
    "start",
    "start_record",
    "stop",
    "thresholds",
]

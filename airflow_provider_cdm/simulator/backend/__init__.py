"""What CDM remembers and does: clusters, jobs, links, runs and their life over time."""

__all__ = [
    "backend",
    "cluster",
    "event_queue",
    "models",
    "request_log",
    "run",
    "whole_database",
]

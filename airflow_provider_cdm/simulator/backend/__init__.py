"""The state of the simulated CDM: clusters, jobs, links, runs, and the events that change them."""

__all__ = [
    "backend",
    "cluster",
    "event_queue",
    "lifecycle",
    "links",
    "models",
    "planning",
    "request_log",
    "run",
    "run_errors",
    "whole_database",
]

"""What CDM can be asked and what its answers show; decides nothing."""

__all__ = [
    "client",
    "cluster",
    "definitions",
    "job_list",
    "parsing",
    "resources",
    "runs",
]

"""The API of CDM: its operations, and what their answers contain; makes no decisions."""

__all__ = [
    "call",
    "client",
    "cluster",
    "definitions",
    "job_list",
    "parsing",
    "resources",
    "runs",
]

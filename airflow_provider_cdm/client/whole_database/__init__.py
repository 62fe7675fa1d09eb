"""The tables of a whole-database job: their sub-jobs, and the outcome of each."""

__all__ = [
    "collect",
    "details",
    "look_alikes",
    "sub_jobs",
    "summary",
    "table_names",
    "tables",
]

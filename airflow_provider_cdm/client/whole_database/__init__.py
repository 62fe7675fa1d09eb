"""The tables of a job that moves a whole database: its sub-jobs, and what became of each."""

__all__ = [
    "collect",
    "sub_jobs",
    "tables",
]

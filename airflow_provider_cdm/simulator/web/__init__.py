"""The page that shows clusters, jobs and runs in a browser."""

__all__ = [
    "page",
    "snapshot",
]

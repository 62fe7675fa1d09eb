"""Watching a job for runs that end, whoever starts them.

* :mod:`.position` says which ends are new, and which were missed, from one history to the next.
* :mod:`.run_filter` says which of them are of interest.
* :mod:`.run_watch` reads the histories, and waits like a follower of one run does.
"""

__all__ = ["position", "run_filter", "run_watch"]

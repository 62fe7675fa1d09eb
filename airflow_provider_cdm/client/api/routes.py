"""The name of the operation that a request is for, for counting calls."""

from __future__ import annotations

import re

from airflow_provider_cdm.client.sansio import Request

#: Ends of paths, the most specific first. A segment of a path never contains a slash.
_ROUTES = (
    (r"/v3/auth/tokens", "token"),
    (r"/v3/projects", "projects"),
    (r"/cdm/job/[^/]+/start", "start"),
    (r"/cdm/job/[^/]+/stop", "stop"),
    (r"/cdm/job/[^/]+/status", "status"),
    (r"/cdm/submissions", "history"),
    (r"/cdm/job/all", "job_list"),
    (r"/cdm/job(/[^/]+)?", "job"),
    (r"/cdm/link(/[^/]+)?", "link"),
    (r"/clusters/[^/]+/action", "cluster_action"),
    (r"/clusters/[^/]+", "cluster"),
    (r"/clusters", "clusters"),
)


def route_of(request: Request) -> str:
    """Return the name of the operation: one word, whatever job or cluster the request names."""
    path = request.url.partition("?")[0]
    return next((name for pattern, name in _ROUTES if re.search(f"{pattern}$", path)), "other")

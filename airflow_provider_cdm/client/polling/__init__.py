"""All waits on one cluster, within a user's quotas: what to poll next, and what the results mean.

* :mod:`.planner` chooses the next poll, and :mod:`.results` applies the result of each.
* :mod:`.registry` knows the waits and ends them; :mod:`.schedule` decides when each job is due,
  with a :mod:`.queue` for each quota; :mod:`.in_flight` counts the polls in flight, and
  :mod:`.pace` how long they take.
* :mod:`.sweep` decides when the job list is read instead, and :mod:`.hint` what it suggests.
* :mod:`.rate_limit` and :mod:`.rate_limited_api` keep calls within the quotas;
  :mod:`.circuit_breaker` reduces them while CDM does not answer.
* :mod:`.model` has the waits and jobs that all of them share, and :mod:`.polls` the polls.
"""

__all__ = [
    "circuit_breaker",
    "hint",
    "in_flight",
    "model",
    "pace",
    "planner",
    "polls",
    "queue",
    "rate_limit",
    "rate_limited_api",
    "registry",
    "results",
    "schedule",
    "sweep",
]

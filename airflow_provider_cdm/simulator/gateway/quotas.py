"""CDM's limits on calls per user and minute (API overview), over a sliding minute."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from airflow_provider_cdm.simulator.config.reader import ConfigError
from airflow_provider_cdm.simulator.errors import GatewayError, IamError

WINDOW = 60.0

#: Calls per minute as documented, by operation.
DOCUMENTED: Mapping[str, int] = {
    "start": 1200,
    "stop": 1200,
    "create_job": 1200,
    "status": 120,
    "submissions": 120,
    "show_jobs": 120,
    "update_job": 120,
    "delete_job": 120,
    "create_link": 120,
    "show_link": 120,
    "update_link": 120,
    "delete_link": 120,
    "list_clusters": 120,
    "show_cluster": 120,
    "start_cluster": 20,
    "stop_cluster": 20,
    "restart_cluster": 20,
}

#: One operation answers for one job and for lists, so both draw on one allowance.
_OPERATION = {"show_job": "show_jobs", "list_jobs": "show_jobs"}


class Quotas:
    """Counts the calls of each user.

    The window slides: at no time do more than the limit lie within the last 60 seconds. The
    documents only say "per minute"; this is the stricter reading (ASSUMED).

    :param config: ``off``, ``documented`` or limits per minute by route name.
    :param retry_after: whether refusals say how long to wait.
    :raises ConfigError: when the configuration is none of these.
    """

    def __init__(self, config: Any, *, retry_after: bool = False) -> None:
        self.limits = _limits(config)
        self._retry_after = retry_after
        self._calls: dict[tuple[str, str], deque[float]] = {}

    def charge(self, user: str, route: str, now: float) -> None:
        """Count one call.

        :param user: who calls.
        :param route: short route name.
        :param now: the present instant.
        :raises GatewayError: when the user's minute is used up; the call is not counted then.
        """
        operation = _OPERATION.get(route, route)
        limit = self.limits.get(operation)
        if limit is None:
            return
        calls = self._calls.setdefault((user, operation), deque())
        while calls and calls[0] <= now - WINDOW:
            calls.popleft()
        if len(calls) < limit:
            calls.append(now)
            return
        wait = calls[0] + WINDOW - now if calls else WINDOW
        headers = {"Retry-After": str(math.ceil(wait))} if self._retry_after else {}
        if route == "token":  # IAM has a form of its own; its figure is not documented
            text = f"Threshold: {limit} times per {WINDOW:.0f} seconds"
            raise IamError(429, "IAM.0012", text, headers)
        text = (
            "The throttling threshold has been reached: "
            f"policy user over ratelimit,limit:{limit},time:1 minute"
        )
        raise GatewayError(429, "APIGW.0308", text, headers)


def _limits(config: Any) -> dict[str, int]:
    if config in ("off", False):  # YAML reads a bare off as false
        return {}
    if config == "documented":
        return dict(DOCUMENTED)
    known = {*DOCUMENTED, *_OPERATION, "token"}
    if not isinstance(config, Mapping):
        raise ConfigError([f"quotas: off, documented or a mapping wanted, got {config!r}"])
    problems = [
        f"quotas.{name}: unknown route; allowed here: {', '.join(sorted(known))}"
        for name in config
        if name not in known
    ]
    problems += [
        f"quotas.{name}: a whole number of calls per minute wanted, got {value!r}"
        for name, value in config.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < 0
    ]
    if problems:
        raise ConfigError(problems)
    return {_OPERATION.get(str(name), str(name)): value for name, value in config.items()}

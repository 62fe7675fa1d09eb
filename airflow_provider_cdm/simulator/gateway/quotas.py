"""CDM's rate limits per user and minute (API overview), applied to a sliding window."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

from airflow_provider_cdm.simulator.config.behaviour import Behaviour
from airflow_provider_cdm.simulator.config.reader import ConfigError
from airflow_provider_cdm.simulator.errors import GatewayError, IamError, PlainError, WireError

#: Documented number of calls per minute, by operation.
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

#: A single operation serves both one job and the listing, so the two share one limit.
_OPERATION = {"show_job": "show_jobs", "list_jobs": "show_jobs"}


class Quotas:
    """Counts the calls of each user and rejects those above the rate limit.

    The window slides: at no time are more calls than the limit within the last minute, or whatever
    ``quota_seconds`` says. The documentation only says "per minute"; this is the stricter
    interpretation (ASSUMED).

    :param config: ``off``, ``documented``, or calls in a window by route name.
    :param behaviour: window, whom it counts, whether refused calls count, and what a 429 says.
    :raises ConfigError: if the configuration is none of these.
    """

    def __init__(self, config: Any, behaviour: Behaviour | None = None) -> None:
        self.limits = _limits(config)
        self._behaviour = behaviour or Behaviour()
        self._calls: dict[tuple[str, str], deque[float]] = {}

    def charge(self, user: str, route: str, now: float) -> None:
        """Count one call.

        :param user: name of the caller.
        :param route: short route name.
        :param now: current time in seconds since 1970.
        :raises WireError: 429 if the limit is reached, in the form of the gateway or of IAM.
        """
        operation = _OPERATION.get(route, route)
        limit = self.limits.get(operation)
        if limit is None:
            return
        window = self._behaviour.quota_seconds
        # All callers of the simulator have one address.
        counted = user if self._behaviour.quota_policy == "user" else ""
        calls = self._calls.setdefault((counted, operation), deque())
        while calls and calls[0] <= now - window:
            calls.popleft()
        allowed = len(calls) < limit
        if allowed or self._behaviour.refused_calls_count:
            calls.append(now)
        if not allowed:
            wait = calls[-limit] + window - now if limit and calls else window
            raise self._throttled(route, limit, wait)

    def _throttled(self, route: str, limit: int, wait: float) -> WireError:
        behaviour = self._behaviour
        seconds = behaviour.quota_seconds
        headers = {"Retry-After": str(math.ceil(wait))} if behaviour.retry_after else {}
        if route == "token":  # IAM has its own error format; its limit is not documented
            text = f"Threshold: {limit} times per {seconds:.0f} seconds"
            return IamError(429, "IAM.0012", text, headers)
        minutes = f"{seconds / 60:.0f} minute" if seconds % 60 == 0 else f"{seconds:.0f} second"
        if behaviour.throttled_text == "plain":
            text = f"Too many requests, wait up to {minutes.replace('1 minute', 'one minute')}."
            return PlainError(429, "", text, headers)
        text = (
            "The throttling threshold has been reached: policy"
            f" {behaviour.quota_policy} over ratelimit,limit:{limit},time:{minutes}"
        )
        return GatewayError(429, "APIGW.0308", text, headers)


def _limits(config: Any) -> dict[str, int]:
    if config in ("off", False):  # YAML reads an unquoted off as false
        return {}
    if config == "documented":
        return dict(DOCUMENTED)
    known = {*DOCUMENTED, *_OPERATION, "token"}
    if not isinstance(config, Mapping):
        raise ConfigError([f"quotas: expected off, documented or a mapping, got {config!r}"])
    problems = [
        f"quotas.{name}: unknown route; allowed routes: {', '.join(sorted(known))}"
        for name in config
        if name not in known
    ]
    problems += [
        f"quotas.{name}: expected an integer number of calls per minute, got {value!r}"
        for name, value in config.items()
        if not isinstance(value, int) or isinstance(value, bool) or value < 0
    ]
    if problems:
        raise ConfigError(problems)
    return {_OPERATION.get(str(name), str(name)): value for name, value in config.items()}

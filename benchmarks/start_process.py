"""A process like those from which Airflow forks tasks: it forks itself, and starts a job there.

It has loaded what Airflow has loaded when a task begins; with the argument ``imported`` also what
``airflow_local_settings.py`` can import before. Each line of its input is a way to start a job;
it answers with wall and CPU seconds of a start in a forked process.

What was loaded is frozen for the garbage collector, as Airflow's executor freezes it. Otherwise
each forked process inherits how far its parent is from the next pass over all objects, which takes
longer than a start: all processes of a series made one, or none did.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

from benchmarks.common import in_a_fork

#: What Airflow has loaded in the process of a task, and what all providers import from Airflow.
AIRFLOW = (
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.log",
    "airflow.triggers.base",
)


def main() -> None:
    """Load Airflow, and then measure what each line of the input names."""
    warnings.simplefilter("ignore")
    for module in AIRFLOW:
        importlib.import_module(module)
    from airflow.providers.common.compat import sdk
    from airflow.sdk.bases.operator import ExecutorSafeguard

    for name in sdk.__all__:
        try:
            getattr(sdk, name)
        except ImportError:
            continue  # not in this version
    # Operators are called without Airflow's task runner, which would be an error.
    ExecutorSafeguard.test_mode = True
    connection = json.loads(os.environ["AIRFLOW_CONN_CDM_DEFAULT"])
    ways = _bare_ways(connection) | {"operator": _operator}
    if sys.argv[1:] == ["imported"]:
        importlib.import_module("airflow_provider_cdm.preload")
        _operator()  # gets a token
        for name in ("put", "session"):
            ways[name] = _with_token(ways[name], connection)
        ways["operator without a token"] = _without_token
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(in_a_fork(ways[line.strip()])), flush=True)


# Ways to start a job


class _TaskInstance:
    dag_id, task_id, run_id, map_index, try_number, max_tries = "dag", "start", "run", -1, 1, 0

    def xcom_push(self, key: str, value: Any) -> None:
        """Drop the value."""


class _Store(dict[str, Any]):
    def set(self, key: str, value: Any, **_: Any) -> None:
        """Keep a value."""
        self[key] = value

    def delete(self, key: str) -> None:
        """Drop a value."""
        self.pop(key, None)


def _operator() -> None:
    from airflow_provider_cdm.operators import CdmStartJobOperator

    task, ti = CdmStartJobOperator(task_id="start", job_name="orders"), _TaskInstance()
    context: Any = {"ti": ti, "task_instance": ti, "task": task, "task_state_store": _Store()}
    task.execute(context)


def _without_token() -> None:
    from airflow_provider_cdm.client.auth.token import forget_tokens

    forget_tokens()
    _operator()


def _with_token(start: Callable[..., None], connection: dict[str, Any]) -> Callable[[], None]:
    import requests

    token = _request_token(requests, connection)
    return lambda: start(token)


def _bare_ways(connection: dict[str, Any]) -> dict[str, Callable[..., None]]:
    """Return starts with ``requests``: alone, and with the calls that the operator makes."""
    extra = connection["extra"]
    path = f"/v1.1/{extra['project_id']}/clusters/{extra['cluster_id']}/cdm"
    url = f"{connection['host']}{path}"

    def start(http: Any, token: str | None, *, same_calls: bool) -> None:
        token = token or _request_token(http, connection)
        headers = {"X-Auth-Token": token}
        if same_calls:
            for read in ("job/orders?jobType=NORMAL_JOB", "submissions?jname=orders"):
                answer = http.get(f"{url}/{read}", headers=headers, timeout=60)
                answer.raise_for_status()
                answer.json()
        answer = http.put(f"{url}/job/orders/start", json={}, headers=headers, timeout=60)
        answer.raise_for_status()

    def put(token: str | None = None) -> None:
        import requests

        start(requests, token, same_calls=False)

    def calls() -> None:
        import requests

        start(requests, None, same_calls=True)

    def session(token: str | None = None) -> None:
        import requests

        with requests.Session() as http:
            start(http, token, same_calls=True)

    return {"put": put, "calls": calls, "session": session}


def _request_token(http: Any, connection: dict[str, Any]) -> str:
    user = {"name": connection["login"], "password": connection["password"]}
    user["domain"] = {"name": connection["extra"]["domain_name"]}
    identity = {"methods": ["password"], "password": {"user": user}}
    scope = {"project": {"id": connection["extra"]["project_id"]}}
    answer = http.post(
        f"{connection['host']}/v3/auth/tokens?nocatalog=true",
        json={"auth": {"identity": identity, "scope": scope}},
        timeout=60,
    )
    token: str = answer.headers["X-Subject-Token"]
    return token


if __name__ == "__main__":
    main()

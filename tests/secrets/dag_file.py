"""The DAGs of the scan: one for each connection, with all uses of it, and one that leaks."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cdm.hooks import CdmHook
from airflow_provider_cdm.operators import CdmStartJobOperator
from airflow_provider_cdm.sensors import CdmSubmissionSensor

FOLDER = Path(os.environ["CDM_SECRETS_FOLDER"])
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)


def show(*things: object) -> None:
    """Print objects, as users do when something does not work."""
    print(*things)  # noqa: T201 - the output is what the scan searches


def start_tasks(
    dag_id: str, conn_id: str, job: str, common: dict[str, Any]
) -> Callable[..., CdmStartJobOperator]:
    """Return a function that makes tasks, each of which starts a job of its own."""

    def make(name: str, **arguments: Any) -> CdmStartJobOperator:
        return CdmStartJobOperator(
            task_id=f"{name}_{job}",
            job_name=f"{dag_id}-{name}_{job}",
            poll_interval=1,
            cdm_conn_id=conn_id,
            **common,
            **arguments,
        )

    return make


def make_dag(dag_id: str, conn_id: str, retries: dict[str, int]) -> DAG:
    """Return a DAG that waits for jobs of each outcome on a worker, in the triggerer, in a sensor.

    :param retries: retries by outcome of the jobs.
    """
    with DAG(dag_id, schedule=None, start_date=BEGIN) as dag:
        for job, count in retries.items():
            common: dict[str, Any] = {"retries": count, "retry_delay": timedelta(seconds=1)}
            start = start_tasks(dag_id, conn_id, job, common)
            start("worker", wait_for_completion=True, deferrable=False)
            start("triggerer", wait_for_completion=True, deferrable=True)
            CdmSubmissionSensor(
                task_id=f"sensor_{job}",
                submission=start("start").output,
                deferrable=job == "good",
                poke_interval=1,
                cdm_conn_id=conn_id,
                **common,
            )

        @task
        def look() -> str:
            """Print what users print when something does not work."""
            hook = CdmHook(conn_id)
            session = hook.get_conn()
            show(hook, vars(hook), session, session.settings, session.api)
            try:
                token = session.run(session.api.auth.authorize())
                show(token, vars(token) if hasattr(token, "__dict__") else "")
                logging.getLogger("mine").warning("Access: %r", session.api.auth)
            except Exception as error:
                show(repr(error), error.__dict__)
            return f"{hook.test_connection()} {session.settings!r}"

        look()
    return dag


def make_leaking_dag() -> DAG:
    """Return a DAG that leaks secrets in every way that the scan must notice.

    The task reads them from a file, so Airflow does not know that they are secrets.
    """
    with DAG("leaks", schedule=None, start_date=BEGIN) as dag:

        @task
        def leak() -> str:
            """Print it as base64, write it to a file, return it."""
            secrets = json.loads((FOLDER / "planted.json").read_text())
            show("header:", base64.b64encode(f"user:{secrets['printed']}".encode()).decode())
            (FOLDER / "airflow" / "logs" / "mine.log").write_text(f"token={secrets['written']}\n")
            os.write(2, f"{secrets['to stderr']}\n".encode())
            show("page:", "".join(f"&#{ord(letter)};" for letter in secrets["in HTML"]))
            show("body:", "".join(f"\\u{ord(letter):04x}" for letter in secrets["in JSON"]))
            show("address:", quote(quote(secrets["in an address"], safe=""), safe=""))
            return f"https://x/?token={quote(secrets['returned'])}"

        leak()
    return dag


for number, plan in enumerate(json.loads((FOLDER / "plan.json").read_text())):
    globals()[f"dag_{number}"] = make_dag(**plan)
leaks = make_leaking_dag()

"""The DAGs of the scan: one for each connection, with every way to use it; and one that leaks."""

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
    """Print, as people do when something does not work."""
    print(*things)  # noqa: T201 - that is the point


def starts(
    dag_id: str, conn_id: str, job: str, common: dict[str, Any]
) -> Callable[..., CdmStartJobOperator]:
    """Return what makes tasks that start a job, each one its own."""

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


def use(dag_id: str, conn_id: str, retries: dict[str, int]) -> DAG:
    """Wait on a worker, in the triggerer, and with a sensor, for jobs of every outcome."""
    with DAG(dag_id, schedule=None, start_date=BEGIN) as dag:
        for job, count in retries.items():
            common: dict[str, Any] = {"retries": count, "retry_delay": timedelta(seconds=1)}
            start = starts(dag_id, conn_id, job, common)
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
            """Print what people print when something does not work."""
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


def leak() -> DAG:
    """Give a secret away in every way that a scan must notice; Airflow is not told that it is one.

    Tasks get it from a file, as from a service that is not Airflow's.
    """
    with DAG("leaks", schedule=None, start_date=BEGIN) as dag:

        @task
        def secretly() -> str:
            """Print it as base64, write it to a file, return it."""
            secrets = json.loads((FOLDER / "planted.json").read_text())
            show("header:", base64.b64encode(f"user:{secrets['printed']}".encode()).decode())
            (FOLDER / "airflow" / "logs" / "mine.log").write_text(f"token={secrets['written']}\n")
            os.write(2, f"{secrets['to stderr']}\n".encode())
            return f"https://x/?token={quote(secrets['returned'])}"

        secretly()
    return dag


for number, plan in enumerate(json.loads((FOLDER / "plan.json").read_text())):
    globals()[f"dag_{number}"] = use(**plan)
leaks = leak()

"""Imports what tasks run; for ``airflow_local_settings.py``.

Airflow forks the process of a task, and of the parsing of a DAG file, from one that has read that
file. What it has imported is there in all of them.
"""

from __future__ import annotations

import airflow_provider_cdm.client.api.routes
import airflow_provider_cdm.client.auth.access_key
import airflow_provider_cdm.client.auth.token_cache
import airflow_provider_cdm.client.http.transport
import airflow_provider_cdm.client.instants
import airflow_provider_cdm.client.jobs.earlier_start
import airflow_provider_cdm.client.jobs.job_check
import airflow_provider_cdm.client.jobs.thresholds
import airflow_provider_cdm.client.named_run
import airflow_provider_cdm.client.session
import airflow_provider_cdm.operators.clusters
import airflow_provider_cdm.operators.jobs
import airflow_provider_cdm.operators.links
import airflow_provider_cdm.operators.restart_cluster
import airflow_provider_cdm.operators.run_job
import airflow_provider_cdm.operators.start_job
import airflow_provider_cdm.rendering
import airflow_provider_cdm.sensors
import airflow_provider_cdm.tasks.assets
import airflow_provider_cdm.tasks.attempt
import airflow_provider_cdm.tasks.attempt_options
import airflow_provider_cdm.tasks.existing_job
import airflow_provider_cdm.tasks.kills
import airflow_provider_cdm.tasks.planned_day
import airflow_provider_cdm.tasks.run_wait
import airflow_provider_cdm.tasks.stop_notes  # noqa: F401 - imported for their effect, as all here

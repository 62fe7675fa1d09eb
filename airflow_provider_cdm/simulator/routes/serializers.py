"""The JSON form of submissions, jobs, links and clusters in responses."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_cdm.simulator.backend.request_log import is_secret
from airflow_provider_cdm.simulator.backend.run import INVISIBLE
from airflow_provider_cdm.simulator.config.config import stable_hex
from airflow_provider_cdm.simulator.config.job_config import inputs_in, inputs_of

if TYPE_CHECKING:
    from airflow_provider_cdm.simulator.backend.cluster import Cluster
    from airflow_provider_cdm.simulator.backend.lifecycle import RunLifecycle
    from airflow_provider_cdm.simulator.backend.models import Job, Link
    from airflow_provider_cdm.simulator.backend.run import Run
    from airflow_provider_cdm.simulator.config.behaviour import Behaviour

#: A job object has fewer statuses than a submission; the mapping is ASSUMED.
_JOB_STATUS = {"PENDING": "BOOTING", "FAILURE_ON_SUBMIT": "FAILED", INVISIBLE: "NEW"}


def millis(seconds: float) -> int:
    """Return a point in time in milliseconds since 1970, the unit of all dates of jobs and runs.

    :param seconds: seconds since 1970.
    """
    return int(seconds * 1000)


def submission(
    lifecycle: RunLifecycle, behaviour: Behaviour, *, started: bool = False
) -> dict[str, Any]:
    """Return a submission.

    Only successful runs have counters, and only failed ones error texts (status page).

    :param lifecycle: lifecycle of the run.
    :param behaviour: switches for the format.
    :param started: whether it is for the response to a start call, which lacks some keys.
    """
    lifecycle.update_progress()
    run = lifecycle.run
    result: dict[str, Any] = {
        "submission-id": run.submission_id,
        "job-name": run.job_name,
        "creation-user": run.user,
        "creation-date": _date(run.created, behaviour),
        "execute-date": _date(run.created if run.executed is None else run.executed, behaviour),
        "last-update-date": _date(run.updated, behaviour),
        "status": _spelled(run.status, behaviour),
        "progress": _progress(run, behaviour),
        "isIncrementing": False,
        "isStopingIncrement": "",
        "is-execute-auto": run.auto,
        "isDeleteJob": run.disposable,
        "delete_rows": 0,
        "update_rows": 0,
        "write_rows": run.rows_written,
        **_last_user(run, behaviour),
    }
    if behaviour.submission_id == "absent" or (started and behaviour.submission_id != "present"):
        del result["submission-id"]
    if not started:
        result["external-id"] = f"job_local{int(run.created) % 10**9}_{run.submission_id:04d}"
    if behaviour.extra_keys:
        schema = {"name": run.job_name, "columns": [], "options": []}
        result |= {"from-schema": schema, "to-schema": schema, "external-link": "http://localhost/"}
    return result | _result(run)


def never_executed(job_name: str, user: str, now: float, behaviour: Behaviour) -> dict[str, Any]:
    """Return the submission that the status route shows for a job without runs; it has no id.

    :param job_name: name of the job.
    :param user: name of the user who created the job.
    :param now: creation date of this artificial submission (as in upstream Sqoop), in seconds
        since 1970.
    :param behaviour: switches for the format.
    """
    return {
        "job-name": job_name,
        "creation-user": user,
        "creation-date": _date(now, behaviour),
        "last-update-date": _date(now, behaviour),
        "status": _spelled("NEVER_EXECUTED", behaviour),
        "progress": -1.0,
        "isIncrementing": False,
        "isStopingIncrement": "",
        "is-execute-auto": False,
        "isDeleteJob": False,
    }


#: Keys of a job object that a switch omits.
_OMITTED = (
    *("creation-date", "update-date", "from-link-name", "to-link-name"),
    *("from-config-values", "to-config-values", "driver-config-values"),
)


def job(job: Job, behaviour: Behaviour, *, listed: bool = False) -> dict[str, Any]:
    """Return a job object with its read-only keys.

    :param job: job to show.
    :param behaviour: switches for the format.
    :param listed: whether it is for a job list.
    """
    result = copy.deepcopy(job.config.to_wire())
    if behaviour.default_inputs:
        _add_defaults(result)
    if behaviour.list_values:
        _add_list(result)
    if behaviour.encode_values:
        for block in ("from-config-values", "to-config-values", "driver-config-values"):
            for item in inputs_in(result.get(block)):
                if isinstance(item.get("value"), str):
                    item["value"] = quote(item["value"], safe="")
    last = job.last
    drivers = inputs_of(result, "driver-config-values")
    sources = inputs_of(result, "from-config-values")
    result.update(
        {
            "id": job.number,
            "creation-user": job.user,
            "creation-date": _date(job.created, behaviour),
            "update-user": job.user,
            "update-date": _date(job.updated, behaviour),
            "enabled": job.config.enabled,
            "is_incre_job": False,
            "is_incrementing": False,
            "is_use_sql": sources.get("fromJobConfig.useSql") == "true",
            "group_name": drivers.get("groupJobConfig.groupName") or "DEFAULT",
            "flag": 0,
            "status": _spelled("NEW", behaviour),
        }
    )
    if last is not None:
        result.update(_last_run(last, behaviour))
    if behaviour.job_keys == "few" or (listed and behaviour.job_keys == "few-in-lists"):
        result = {key: value for key, value in result.items() if key not in _OMITTED}
    return result


#: Default settings of a job in the parameter tables.
_DEFAULTS = {
    "throttlingConfig.numExtractors": "1",
    "retryJobConfig.retryJobType": "NONE",
    "groupJobConfig.groupName": "DEFAULT",
}


def _add_list(result: dict[str, Any]) -> None:
    """Add what a recorded job has: ids and types of configs, and an input that is a list."""
    drivers = result.setdefault("driver-config-values", {})
    configs = drivers["configs"] = list(drivers.get("configs") or [])
    if "transformConfig.trans" not in inputs_of(result, "driver-config-values"):
        inputs = [{"name": "transformConfig.trans", "type": "STRING", "value": []}]
        configs.append({"name": "transformConfig", "inputs": inputs})
    blocks = [result.get(f"{side}-config-values") for side in ("from", "to", "driver")]
    found = [
        config
        for block in blocks
        for config in (block.get("configs", ()) if isinstance(block, dict) else ())
        if isinstance(config, dict)
    ]
    for number, config in enumerate(found, 1):
        config.update(id=number, type="JOB")


def _add_defaults(result: dict[str, Any]) -> None:
    present = inputs_of(result, "driver-config-values")
    block = result.get("driver-config-values")
    if not isinstance(block, dict):
        block = result["driver-config-values"] = {}
    if not isinstance(block.get("configs"), list):
        block["configs"] = []
    configs = block["configs"]
    for name, value in _DEFAULTS.items():
        if name not in present:
            inputs = [{"name": name, "value": value}]
            configs.append({"name": name.partition(".")[0], "inputs": inputs})


def link(link: Link, behaviour: Behaviour) -> dict[str, Any]:
    """Return a link object without the values of secrets.

    :param link: link to show.
    :param behaviour: switches for the format.
    """
    result = copy.deepcopy(link.wire)
    for item in inputs_in(result.get("link-config-values")):
        if is_secret(item.get("name")):
            item.pop("value", None)
    dates = {
        "creation-date": _date(link.created, behaviour),
        "update-date": _date(link.updated, behaviour),
    }
    users = {"creation-user": link.user, "update-user": link.user}
    return {**result, **dates, **users, "enabled": link.enabled}


def cluster(cluster: Cluster) -> dict[str, Any]:
    """Return a cluster as the listing and the detail route show it.

    :param cluster: cluster to show.
    """
    status, actions = _shown_status(cluster)
    instance_id = stable_hex(f"instance {cluster.id}")
    instance = {
        "id": instance_id,
        "name": f"{cluster.name}-cdm-1",
        "type": "cdm",
        "status": status,
        "actions": [],
        "flavor": {"id": stable_hex("cdm.large"), "links": []},
        "volume": {"size": 100, "type": "local_disk"},
        "isFrozen": "0",
        "config_status": "In-Sync",
    }
    return {
        "id": cluster.id,
        "name": cluster.name,
        "status": status,
        "statusDetail": _STATUS_DETAIL.get(status, ""),
        "config_status": "In-Sync",
        "actionProgress": {},
        "actions": actions,
        "isFrozen": "1" if cluster.status == "800" else "0",
        "isAutoOff": False,
        "isScheduleBootOff": False,
        "flavorName": "cdm.large",
        "azName": "az1",
        "datastore": {"type": "cdm", "version": "2.9.1"},
        "created": _iso(cluster.created),
        "updated": _iso(cluster.updated),
        "instances": [instance],
        "publicEndpointStatus": {},
        **_failed_reasons(cluster.status),
    }


def _shown_status(cluster: Cluster) -> tuple[str, list[str]]:
    """Return the status of a cluster and what is done to it, as they are shown."""
    actions, shown = _ACTIONS.get(cluster.status, []), cluster.behaviour.restart_shown
    if cluster.status != "500" or shown == "status":
        return cluster.status, actions
    return "200", actions if shown == "actions" else []


def _failed_reasons(status: str) -> dict[str, Any]:
    """Return the reason why a cluster could not be created; code and text are ASSUMED."""
    reason = {"errorCode": "CDM.3040", "errorMsg": "The subnet has no free address."}
    return {"failedReasons": {"CREATE_FAILED": reason}} if status == "303" else {}


#: Name of the group of counters.
_COUNTER_GROUP = "org.apache.sqoop.submission.counter.SqoopCounters"
_STATUS_DETAIL = {"200": "Normal", "900": "Stopped"}
_ACTIONS = {"500": ["REBOOTING"], "910": ["STOPPING"], "920": ["STARTING"]}


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _date(seconds: float, behaviour: Behaviour) -> int | str:
    return millis(seconds) if behaviour.dates_as == "number" else str(millis(seconds))


def _spelled(status: str, behaviour: Behaviour) -> str:
    return status if behaviour.status_letters == "capital" else status.lower()


def _result(run: Run) -> dict[str, Any]:
    if run.status == "SUCCEEDED":
        return {} if run.counters is None else {"counters": {_COUNTER_GROUP: dict(run.counters)}}
    if run.status in {"FAILED", "FAILURE_ON_SUBMIT"}:
        texts = (run.error_summary or "", run.error_details or "")
        return dict(zip(("error-summary", "error-details"), texts, strict=True))
    return {}


def _progress(run: Run, behaviour: Behaviour) -> float:
    if run.progress < 0:
        return -1.0
    return round(run.progress * int(behaviour.progress_scale), 2)


def _last_user(run: Run, behaviour: Behaviour) -> dict[str, str]:
    both = ("last-udpate-user", "last-update-user")
    spellings = both if behaviour.update_user_key == "both" else (behaviour.update_user_key,)
    return dict.fromkeys(spellings, run.user)


def _last_run(lifecycle: RunLifecycle, behaviour: Behaviour) -> dict[str, Any]:
    """Return the keys of a job object that describe its newest run."""
    lifecycle.update_progress()
    run = lifecycle.run
    counters = run.counters or {}
    return {
        "status": _spelled(_JOB_STATUS.get(run.status, run.status), behaviour),
        "execute_create_date": _date(run.created, behaviour),
        "execute_start_date": _date(run.executed or run.created, behaviour),
        "execute_update_date": _date(run.updated, behaviour),
        "rows_read": counters.get("ROWS_READ", run.rows_read),
        "rows_written": counters.get("ROWS_WRITTEN", run.rows_written),
        "write_rows": run.rows_written,
        "update_rows": 0,
        "delete_rows": 0,
        "files_read": counters.get("FILES_READ", -1),
        "files_written": counters.get("FILES_WRITTEN", -1),
        "bytes_read": counters.get("BYTES_READ", -1),
        "bytes_written": counters.get("BYTES_WRITTEN", -1),
    }

"""Settings of an Airflow that is quick to notice everything."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version

SERIES = tuple(int(part) for part in version("apache-airflow").split(".")[:2])
AIRFLOW_3 = SERIES >= (3, 0)
#: Column of the task instances in the metadata database.
MAP_INDEX = "region_index" if SERIES >= (3, 4) else "map_index"
#: Seconds without a heartbeat after which a task, or a triggerer, counts as dead.
TASK_TIMEOUT, TRIGGERER_TIMEOUT = 15 if AIRFLOW_3 else 25, 10
#: Number of tasks that may run at the same time.
SLOTS = 32

_SECRET = "only-for-loopback-and-a-few-minutes"
_ALL = {
    "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "CORE__EXECUTOR": "LocalExecutor",
    "CORE__MAX_ACTIVE_TASKS_PER_DAG": str(SLOTS),
    "CORE__PARALLELISM": str(SLOTS),
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    "SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "3",
    "SCHEDULER__USE_JOB_SCHEDULE": "True",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": str(TRIGGERER_TIMEOUT),
    "USAGE_DATA_COLLECTION__ENABLED": "False",
}
_AIRFLOW_2 = {
    # No login, as with SIMPLE_AUTH_MANAGER_ALL_ADMINS of Airflow 3.
    "API__AUTH_BACKENDS": "airflow.api.auth.backend.default",
    # Seconds after which a running task that was marked successful is ended.
    "CORE__TASK_SUCCESS_OVERTIME": "3",
    "SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC": "10",
    "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": str(TASK_TIMEOUT),
    "SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "600",
    # Else a worker and the scheduler may schedule a task at the same time, since SQLite locks no
    # rows, and it is attempted once more than anybody asked for.
    "SCHEDULER__SCHEDULE_AFTER_TASK_EXECUTION": "False",
    # Not shorter: Airflow would request the retry of a dead task again before it has begun, which a
    # busy machine delays.
    "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "15",
    "WEBSERVER__SECRET_KEY": _SECRET,
}
_AIRFLOW_3 = {
    "API__SECRET_KEY": _SECRET,
    "API_AUTH__JWT_SECRET": _SECRET * 2,
    # Airflow 3.4 may notice the end of a killed task only after this time. It sends no heartbeats
    # for the task meanwhile, and a scheduler that misses them ends with an error if the task was
    # cleared.
    "CORE__KILLED_TASK_CLEANUP_TIME": "5",
    "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "600",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(TASK_TIMEOUT),
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}

#: Settings of the installed Airflow, as ``SECTION__KEY``.
SETTINGS: Mapping[str, str] = _ALL | (_AIRFLOW_3 if AIRFLOW_3 else _AIRFLOW_2)

"""Switches for behavior that the public documentation leaves open or describes in two ways."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


def time_zone(name: str) -> tzinfo:
    """Return a time zone; ``UTC`` does not need the time zone database.

    :param name: IANA name, such as ``Europe/Dublin``.
    :raises ValueError: if the time zone does not exist.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except ZoneInfoNotFoundError as exc:
        raise ValueError(f"there is no time zone {name!r}") from exc


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """Switches for behavior that the documentation leaves open or describes in two ways.

    A default is the documented variant if there is one, otherwise the more likely one (ASSUMED).
    """

    #: Final status of a stopped run. The API lists no value for it, the console shows "Stopped".
    stop_status: Literal["STOPPED", "FAILED"] = "STOPPED"
    #: Spelling of the status of runs, in all answers: small letters are what the client of another
    #: vendor (TSAPP) was written for.
    status_letters: Literal["capital", "small"] = "capital"
    #: Status of a run that waits since the cluster is full (``max_extractors`` of the cluster): the
    #: user guide has Pending, an answer of the vendor's FAQ has running jobs without rows.
    full_cluster: Literal["PENDING", "RUNNING"] = "PENDING"
    #: Seconds from an accepted stop call to the end of the run. ASSUMED: only that a run does not
    #: end at once is documented.
    stop_seconds: float = 0.2
    #: Body of the stop response, in one of three generations.
    stop_answer: Literal["validation-result", "submissions", "empty"] = "validation-result"
    #: Whether a pending run can be stopped. ASSUMED.
    stop_pending: bool = True
    #: Spelling of the key for the last user; most captured responses contain the typo.
    update_user_key: Literal["last-udpate-user", "last-update-user", "both"] = "last-udpate-user"
    #: JSON type of dates: the samples quote them, the type tables and the Go clients do not.
    dates_as: Literal["number", "string"] = "number"
    #: Where ``submission-id`` is present: the type table lists it, the short samples do not.
    submission_id: Literal["present", "absent-in-start", "absent"] = "present"
    #: Maximum of ``progress``: 100 (documented) or 1 (Sqoop).
    progress_scale: Literal["100", "1"] = "100"
    #: Whether submissions have the large keys of captured responses (schemas, external link).
    extra_keys: bool = False
    #: HTTP status of "no such job", except for delete calls.
    not_found_status: Literal["400", "404", "500"] = "400"
    #: HTTP status of "no such job" for delete calls; the page says 500, the table of codes 400.
    delete_not_found_status: Literal["400", "404", "500"] = "500"
    #: HTTP status of "already running", "not running" and "disabled".
    conflict_status: Literal["400", "409", "500"] = "400"
    #: Response of the history route for a job that does not exist. ASSUMED.
    unknown_history: Literal["error", "empty"] = "error"
    #: Whether the history route supports ``page_no`` and ``page_size``, which are not documented.
    #: ASSUMED.
    history_paging: bool = True
    #: Whether ``variables`` of the start call are used; clouds whose documentation does not list
    #: them may ignore them silently.
    variables: Literal["used", "ignored"] = "used"
    #: Effect of an undefined ``${name}``: the run fails, or the text is kept unchanged. ASSUMED.
    undefined_variable: Literal["fail", "literal"] = "fail"
    #: Final status of a whole-database run if only some of its tables succeeded. ASSUMED: the
    #: default is the value that misleads a client most.
    partial_status: Literal["SUCCEEDED", "FAILED"] = "SUCCEEDED"
    #: Counters of a successful whole-database run: the sums of its tables, or none. ASSUMED.
    whole_counters: Literal["sum", "absent"] = "sum"
    #: Job type under which the listing shows sub-jobs of a whole-database job. ASSUMED.
    sub_jobs_listed_as: Literal["NORMAL_JOB", "BATCH_JOB", "nowhere"] = "NORMAL_JOB"
    #: What is shown of a job: everything, or neither its dates and links nor its configuration,
    #: in job lists or wherever it is shown. ASSUMED.
    job_keys: Literal["all", "few-in-lists", "few"] = "all"
    #: Whether a sub-job keeps its earlier runs when the next run creates it again. ASSUMED.
    sub_job_history: Literal["kept", "dropped"] = "kept"
    #: What happens to sub-jobs when their whole-database job is deleted. ASSUMED.
    sub_jobs_of_deleted: Literal["deleted", "kept"] = "deleted"
    #: Whether creating or updating a job requires that its links exist. ASSUMED.
    check_links: bool = True
    #: Whether responses percent-encode the values of a job's configuration.
    encode_values: bool = False
    #: Whether responses show default settings that the client did not send. ASSUMED, as are the
    #: settings.
    default_inputs: bool = False
    #: Whether shown jobs have an input whose value is a list, and ids and types of configs, as one
    #: recorded from a cluster 2.9.3.300 (huaweicloud-sdk-go-v3 on GitHub, issue 74, 2024).
    list_values: bool = False
    #: Whether a job is shown only with its ``jobType``, unless that is ``NORMAL_JOB``: "Querying a
    #: Job" says that only table and file migration jobs are queried without one.
    show_needs_job_type: bool = False
    #: Error code of the 404 for a cluster that does not exist. ASSUMED.
    cluster_not_found_code: str = "Cdm.0001"
    #: Type of ``jobId`` in the response to a cluster restart; the page shows a string, a client
    #: in the field reads a list.
    restart_job_id: Literal["string", "list"] = "string"
    #: How the details of a cluster show a restart: by the status 500, which only the page of the
    #: list documents; by ``actions`` alone, as in the sample of the details; or not at all.
    restart_shown: Literal["status", "actions", "no"] = "status"
    #: Whether 429 responses have a ``Retry-After`` header; none of the recorded ones has.
    retry_after: bool = False
    #: Window of the quotas in seconds. The documentation says a minute; 5 minutes were recorded.
    quota_seconds: float = 60.0
    #: Whom the quotas count calls of: the user, or the address. Recorded texts name both.
    quota_policy: Literal["user", "ip"] = "user"
    #: Whether calls that were refused count as well, as measured on a service behind the same
    #: gateway.
    refused_calls_count: bool = False
    #: Body of a 429: the gateway's JSON, or the plain text that was recorded for some clouds.
    throttled_text: Literal["gateway", "plain"] = "gateway"
    #: Whether ``GET /v3/auth/projects`` accepts signatures besides tokens. ASSUMED.
    signed_auth_projects: bool = True
    #: What the gateway answers where it is not that of the region which was meant: nothing special,
    #: "no such API" (404), or "the token must be updated" (401). Both were recorded.
    wrong_region: Literal["off", "no-api", "token"] = "off"
    #: Error code of calls to a cluster that is not in status 200. ASSUMED.
    cluster_not_ready_code: str = "Cdm.0201"
    #: Time zone of date macros (IANA name). ASSUMED to be the time zone of the cluster, here UTC.
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        time_zone(self.timezone)

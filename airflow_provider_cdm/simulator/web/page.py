"""The web page: clusters, jobs, runs and requests, rendered from ``page.html.j2``."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Path of a run's page, with the placeholders of a connection's console URL.
RUN_PAGE = "/clusters/{cluster_id}/jobs/{job_name}/runs/{submission_id}"
#: Path of the page with the runs of a job: that of a run whose number is not known.
JOB_PAGE = "/clusters/{cluster_id}/jobs/{job_name}/runs/"
#: Content security policy: the page loads nothing from other servers, even if the name of a job
#: contained HTML that was not escaped.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def overview(state: dict[str, Any]) -> str:
    """Return the page with all clusters and requests.

    :param state: see :func:`airflow_provider_cdm.simulator.web.snapshot.state`.
    """
    return _render("overview", state=state)


def job(cluster_name: str, job_name: str, runs: Sequence[dict[str, Any]]) -> str:
    """Return the page with the runs of a job.

    :param cluster_name: name of the cluster.
    :param job_name: name of the job.
    :param runs: see :func:`airflow_provider_cdm.simulator.web.snapshot.runs_of`.
    """
    return _render("job", cluster_name=cluster_name, job_name=job_name, runs=runs)


def run(
    cluster_name: str,
    run: dict[str, Any],
    tables: Sequence[dict[str, Any]] = (),
    whole: dict[str, Any] | None = None,
) -> str:
    """Return the page of one run.

    :param cluster_name: name of the cluster.
    :param run: see :func:`airflow_provider_cdm.simulator.web.snapshot.run`.
    :param tables: runs of its tables, for a whole-database run.
    :param whole: whole-database run that it belongs to, for the run of a table.
    """
    return _render("run", cluster_name=cluster_name, run=run, tables=tables, whole=whole)


def missing(message: str) -> str:
    """Return the page for an address that does not exist.

    :param message: one sentence.
    """
    return _render("missing", message=message)


def run_path(run: dict[str, Any]) -> str:
    """Return the path of a run's page, "" if there is none.

    :param run: see :func:`airflow_provider_cdm.simulator.web.snapshot.run`.
    """
    return _path(RUN_PAGE, run, run["job_name"])


def job_path(job: dict[str, Any]) -> str:
    """Return the path of the page with a job's runs, "" if there is none.

    :param job: job in the state, see :func:`airflow_provider_cdm.simulator.web.snapshot.state`.
    """
    return _path(JOB_PAGE, job, job["name"])


def _path(pattern: str, values: dict[str, Any], job_name: str) -> str:
    if job_name in {".", ".."}:  # browsers remove such parts from a path, also if encoded
        return ""
    parts = {**values, "job_name": job_name}
    names = [name for name in ("cluster_id", "job_name", "submission_id") if name in parts]
    try:
        return pattern.format(**{name: quote(str(parts[name]), safe="") for name in names})
    except UnicodeEncodeError:  # a name from JSON with half of a surrogate pair
        return ""


#: What the codes of a cluster's status mean, as the page on clusters says.
_CLUSTER_STATUSES = {
    "100": "creating",
    "200": "normal",
    "300": "failed",
    "303": "creation failed",
    "500": "restarting",
    "800": "frozen",
    "900": "stopped",
    "910": "stopping",
    "920": "starting",
}


def _format_cluster_status(code: str) -> str:
    return f"{_CLUSTER_STATUSES.get(code, 'unknown')} ({code})"


def _format_http_status(status: int | None) -> str:
    if status is None:
        return "no answer"
    known = {each.value: each.phrase for each in HTTPStatus}
    return f"{status} {known.get(status, '')}".rstrip()


def _format_rows(run: dict[str, Any]) -> str:
    """Return how many rows have moved; those of a run that is active are written at its end."""
    read, written, total = run["rows_read"], run["rows_written"], run["rows_total"]
    if run["status"] == "RUNNING" and total is not None and not written:
        return f"{read:,} of {total:,} read"
    if read or written or run["executed"] is not None:
        return f"{read:,} read, {written:,} written"
    return ""


def _format_time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _format_progress(share: float) -> str:
    return "" if share < 0 else f"{share:.0%}"


def _css_class(status: str) -> str:
    return status if status.isidentifier() else ""


def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        loader=PackageLoader(__package__ or "", ""),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "cluster_status": _format_cluster_status,
        "css_class": _css_class,
        "http_status": _format_http_status,
        "job_path": job_path,
        "progress": _format_progress,
        "rows": _format_rows,
        "run_path": run_path,
        "time": _format_time,
    }
    return environment


_ENVIRONMENT = _environment()


def _render(view: str, **values: Any) -> str:
    return _ENVIRONMENT.get_template("page.html.j2").render(view=view, **values)
